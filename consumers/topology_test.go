package consumers_test

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/klivvr/whisper/consumers"
)

func brokers(t *testing.T, n int) consumers.ClientConfig {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(n))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	return consumers.ClientConfig{Brokers: cluster.ListenAddrs(), ClientID: t.Name()}
}

var unsaid = consumers.Topology{Partitions: 2, DuplicateWindow: time.Hour, Retention: time.Hour}

// TestReplicationIsWhatTheClusterCanHold where nobody has said another.
func TestReplicationIsWhatTheClusterCanHold(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		brokers      int
		said, minISR int
		want         int16
		wantMinISR   string
	}{
		{brokers: 1, want: 1, wantMinISR: "1"},
		{brokers: 2, want: 2, wantMinISR: "1"},
		{brokers: 3, want: 3, wantMinISR: "2"},
		{brokers: 5, want: 3, wantMinISR: "2"},
		{brokers: 5, said: 5, want: 5, wantMinISR: "4"},
		{brokers: 3, said: 1, want: 1, wantMinISR: "1"},
		{brokers: 3, minISR: 1, want: 3, wantMinISR: "1"},
		{brokers: 1, minISR: 2, want: 1, wantMinISR: "1"}, // more would stop every write
	} {
		adm := admin(t, brokers(t, tt.brokers))
		topology := unsaid
		topology.Replication, topology.MinISR = int16(tt.said), tt.minISR
		plans, err := consumers.PlanTopics(t.Context(), adm, topology.Specs())
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range plans {
			if p.Create == nil || p.Create.Replication != tt.want || p.Create.Configs["min.insync.replicas"] != tt.wantMinISR {
				t.Fatalf("%+v: the plan is %+v", tt, p.Create)
			}
		}
	}
}

// TestWhatExistsKeepsItsReplication: another default is no conflict, and asks for no more replicas in sync than
// the topic has.
func TestWhatExistsKeepsItsReplication(t *testing.T) {
	t.Parallel()
	client := brokers(t, 3)
	for _, said := range []int16{0, 3} {
		single, later := unsaid, unsaid
		single.Replication, later.Replication = 1, said
		if err := consumers.EnsureTopics(t.Context(), client, single.Specs()...); err != nil {
			t.Fatal(err)
		}
		plans, err := consumers.CheckTopics(t.Context(), admin(t, client), later, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range plans {
			if p.Create != nil || len(p.Alter) > 0 {
				t.Errorf("replication %d: still to do %+v", said, p)
			}
		}
	}
}

// TestTopicsThatComeLateAreWaitedFor: a broker hears of topics that another one made with a delay.
func TestTopicsThatComeLateAreWaitedFor(t *testing.T) {
	t.Parallel()
	client := brokers(t, 1)
	checked, followed := make(chan error, 1), make(chan error, 1)
	adm, reader := admin(t, client), runReader(t, client)
	go func() {
		_, err := consumers.CheckTopics(t.Context(), adm, unsaid, slog.New(slog.DiscardHandler))
		checked <- err
	}()
	go func() {
		_, err := reader.Follow(t.Context(), consumers.TopicUsers, 1, consumers.FromStart, func([]*kgo.Record) {})
		followed <- err
	}()
	select {
	case err := <-checked:
		t.Fatalf("the check did not wait: %v", err)
	case err := <-followed:
		t.Fatalf("the reader did not wait: %v", err)
	case <-time.After(300 * time.Millisecond):
	}
	if err := consumers.EnsureTopics(context.Background(), client, unsaid.Specs()...); err != nil {
		t.Fatal(err)
	}
	for what, done := range map[string]chan error{"check": checked, "follow": followed} {
		if err := <-done; err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestABrokerThatIsAwayIsWaitedFor: a role starts while one of three brokers does not answer.
func TestABrokerThatIsAwayIsWaitedFor(t *testing.T) {
	t.Parallel()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(3))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	client := consumers.ClientConfig{Brokers: cluster.ListenAddrs(), ClientID: t.Name()}
	topology := consumers.Topology{Partitions: 1, Replication: 1, DuplicateWindow: time.Hour, Retention: time.Hour}
	if err := consumers.EnsureTopics(t.Context(), client, topology.Specs()...); err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int32
	cluster.ControlKey(int16(kmsg.DescribeConfigs), func(kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		if asked.Add(1) > 12 {
			return nil, nil, false
		}
		return nil, errors.New("the broker went away"), true
	})
	if _, err := consumers.CheckTopics(t.Context(), admin(t, client), topology, slog.New(slog.DiscardHandler)); err != nil {
		t.Error(err)
	}
	if asked.Load() <= 12 {
		t.Errorf("it was asked %d times, so nothing was waited for", asked.Load())
	}
}
