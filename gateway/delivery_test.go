package gateway

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

func TestAFrameIsSentAckedAndRead(t *testing.T) { eachLink(t, testAFrameIsSentAckedAndRead) }

func testAFrameIsSentAckedAndRead(t *testing.T, link change) {
	n := setup(t, link)
	c := n.connect("mona")
	due := n.cfg.Now().Add(time.Hour).UnixMilli() // the request is older, and the latency from then on is 0
	rec := route(n, "mona", "pay-1", func(r *whisperv1.Route) { r.Attempt, r.DueMs = 3, due })
	rec.Headers = []kgo.RecordHeader{{Key: "traceparent", Value: []byte("00-abc")}, {Key: "other", Value: []byte("x")}}
	offset := n.broker.put(domain.High, rec)
	c.wantNotification("pay-1")
	n.wantKinds("pay-1", "delivery_sent")
	c.ack("pay-1")
	c.ack("pay-1") // again: no error, no second fact
	c.read("pay-1")
	c.read("pay-1")
	n.wantKinds("pay-1", "delivery_sent", "delivery_delivered", "delivery_read")
	eventually(t, "the offset to be committed", func() bool {
		n.broker.mu.Lock()
		defer n.broker.mu.Unlock()
		return n.broker.committed[0] == offset+1
	})
	last := int64(0)
	for i, ev := range n.broker.allFacts() {
		if ev.GetAtUs() <= last {
			t.Errorf("at_us does not grow: %d after %d", ev.GetAtUs(), last)
		}
		last = ev.GetAtUs()
		if ev.GetLane() != whisperv1.Lane_LANE_HIGH || ev.GetUserId() != "mona" || len(ev.GetDeliveryId()) != 16 {
			t.Errorf("fact %v", ev)
		}
		if c := ev.GetCause(); c.GetTopic() != "whisper.node.n1" || c.GetPartition() != 0 || c.GetOffset() != offset {
			t.Errorf("cause %v", c)
		}
		if trace := n.broker.traces[i]; len(trace) != 1 || string(trace[0].Value) != "00-abc" {
			t.Errorf("trace %v", trace)
		}
	}
	facts := n.broker.allFacts()
	if sent := facts[0].GetDeliverySent(); sent.GetAttempt() != 3 || sent.GetChannel() != "socket" || sent.GetNode() != "n1" ||
		sent.GetLatencyUs() <= 0 || sent.GetDueMs() != due {
		t.Errorf("sent %v", sent)
	}
	if d := facts[1].GetDeliveryDelivered(); d.GetAttempt() != 3 || d.GetNode() != "n1" || d.GetSentAtUs() != 0 || d.GetDueMs() != due {
		t.Errorf("delivered %v", d)
	}
	var b bytes.Buffer
	n.cfg.Metrics.WritePrometheus(&b)
	for _, want := range []string{
		`whisper_delivery_attempts_total{channel="socket",outcome="sent"} 1`,
		`whisper_delivery_latency_seconds_count{channel="socket",lane="high",until="taken"} 1`,
		`whisper_delivery_latency_seconds_count{channel="socket",lane="high",until="acknowledged"} 1`,
		`whisper_delivery_due_latency_seconds_sum{channel="socket",lane="high",until="taken"} 0`,
		`whisper_delivery_due_latency_seconds_count{channel="socket",lane="high",until="acknowledged"} 1`,
		`whisper_gateway_connections 1`,
	} {
		if !strings.Contains(b.String(), want+"\n") {
			t.Errorf("metrics lack %s", want)
		}
	}
}

func TestAnAckWithinTheHoldIsOneFact(t *testing.T) {
	t.Parallel()
	n := setup(t, func(c *Config, _ *fakeBroker) { c.ReceiptHold = time.Hour })
	c := n.connect("mona")
	n.broker.put(domain.Normal, route(n, "mona", "a"), route(n, "mona", "b"))
	c.wantNotification("a")
	c.wantNotification("b")
	c.ack("a")
	n.wantKinds("a", "delivery_delivered")
	d := n.broker.allFacts()[0].GetDeliveryDelivered()
	if d.GetSentAtUs() == 0 || d.GetLatencyUs() <= 0 || d.GetSentAtUs() > n.broker.allFacts()[0].GetAtUs() {
		t.Errorf("it does not tell of the sending: %v", d)
	}
	c.Close()
	eventually(t, "the session to be gone", func() bool { return n.connections.Load() == 0 })
	n.stop()
	<-n.ended
	n.wantKinds("b", "delivery_sent") // what was held is told before the node is gone
}

func TestAnAckAfterTheHoldIsASecondFact(t *testing.T) {
	t.Parallel()
	n := setup(t, func(c *Config, _ *fakeBroker) { c.ReceiptHold = 10 * time.Millisecond })
	c := n.connect("mona")
	for i := range 50 {
		n.broker.put(domain.Normal, route(n, "mona", fmt.Sprint(i)))
	}
	for i := range 50 {
		c.wantNotification(fmt.Sprint(i))
	}
	for i := range 50 {
		n.wantKinds(fmt.Sprint(i), "delivery_sent")
	}
	c.ack("7")
	n.wantKinds("7", "delivery_sent", "delivery_delivered")
}

func TestAutoAckCountsWhenTheSocketTakesIt(t *testing.T) {
	eachLink(t, testAutoAckCountsWhenTheSocketTakesIt)
}

func testAutoAckCountsWhenTheSocketTakesIt(t *testing.T, link change) {
	n := setup(t, link, func(c *Config, _ *fakeBroker) { c.ReceiptHold = time.Hour })
	c := n.connect("mona", "?ack=auto")
	n.broker.put(domain.Low, route(n, "mona", "a"))
	c.wantNotification("a")
	n.wantKinds("a", "delivery_delivered")
}

func TestAllDevicesGetItAndOneFactTellsIt(t *testing.T) {
	eachLink(t, testAllDevicesGetItAndOneFactTellsIt)
}

func testAllDevicesGetItAndOneFactTellsIt(t *testing.T, link change) {
	n := setup(t, link)
	phone, laptop := n.connect("mona"), n.connect("mona")
	n.broker.put(domain.High, route(n, "mona", "a"))
	phone.wantNotification("a")
	laptop.wantNotification("a")
	n.wantKinds("a", "delivery_sent")
	phone.ack("a")
	laptop.ack("a")
	laptop.read("a")
	n.wantKinds("a", "delivery_sent", "delivery_delivered", "delivery_read")

	n.broker.put(domain.High, route(n, "mona", "b", func(r *whisperv1.Route) { r.Session = laptop.session }))
	laptop.wantNotification("b")
	phone.ack("b") // never sent to this device
	phone.wantError(codeUnknownID)
	n.wantKinds("b", "delivery_sent")
}

func TestOneUserCantAcknowledgeForAnother(t *testing.T) {
	t.Parallel()
	n := setup(t)
	mona, omar := n.connect("mona"), n.connect("omar")
	n.broker.put(domain.High, route(n, "mona", "a"))
	mona.wantNotification("a")
	n.wantKinds("a", "delivery_sent")
	omar.ack("a")
	omar.wantError(codeUnknownID)
	omar.read("a") // may be told of an earlier connection, but only ever of his own delivery
	eventually(t, "the read", func() bool { return len(n.broker.allFacts()) == 2 })
	read := n.broker.allFacts()[1]
	id := domain.DeliveryID(read.GetDeliveryId())
	if read.GetUserId() != "omar" || id.Time().UnixMilli() != 0 || id.Hash() != domain.HashDelivery("a", "omar") {
		t.Errorf("the read is %v", read)
	}
}

func TestRoutesThatNobodyHereCanTakeAreBounced(t *testing.T) {
	t.Parallel()
	n := setup(t)
	mona := n.connect("mona")
	eventually(t, "presence", func() bool { return len(n.broker.presences(t)) == 1 })
	present := n.broker.presences(t)[0]
	own := n.incarnation.Load()
	for name, c := range map[string]struct {
		rec     *kgo.Record
		class   whisperv1.FailureClass
		present bool // the user is here: the bounce must not say otherwise
	}{
		"nobody":  {route(n, "omar", "nobody"), whisperv1.FailureClass_FAILURE_CLASS_UNREACHABLE, false},
		"session": {route(n, "mona", "session", func(r *whisperv1.Route) { r.Session = "another" }), whisperv1.FailureClass_FAILURE_CLASS_UNREACHABLE, true},
		"earlier": {route(n, "mona", "earlier", func(r *whisperv1.Route) { r.Incarnation = own - 1 }), whisperv1.FailureClass_FAILURE_CLASS_UNREACHABLE, true},
		"expired": {route(n, "mona", "expired", func(r *whisperv1.Route) { r.ExpiresAtMs = 1 }), whisperv1.FailureClass_FAILURE_CLASS_EXPIRED, false},
	} {
		n.broker.put(domain.Normal, c.rec)
		n.wantKinds(name, "attempt_failed")
		for _, ev := range n.broker.allFacts() {
			if ev.GetNotificationId() != name {
				continue
			}
			f := ev.GetAttemptFailed()
			if f.GetClass() != c.class || f.GetNode() != "n1" || f.GetAttempt() != 1 || f.GetReason() == "" || f.GetChannel() != "socket" {
				t.Errorf("%s: %v", name, f)
			}
			var r whisperv1.Route
			if err := proto.Unmarshal(c.rec.Value, &r); err != nil {
				t.Fatal(err)
			}
			if f.GetIncarnation() != r.GetIncarnation() {
				t.Errorf("%s: incarnation %d, want %d", name, f.GetIncarnation(), r.GetIncarnation())
			}
			if c.present && ev.GetAtUs() >= present.GetAtUs() {
				t.Errorf("%s: the bounce at %d denies the presence of %d", name, ev.GetAtUs(), present.GetAtUs())
			}
			if name == "nobody" && ev.GetAtUs() <= present.GetAtUs() {
				t.Errorf("the bounce at %d is not after %d", ev.GetAtUs(), present.GetAtUs())
			}
		}
	}
	n.broker.put(domain.Normal, route(n, "mona", "good"))
	mona.wantNotification("good")
}

func TestABounceIsBeforeTheSessionThatOpensAfterIt(t *testing.T) {
	t.Parallel()
	n := setup(t)
	n.broker.put(domain.Normal, route(n, "mona", "a"))
	n.wantKinds("a", "attempt_failed")
	n.connect("mona")
	eventually(t, "presence", func() bool { return len(n.broker.presences(t)) == 1 })
	if bounce, open := n.broker.allFacts()[0].GetAtUs(), n.broker.presences(t)[0].GetAtUs(); bounce >= open {
		t.Errorf("bounced at %d, present at %d", bounce, open)
	}
}

func TestRecordsThatAreNoRoutesAreDeadLetters(t *testing.T) {
	t.Parallel()
	n := setup(t)
	c := n.connect("mona")
	bad := []*kgo.Record{
		{Key: []byte("mona"), Value: []byte("\xff\xff")},
		{Key: []byte("mona"), Value: nil},
		route(n, "mona", "a", func(r *whisperv1.Route) { r.DeliveryId = []byte("short") }),
		route(n, "mona", "b", func(r *whisperv1.Route) { r.Frame = nil }),
		route(n, "mona", "c", func(r *whisperv1.Route) { r.NotificationId = "" }),
	}
	noKey := route(n, "mona", "d")
	noKey.Key = nil
	last := n.broker.put(domain.Low, append(bad, noKey, route(n, "mona", "good"))...)
	c.wantNotification("good")
	n.broker.mu.Lock()
	dead := len(n.broker.dead)
	n.broker.mu.Unlock()
	if dead != len(bad)+1 {
		t.Errorf("%d dead letters, want %d", dead, len(bad)+1)
	}
	eventually(t, "all to be committed", func() bool {
		n.broker.mu.Lock()
		defer n.broker.mu.Unlock()
		return n.broker.committed[2] == last+1
	})
}

func TestNothingIsCommittedBeforeKafkaHasTheOutcome(t *testing.T) {
	t.Parallel()
	n := setup(t, func(_ *Config, b *fakeBroker) { b.hold = true })
	c := n.connect("mona")
	n.broker.put(domain.High, route(n, "mona", "a"))
	c.wantNotification("a")
	n.wantKinds("a", "delivery_sent")
	if err := n.lanes.commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.broker.mu.Lock()
	defer n.broker.mu.Unlock()
	if len(n.broker.committed) != 0 {
		t.Errorf("committed %v", n.broker.committed)
	}
	if n.broker.started[0] != 7 || n.broker.started[1] != -2 {
		t.Errorf("reading started at %v", n.broker.started)
	}
}

func TestProgressCommitsBehindTheSlowest(t *testing.T) {
	t.Parallel()
	var p progress
	a, b, c := p.take(10), p.take(12), p.take(13)
	p.done(c)
	p.done(b)
	if next, ok := p.advanced(); ok {
		t.Errorf("advanced to %d over the open 10", next)
	}
	p.done(a)
	if next, ok := p.advanced(); !ok || next != 14 || len(p.open) > 0 {
		t.Errorf("next is %d, want 14", next)
	}
	p.committed(14)
	if _, ok := p.advanced(); ok {
		t.Error("it commits twice")
	}
	d := p.take(20)
	p.done(d)
	if next, _ := p.advanced(); next != 21 {
		t.Errorf("next is %d, want 21", next)
	}
}
