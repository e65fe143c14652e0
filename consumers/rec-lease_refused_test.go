package consumers

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// idle is a handler and a feed that does nothing.
type idle struct{}

func (idle) Open(context.Context, *Partition) (Feed, error) { return idle{}, nil }
func (idle) Handle(context.Context, []*kgo.Record) error    { return nil }
func (idle) Close(context.Context) error                    { return nil }

// TestARefusedMemberNeverLeadsAgain: a process that stood still asks the group. While that confirms it, it goes on; where another
// process has taken its instance, no answer lets it act, not even for the moment until the client has read it.
func TestARefusedMemberNeverLeadsAgain(t *testing.T) {
	t.Parallel()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "requests"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	loop, err := NewLoop(LoopConfig{
		Client: ClientConfig{Brokers: cluster.ListenAddrs(), ClientID: "test", Instance: "pod-0", SessionTimeout: 2 * time.Minute},
		Group:  "g", Topics: []string{"requests"}, Handler: idle{},
	})
	if err != nil {
		t.Fatal(err)
	}
	var ahead atomic.Int64
	loop.lease.now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	ended := make(chan error, 1)
	go func() { ended <- loop.Run(t.Context()) }()
	standStill := func() {
		ahead.Add(int64(time.Hour))
		loop.Leads() // it looks at the clock
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	eventually := func(what string, so func() bool) {
		for deadline := time.Now().Add(2 * time.Minute); !so(); <-tick.C {
			if time.Now().After(deadline) {
				t.Fatalf("not in time: %s", what)
			}
		}
	}
	eventually("the loop is ready", func() bool { return loop.Ready() == nil && loop.Leads() })
	standStill()
	eventually("the group confirms it", loop.Leads)

	var refused atomic.Pointer[chan struct{}]
	cluster.ControlKey(int16(kmsg.Heartbeat), func(req kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		loop.lease.mu.Lock()
		renewed := loop.lease.renewed
		loop.lease.mu.Unlock()
		refused.CompareAndSwap(nil, &renewed)
		resp := req.ResponseKind().(*kmsg.HeartbeatResponse)
		resp.ErrorCode = kerr.FencedInstanceID.Code
		return resp, nil, true
	})
	standStill()
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "another process has joined") {
		t.Errorf("the loop ended with %v", err)
	}
	select {
	case <-*refused.Load():
		t.Error("an answer that refuses it has renewed its lease")
	default:
	}
}
