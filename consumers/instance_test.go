package consumers_test

import (
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
)

// instance is the configuration of a process of the group that keeps its name.
func instance(client consumers.ClientConfig, rec *recorder, name string) consumers.LoopConfig {
	client.Instance, client.SessionTimeout = name, 2*time.Minute
	return consumers.LoopConfig{
		Client: client, Group: "g", Topics: []string{"requests"}, Handler: rec, CommitInterval: 10 * time.Millisecond,
	}
}

// A process with an instance name that stops and comes back has its partitions again, and the other member never loses
// or gains one. (That there is no rebalance a real broker shows: see the integration tests.)
func TestAnInstanceThatComesBackGetsItsPartitions(t *testing.T) {
	t.Parallel()
	client := kafka(t, 4, "requests")
	first, other := newRecorder(), newRecorder()
	stop := start(t, instance(client, first, "pod-0"))
	start(t, instance(client, other, "pod-1"))
	eventually(t, "the two share the partitions", func() bool { return len(first.owns()) == 2 && len(other.owns()) == 2 })
	mine, others := first.owns(), other.owns()
	stop()
	if owned := other.owns(); !slices.Equal(owned, others) {
		t.Errorf("the other process owns %v when the first has stopped, and %v before", owned, others)
	}
	again := newRecorder()
	start(t, instance(client, again, "pod-0"))
	eventually(t, "it has its partitions again", func() bool { return slices.Equal(again.owns(), mine) })
	for i := range 4 {
		publish(t, client, &kgo.Record{Topic: "requests", Partition: int32(i), Value: []byte("x")})
	}
	eventually(t, "every partition is read", func() bool { return again.count() == 2 && other.count() == 2 })
	if other.closed > 0 {
		t.Errorf("the other process gave up %d partitions meanwhile", other.closed)
	}
}

// The process whose instance another one takes ends with words. It does not join again, which would end the other one.
func TestTheSecondProcessOfAnInstanceEndsTheFirst(t *testing.T) {
	t.Parallel()
	client := kafka(t, 2, "requests")
	loop, err := consumers.NewLoop(instance(client, newRecorder(), "pod-0"))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- loop.Run(t.Context()) }()
	eventually(t, "the loop is ready", func() bool { return loop.Ready() == nil })
	second := newRecorder()
	start(t, instance(client, second, "pod-0"))
	if err := <-ended; err == nil || !strings.Contains(err.Error(), `another process has joined as the instance "pod-0"`) {
		t.Errorf("the first ended with %v", err)
	}
	eventually(t, "the second owns all", func() bool { return len(second.owns()) == 2 })
}

func TestEachLaneIsAnInstanceOfItsOwn(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for lane := range domain.Lanes {
		c := consumers.ClientConfig{ClientID: "intake", Instance: "pod-0"}.ForLane(domain.Lane(lane))
		if seen[c.Instance] {
			t.Errorf("two lanes have the instance %s", c.Instance)
		}
		seen[c.Instance] = true
	}
	if c := (consumers.ClientConfig{ClientID: "intake"}).ForLane(domain.High); c.Instance != "" {
		t.Errorf("without an instance a lane has %q", c.Instance)
	}
}

// Some time after it has come back it asks for one rebalance: what it was giving up when it died would stay without an owner.
func TestAnInstanceAsksForOneRebalance(t *testing.T) {
	t.Parallel()
	cluster, client := fakeKafka(t, 2, "requests")
	var first, last atomic.Int32 // generations of the group
	cluster.ControlKey(int16(kmsg.SyncGroup), func(req kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		generation := req.(*kmsg.SyncGroupRequest).Generation
		first.CompareAndSwap(0, generation)
		last.Store(generation)
		return nil, nil, false
	})
	rec := newRecorder()
	start(t, instance(client, rec, "pod-0"))
	eventually(t, "the group is rebalanced", func() bool { return last.Load() > first.Load() })
	eventually(t, "it has all partitions", func() bool { return len(rec.owns()) == 2 })
	if rec.closed > 0 {
		t.Errorf("%d partitions were given up for it", rec.closed)
	}
}
