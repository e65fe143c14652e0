package consumers

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
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
	cluster := requestsCluster(t)
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

// TestAMemberOutwaitsItsCoordinator: while no coordinator is to be found for longer than the session, a member does not lead, and
// keeps its partitions: the next coordinator has its membership, and a session of its own.
func TestAMemberOutwaitsItsCoordinator(t *testing.T) {
	t.Parallel()
	cluster := requestsCluster(t)
	client := ClientConfig{Brokers: cluster.ListenAddrs(), ClientID: "test", Instance: "pod-0", SessionTimeout: DefaultSessionTimeout}
	var closed atomic.Int32
	loop, err := NewLoop(LoopConfig{Client: client, Group: "g", Topics: []string{"requests"}, Handler: closing{&closed}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- loop.Run(ctx) }()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(2 * time.Minute); loop.Ready() != nil || !loop.Leads(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("not ready: %v", loop.Ready())
		}
	}
	var away atomic.Bool
	away.Store(true)
	cluster.ControlKey(int16(kmsg.Heartbeat), func(req kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		if !away.Load() || req.(*kmsg.HeartbeatRequest).InstanceID == nil { // see below
			return nil, nil, false
		}
		resp := req.ResponseKind().(*kmsg.HeartbeatResponse)
		resp.ErrorCode = kerr.NotCoordinator.Code
		return resp, nil, true
	})
	// The fake broker has one coordinator, whose sessions run out. This stands for the new session that Kafka's next one gives.
	keeper, err := kgo.NewClient(kgo.SeedBrokers(client.Brokers...))
	if err != nil {
		t.Fatal(err)
	}
	defer keeper.Close()
	keep := func() {
		req := kmsg.NewPtrHeartbeatRequest()
		req.Group = "g"
		req.MemberID, req.Generation = loop.cl.GroupMetadata()
		resp, err := req.RequestWith(t.Context(), keeper)
		if err == nil {
			err = kerr.ErrorForCode(resp.ErrorCode)
		}
		if err != nil && !errors.Is(err, kerr.RebalanceInProgress) {
			t.Errorf("the member is not kept: %v", err)
		}
	}
	for began, led := time.Now(), true; (led || time.Since(began) < DefaultSessionTimeout*3/2) && !t.Failed(); <-tick.C {
		keep()
		led = loop.Leads()
	}
	away.Store(false)
	for ; !loop.Leads() && !t.Failed(); <-tick.C {
		keep()
	}
	if n := closed.Load(); n > 0 {
		t.Errorf("it gave up its partition %d times", n)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// closing counts how often its feeds are closed.
type closing struct{ n *atomic.Int32 }

func (c closing) Open(context.Context, *Partition) (Feed, error) { return c, nil }
func (c closing) Handle(context.Context, []*kgo.Record) error    { return nil }
func (c closing) Close(context.Context) error                    { c.n.Add(1); return nil }
