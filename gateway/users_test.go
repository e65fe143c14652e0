package gateway

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// shared is a route for many users, as a slice of a broadcast is: no key, and of the delivery id only the time.
func shared(n *node, notification string, users []string, change ...func(*whisperv1.Route)) *kgo.Record {
	n.t.Helper()
	rec := route(n, "nobody", notification, append(change, func(r *whisperv1.Route) { r.Users = users })...)
	rec.Key = nil
	return rec
}

// byUser are the facts about a notification, as kinds by user.
func (b *fakeBroker) byUser(notification string) map[string]string {
	kinds := map[string]string{}
	for _, ev := range b.allFacts() {
		if ev.GetNotificationId() == notification {
			kinds[ev.GetUserId()] = strings.TrimSpace(kinds[ev.GetUserId()] + " " + domain.KindOf(ev))
		}
	}
	return kinds
}

func (n *node) wantByUser(notification string, want map[string]string) {
	n.t.Helper()
	var got map[string]string
	defer func() {
		if n.t.Failed() {
			n.t.Logf("facts of %s: %v", notification, got)
		}
	}()
	eventually(n.t, fmt.Sprint(notification, " to be ", want), func() bool {
		got = n.broker.byUser(notification)
		return fmt.Sprint(got) == fmt.Sprint(want)
	})
}

func TestASharedRouteIsADeliveryOfEachUser(t *testing.T) {
	eachLink(t, testASharedRouteIsADeliveryOfEachUser)
}

func testASharedRouteIsADeliveryOfEachUser(t *testing.T, link change) {
	n := setup(t, link)
	mona, omar := n.connect("mona"), n.connect("omar")
	omars := n.connect("omar")
	auto := n.connect("lara", "?ack=auto")
	rec := shared(n, "all", []string{"mona", "omar", "away", "lara"}, func(r *whisperv1.Route) { r.Attempt = 2 })
	rec.Headers = []kgo.RecordHeader{{Key: "traceparent", Value: []byte("00-abc")}}
	offset := n.broker.put(domain.Low, rec)
	for _, c := range []*client{mona, omar, omars, auto} {
		c.wantNotification("all")
	}
	n.wantByUser("all", map[string]string{
		"mona": "delivery_sent", "omar": "delivery_sent", "away": "attempt_failed",
		"lara": "delivery_delivered",
	})
	mona.ack("all")
	omars.read("all")
	n.wantByUser("all", map[string]string{
		"mona": "delivery_sent delivery_delivered", "omar": "delivery_sent delivery_delivered delivery_read",
		"away": "attempt_failed", "lara": "delivery_delivered",
	})
	at := domain.DeliveryID(n.broker.allFacts()[0].GetDeliveryId()).Time()
	for i, ev := range n.broker.allFacts() {
		if id := domain.NewDeliveryID(at, domain.HashDelivery("all", ev.GetUserId())); string(ev.GetDeliveryId()) != string(id[:]) {
			t.Errorf("%s of %s: delivery id %x, want %x", domain.KindOf(ev), ev.GetUserId(), ev.GetDeliveryId(), id)
		}
		if ev.GetCause().GetOffset() != offset || len(n.broker.traces[i]) != 1 || ev.GetLane() != whisperv1.Lane_LANE_LOW {
			t.Errorf("%s of %s: %v", domain.KindOf(ev), ev.GetUserId(), ev)
		}
	}
	if f := n.broker.factOf("all", "away").GetAttemptFailed(); f.GetAttempt() != 2 ||
		f.GetClass() != whisperv1.FailureClass_FAILURE_CLASS_UNREACHABLE {
		t.Errorf("the absent one's is %v", f)
	}
	n.wantCommitted(domain.Low, offset+1)
}

func (b *fakeBroker) factOf(notification, user string) *whisperv1.Event {
	for _, ev := range b.allFacts() {
		if ev.GetNotificationId() == notification && ev.GetUserId() == user {
			return ev
		}
	}
	return nil
}

func (n *node) wantCommitted(lane domain.Lane, next int64) {
	n.t.Helper()
	eventually(n.t, "the commit", func() bool {
		n.broker.mu.Lock()
		defer n.broker.mu.Unlock()
		return n.broker.committed[int32(lane)] == next
	})
}

func TestASharedRouteIsSettledWithTheLastOutcome(t *testing.T) {
	t.Parallel()
	n, s, l := onFakeLink(t)
	other, _ := n.opened("omar", false)
	l.room = 0
	n.takeShared("all", []string{"mona", "omar", "away"})
	n.pumpAll()
	if got := n.broker.byUser("all"); got["omar"] != "delivery_sent" || got["away"] != "attempt_failed" || got["mona"] != "" {
		t.Fatalf("facts: %v", got)
	}
	if open := n.lanes.unsettled(); open != 1 {
		t.Fatalf("%d records are open while one of three has no outcome", open)
	}
	s.ended() // mona's socket never took it
	if got := n.broker.byUser("all"); got["mona"] != "attempt_failed" {
		t.Errorf("facts: %v", got)
	}
	n.wantNothingOpen()
	other.ended()
}

func (n *node) takeShared(notification string, users []string, change ...func(*whisperv1.Route)) {
	n.t.Helper()
	rec := shared(n, notification, users, change...)
	rec.Offset = n.broker.offsets[domain.Low]
	n.broker.offsets[domain.Low]++
	var targets []*session
	if err := n.lanes.take(domain.Low, rec, &targets); err != nil {
		n.t.Fatal(err)
	}
}

func TestASharedRouteOfAnotherTimeFailsForEach(t *testing.T) {
	t.Parallel()
	n, s, _ := onFakeLink(t)
	n.incarnation.Store(7)
	n.takeShared("earlier", []string{"mona", "away"}, func(r *whisperv1.Route) { r.Incarnation = 6 })
	n.takeShared("expired", []string{"mona", "away"}, func(r *whisperv1.Route) { r.ExpiresAtMs = 1 })
	for _, notification := range []string{"earlier", "expired"} {
		if got := n.broker.byUser(notification); len(got) != 2 || got["mona"] != "attempt_failed" || got["away"] != "attempt_failed" {
			t.Errorf("%s: %v", notification, got)
		}
	}
	n.wantNothingOpen()
	if s.unacked.len() > 0 {
		t.Error("it was sent")
	}
}

func TestASharedRouteThatCantBeUsedIsOneDeadLetter(t *testing.T) {
	t.Parallel()
	n := setup(t)
	mona := n.connect("mona")
	last := n.broker.put(domain.Low,
		shared(n, "bad", []string{"mona", ""}),
		shared(n, "bad", []string{"mona", strings.Repeat("x", 129)}),
		shared(n, "bad", []string{"mona"}, func(r *whisperv1.Route) { r.Frame = nil }),
		shared(n, "good", []string{"mona"}))
	mona.wantNotification("good")
	n.broker.mu.Lock()
	dead := strings.Join(n.broker.dead, "\n")
	n.broker.mu.Unlock()
	if strings.Count(dead, "users[1]") != 2 || strings.Count(dead, "\n") != 2 {
		t.Errorf("dead letters: %s", dead)
	}
	if got := n.broker.byUser("bad"); len(got) != 0 {
		t.Errorf("facts of a dead letter: %v", got)
	}
	n.wantCommitted(domain.Low, last+1)
}

func TestARouteOfAThousandUsers(t *testing.T) {
	t.Parallel()
	n := setup(t, func(c *Config, _ *fakeBroker) { c.ReceiptHold, c.PingInterval = time.Millisecond, time.Hour })
	const users, here = 1000, 40
	names := make([]string, users)
	clients := make([]*client, 0, here)
	for i := range names {
		names[i] = fmt.Sprint("user-", i)
		if i%(users/here) == 0 {
			clients = append(clients, n.connect(names[i]))
		}
	}
	offset := n.broker.put(domain.Low, shared(n, "all", names))
	for _, c := range clients {
		c.wantNotification("all")
		c.ack("all")
	}
	count := map[string]int{}
	eventually(t, "an outcome of each", func() bool {
		clear(count)
		for _, kinds := range n.broker.byUser("all") {
			count[strings.Fields(kinds)[0]]++
		}
		return count["attempt_failed"] == users-here && count["delivery_sent"]+count["delivery_delivered"] == here
	})
	n.wantCommitted(domain.Low, offset+1)
	if n.metrics.framesOut.Get() != 2*here {
		t.Errorf("%d frames out", n.metrics.framesOut.Get())
	}
}
