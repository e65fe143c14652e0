package gateway

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

func TestPresenceTellsWhoIsHere(t *testing.T) {
	t.Parallel()
	n := setup(t)
	eventuallyPresence := func(want int) []*whisperv1.Presence {
		t.Helper()
		eventually(t, "presence", func() bool { return len(n.broker.presences(t)) == want })
		return n.broker.presences(t)
	}
	phone := n.connect("mona")
	eventuallyPresence(1)
	laptop := n.connect("mona")
	eventuallyPresence(2)
	phone.Close()
	eventuallyPresence(3)
	laptop.Close()
	states := eventuallyPresence(4)

	for i, want := range []struct {
		sessions int32
		latest   string
	}{{1, phone.session}, {2, laptop.session}, {1, laptop.session}} {
		p := states[i]
		if p.GetSessions() != want.sessions || p.GetLatestSession() != want.latest || p.GetUserId() != "mona" ||
			p.GetNode() != "n1" || p.GetIncarnation() != n.incarnation.Load() {
			t.Errorf("state %d is %v", i, p)
		}
		if i > 0 && p.GetAtUs() <= states[i-1].GetAtUs() {
			t.Errorf("at_us does not grow: %d, %d", states[i-1].GetAtUs(), p.GetAtUs())
		}
	}
	if states[3] != nil {
		t.Errorf("the last state is %v, want a tombstone", states[3])
	}
	for _, rec := range n.broker.published(consumers.TopicPresence) {
		if string(rec.Key) != "mona\x00n1" || rec.Partition != consumers.PartitionOf("mona", 4) || rec.Headers[0].Key != HeaderIncarnation {
			t.Errorf("record %q on partition %d", rec.Key, rec.Partition)
		}
	}
}

func TestPresenceOfManyChangesEndsWithTheLast(t *testing.T) {
	t.Parallel()
	n := setup(t)
	for range 50 {
		n.connect("mona").Close()
	}
	last := n.connect("mona")
	eventually(t, "only the last to be here", func() bool {
		states := n.broker.presences(t)
		p := states[len(states)-1]
		return p.GetSessions() == 1 && p.GetLatestSession() == last.session
	})
	if got := len(n.broker.presences(t)); got > 101 {
		t.Errorf("%d records for 101 changes", got)
	}
}

func TestHeartbeats(t *testing.T) {
	t.Parallel()
	n := setup(t, func(c *Config, _ *fakeBroker) { c.Heartbeat = 10 * time.Millisecond; c.MaxConnections = 77 })
	n.connect("mona")
	eventually(t, "heartbeats", func() bool {
		beats := n.broker.heartbeats(t)
		return len(beats) > 5 && beats[len(beats)-1].GetConnections() == 1
	})
	b := n.broker.heartbeats(t)[5]
	if b.GetNode() != "n1" || b.GetIncarnation() != n.incarnation.Load() || b.GetLimit() != 77 || b.GetDraining() ||
		b.GetHeartbeatMs() != 10 || b.GetAtUs() == 0 {
		t.Errorf("heartbeat %v", b)
	}
	if rec := n.broker.published(consumers.TopicNodes)[0]; string(rec.Key) != "n1" || rec.Partition != 0 {
		t.Errorf("record %q on partition %d", rec.Key, rec.Partition)
	}
}

func beat(incarnation uint64) *kgo.Record {
	return &kgo.Record{
		Topic: consumers.TopicNodes, Key: []byte("n1"),
		Value:   mustMarshal(&whisperv1.Node{Node: "n1", Incarnation: incarnation}),
		Headers: []kgo.RecordHeader{{Key: headerProcess, Value: []byte("another")}},
	}
}

func TestEachStartIsALaterIncarnation(t *testing.T) {
	t.Parallel()
	future := uint64(time.Now().Add(time.Hour).UnixMilli()) // the clock was turned back since
	n := setup(t, func(_ *Config, b *fakeBroker) { b.past = []*kgo.Record{beat(5), beat(future), beat(6)} })
	if got := n.incarnation.Load(); got != future+1 {
		t.Errorf("incarnation %d, want %d", got, future+1)
	}
	now := setup(t, func(_ *Config, b *fakeBroker) { b.past = []*kgo.Record{beat(5)} })
	if got := now.incarnation.Load(); got < uint64(time.Now().Add(-time.Minute).UnixMilli()) {
		t.Errorf("incarnation %d is not the time", got)
	}
}

func TestTheOlderOfTwoProcessesStops(t *testing.T) {
	t.Parallel()
	for name, notice := range map[string]func(n *node){
		"by its heartbeat": func(n *node) { n.broker.Publish(beat(n.incarnation.Load()+1), nil) },
		"by the same incarnation later": func(n *node) {
			n.nodes.mu.Lock()
			n.nodes.owned = false // as if the other's record had come first
			n.nodes.mu.Unlock()
			n.broker.Publish(beat(n.incarnation.Load()), nil)
		},
		"by a route to it": func(n *node) {
			n.broker.put(domain.High, route(n, "mona", "a", func(r *whisperv1.Route) { r.Incarnation++ }))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := setup(t)
			c := n.connect("mona")
			eventually(t, "presence", func() bool { return len(n.broker.presences(t)) == 1 })
			notice(n)
			<-n.ended
			if n.err == nil || !strings.Contains(n.err.Error(), `another gateway was started as node "n1"`) {
				t.Errorf("it ended with %v", n.err)
			}
			c.wantClose(closeRestarting)
			if got := n.broker.presences(t); len(got) != 1 {
				t.Errorf("it wrote over the other's presence: %v", got)
			}
			if got := n.broker.allFacts(); len(got) != 0 {
				t.Errorf("it answered for the other: %v", got)
			}
			if n.Ready() == nil {
				t.Error("it is still ready")
			}
		})
	}
}

func TestAnEarlierHeartbeatIsNoReasonToStop(t *testing.T) {
	t.Parallel()
	n := setup(t)
	own := n.incarnation.Load()
	n.broker.Publish(beat(own-1), nil) // a process that has not noticed yet
	n.broker.Publish(beat(own), nil)   // ours came first
	n.broker.put(domain.High, route(n, "mona", "a"))
	n.wantKinds("a", "attempt_failed")
	if err := n.Ready(); err != nil {
		t.Error(err)
	}
}

func TestDrain(t *testing.T) { eachLink(t, testDrain) }

func testDrain(t *testing.T, link change) {
	n := setup(t, link, func(c *Config, _ *fakeBroker) { c.ReceiptHold = time.Hour; c.DrainTimeout = time.Second })
	leaves, stays := n.connect("mona"), n.connect("omar")
	n.broker.put(domain.High, route(n, "omar", "acked-late"), route(n, "omar", "unacked"))
	stays.wantNotification("acked-late")
	stays.wantNotification("unacked")
	eventually(t, "presence", func() bool { return len(n.broker.presences(t)) == 2 })
	began := time.Now()
	n.stop()
	for _, c := range []*client{leaves, stays} {
		f := c.frame()
		if after, ok := f["after_ms"].(float64); f["type"] != "reconnect" || !ok || after < 0 || after > 500 {
			t.Errorf("got %v", f)
		}
	}
	if err := n.Ready(); err == nil || !strings.Contains(err.Error(), "draining") {
		t.Errorf("ready: %v", err)
	}
	if _, resp, err := trusting.Dial(n.url, bearer(n.token("new", time.Hour))); err == nil || resp != nil &&
		resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("a new one was let in: %v", err)
	}
	leaves.Close()
	stays.ack("acked-late")
	n.wantKinds("acked-late", "delivery_delivered")
	stays.wantClose(closeRestarting)
	<-n.ended
	if n.err != nil {
		t.Errorf("Run: %v", n.err)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("the drain took %s", took)
	}
	n.wantKinds("unacked", "attempt_failed")
	last := map[string][]byte{}
	for _, rec := range n.broker.published(consumers.TopicPresence) {
		last[string(rec.Key)] = rec.Value
	}
	if len(last) != 2 || last["mona\x00n1"] != nil || last["omar\x00n1"] != nil {
		t.Errorf("presence is left: %v", last)
	}
	beats := n.broker.heartbeats(t)
	if !beats[len(beats)-1].GetDraining() {
		t.Error("the last heartbeat does not say that it drains")
	}
	if n.broker.committed[0] != 2 {
		t.Errorf("committed %v, want 2", n.broker.committed)
	}
}

func TestDrainWithoutSessionsIsQuick(t *testing.T) {
	t.Parallel()
	n := setup(t, func(c *Config, _ *fakeBroker) { c.DrainTimeout = time.Hour })
	n.stop()
	<-n.ended
	if n.err != nil {
		t.Error(n.err)
	}
}

func TestAnErrorOfKafkaEndsTheRole(t *testing.T) { eachLink(t, testAnErrorOfKafkaEndsTheRole) }

func testAnErrorOfKafkaEndsTheRole(t *testing.T, link change) {
	n := setup(t, link)
	c := n.connect("mona")
	n.broker.fail <- errors.New("write to whisper.events/0: too large")
	c.wantClose(closeRestarting)
	<-n.ended
	if n.err == nil || !strings.Contains(n.err.Error(), "too large") {
		t.Errorf("Run: %v", n.err)
	}
}

func TestABusyPortIsReported(t *testing.T) {
	t.Parallel()
	n := setup(t)
	cfg := config()
	cfg.Addr = n.Addr().String()
	g, err := newGateway(cfg.withDefaults(), newFakeBroker())
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Run(context.Background()); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("Run: %v", err)
	}
}

func TestConfigNamesEveryProblem(t *testing.T) {
	t.Parallel()
	err := Config{Node: "no/slash", MaxFrame: -1, Heartbeat: -1}.Validate()
	for _, want := range []string{"node:", "kafka:", "auth-secret", "partitions:", "max-frame:", "heartbeat:"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
}

// Whoever was silent for so long that dispatch has forgotten it starts again: nobody knows of its sessions.
func TestANodeThatWasForgottenStopsAndALaterStartDoesNot(t *testing.T) {
	t.Parallel()
	n := setup(t)
	end := func(incarnation uint64) {
		n.broker.Publish(&kgo.Record{
			Topic: consumers.TopicNodes, Key: []byte("n1"),
			Headers: []kgo.RecordHeader{{Key: HeaderIncarnation, Value: strconv.AppendUint(nil, incarnation, 10)}},
		}, nil)
	}
	end(n.incarnation.Load() - 1)
	n.connect("mona")
	end(n.incarnation.Load())
	select {
	case <-n.ended:
	case <-time.After(time.Minute):
		t.Fatal("it goes on")
	}
	if n.err == nil || !strings.Contains(n.err.Error(), "was forgotten") {
		t.Errorf("it ended with %v", n.err)
	}
}
