package dispatch_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/consumers/dispatch"
)

// TestTwoProcessesOfOneInstanceHaveNotOneEpoch: the group gives both the partitions in one generation, and the first one's marks
// are on their way when the second takes over. Whatever epoch stands on the records of a changelog, one process wrote them.
func TestTwoProcessesOfOneInstanceHaveNotOneEpoch(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	topics, err := s.adm.ListTopics(t.Context(), consumers.TopicUsers)
	if err != nil {
		t.Fatal(err)
	}
	id := topics[consumers.TopicUsers].ID
	held, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	s.cluster.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		s.cluster.KeepControl()
		for _, topic := range req.(*kmsg.ProduceRequest).Topics {
			if topic.Topic == consumers.TopicUsers || topic.TopicID == id {
				first := false
				once.Do(func() { first = true; close(held) })
				if first {
					s.cluster.SleepControl(func() { <-release })
				}
			}
		}
		return nil, nil, false
	})
	cut, heard := make(chan struct{}), make(chan struct{}) // the first one's coordinator
	hear := sync.OnceFunc(func() { close(heard) })
	defer hear()
	var member string
	s.cluster.ControlKey(int16(kmsg.Heartbeat), func(req kmsg.Request) (kmsg.Response, error, bool) {
		s.cluster.KeepControl()
		who := req.(*kmsg.HeartbeatRequest).MemberID
		if member == "" {
			member = who
			close(cut)
		}
		if who == member {
			s.cluster.SleepControl(func() { <-heard })
		}
		return nil, nil, false
	})
	run := func(client string) (*dispatch.Role, <-chan error) {
		c := s.client
		c.ClientID, c.Instance, c.SessionTimeout = client, "pod-0", time.Minute
		role, err := dispatch.New(dispatch.Config{Client: c, Partitions: partitions, CommitInterval: 20 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		ctx, cancel := context.WithCancel(context.Background())
		go func() { ended <- role.Run(ctx) }()
		t.Cleanup(cancel)
		return role, ended
	}
	_, first := run("first")
	<-held
	<-cut
	second, _ := run("second")
	s.eventually("the second is ready", func() bool { return second.Ready() == nil })
	s.patch("mona", `{"locale":"ar"}`)
	s.eventually("it writes", func() bool { return s.last(consumers.TopicUsers, "mona") != nil })
	partition := s.last(consumers.TopicUsers, "mona").Partition
	close(release)
	s.eventually("the marks of both are there", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		n := 0
		for _, rec := range s.records[consumers.TopicUsers] {
			if rec.Partition == partition && string(rec.Key) == consumers.OwnerMark {
				n++
			}
		}
		return n >= 2
	})
	s.patch("omar", `{"locale":"ar"}`)
	s.eventually("the second writes on", func() bool { return s.last(consumers.TopicUsers, "omar") != nil })
	hear()
	if err := <-first; err == nil {
		t.Error("the first ended without a word")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	type owned struct {
		partition int32
		epoch     consumers.Epoch
	}
	writer := map[owned]int64{}
	for _, rec := range s.records[consumers.TopicUsers] {
		if string(rec.Key) == consumers.OwnerMark {
			continue
		}
		as := owned{rec.Partition, consumers.EpochOf(rec)}
		if p, ok := writer[as]; ok && p != rec.ProducerID {
			t.Errorf("two processes write the state of partition %d as owner %s", rec.Partition, as.epoch)
		}
		writer[as] = rec.ProducerID
	}
}
