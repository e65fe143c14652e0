package consumers

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// slowly is a handler that takes its time for each record, and asks before each.
type slowly struct {
	part    atomic.Pointer[Partition]
	handled atomic.Int64
}

func (h *slowly) Open(_ context.Context, p *Partition) (Feed, error) {
	h.part.Store(p)
	return h, nil
}

func (h *slowly) Handle(ctx context.Context, records []*kgo.Record) error {
	for range records {
		if !h.part.Load().Await(ctx) {
			return nil
		}
		h.handled.Add(1)
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	return nil
}

func (h *slowly) Close(context.Context) error { return nil }

// requestsCluster is a fake broker with one topic of one partition: requests.
func requestsCluster(t *testing.T) *kfake.Cluster {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "requests"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func slowLoop(t *testing.T, c *kfake.Cluster, name string) (*Loop, *slowly) {
	t.Helper()
	h := &slowly{}
	l, err := NewLoop(LoopConfig{
		Client: ClientConfig{Brokers: c.ListenAddrs(), ClientID: name}, Group: "g", Topics: []string{"requests"}, Handler: h, HandoverTimeout: time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return l, h
}

// until waits for a condition.
func until(t *testing.T, what string, so func() bool) {
	t.Helper()
	deadline := time.After(3 * time.Minute)
	for !so() {
		select {
		case <-time.After(5 * time.Millisecond):
		case <-deadline:
			t.Fatal("in vain: " + what)
		}
	}
}

// TestABatchStopsWhereTheLeaseEnds: what a process has been handed before its session ended is not its own any more. Only
// this process can't reach its coordinator, and keeps looking for it.
func TestABatchStopsWhereTheLeaseEnds(t *testing.T) {
	t.Parallel()
	c := requestsCluster(t)
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	for i := range 100_000 {
		cl.Produce(t.Context(), &kgo.Record{Topic: "requests", Value: fmt.Append(nil, i)}, nil)
	}
	if err := cl.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	first, a := slowLoop(t, c, "first")
	until(t, "the first handles records", func() bool { return a.handled.Load() > 3 })
	member, _ := first.cl.GroupMetadata()
	c.ControlKey(int16(kmsg.Heartbeat), func(req kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		if req.(*kmsg.HeartbeatRequest).MemberID != member {
			return nil, nil, false
		}
		resp := kmsg.NewPtrHeartbeatResponse()
		resp.Version, resp.ErrorCode = req.GetVersion(), kerr.NotCoordinator.Code
		return resp, nil, true
	})
	_, b := slowLoop(t, c, "second")
	until(t, "the second handles records", func() bool { return b.handled.Load() > 0 })
	if first.Leads() {
		t.Error("both lead")
	}
	n, m := a.handled.Load(), b.handled.Load()
	until(t, "the second goes on", func() bool { return b.handled.Load() > m+50 })
	if now := a.handled.Load(); now > n+1 {
		t.Errorf("the first went on with %d records", now-n)
	}
}

// TestOnlyTheMemberThatWasAssignedIsConfirmed: a client that was thrown out joins as another member by itself, and has its
// old partitions until that one's assignment.
func TestOnlyTheMemberThatWasAssignedIsConfirmed(t *testing.T) {
	t.Parallel()
	c := requestsCluster(t)
	l, _ := slowLoop(t, c, "first")
	until(t, "it leads", l.Leads)
	if err := l.ask(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.mu.Lock()
	l.member = "who it was before"
	l.mu.Unlock()
	if err := l.ask(t.Context()); !errors.Is(err, errNoMember) {
		t.Errorf("got %v", err)
	}
}

// TestASlowCommitDoesNotEndTheLease: the answer to a commit is held until the lease has been renewed beside it for longer than a session.
func TestASlowCommitDoesNotEndTheLease(t *testing.T) {
	t.Parallel()
	c := requestsCluster(t)
	l, _ := slowLoop(t, c, "first")
	until(t, "it leads", l.Leads)
	release, came := make(chan struct{}), make(chan struct{})
	var held atomic.Bool
	c.ControlKey(int16(kmsg.OffsetCommit), func(kmsg.Request) (kmsg.Response, error, bool) {
		if held.CompareAndSwap(false, true) {
			c.SleepControl(func() {
				close(came)
				<-release
			})
		}
		return nil, nil, false
	})
	committed := make(chan error, 1)
	go func() {
		committed <- l.commitSync(t.Context(), map[string]map[int32]kgo.EpochOffset{"requests": {0: {Epoch: -1, Offset: 0}}})
	}()
	<-came
	defer func() {
		close(release)
		if err := <-committed; err != nil {
			t.Error(err)
		}
	}()
	began := time.Now()
	until(t, "it leads, longer than a session after the commit began", func() bool {
		return time.Since(began) > l.lease.session*3/2 && l.Leads()
	})
}
