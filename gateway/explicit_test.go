package gateway

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

func explicit(r *whisperv1.Route) { r.ExplicitAck = true }

func TestADeliveryWithExplicitAckIsNotSettledByASocket(t *testing.T) {
	eachLink(t, testWhatWantsTheClientsOwnWordIsNotSettledByASocket)
}

func testWhatWantsTheClientsOwnWordIsNotSettledByASocket(t *testing.T, link change) {
	n := setup(t, link)
	c := n.connect("mona", "?ack=auto")
	n.broker.put(domain.High, route(n, "mona", "alert", explicit), route(n, "mona", "seen", explicit), route(n, "mona", "news"))
	for _, id := range []string{"alert", "seen", "news"} {
		c.wantNotification(id)
	}
	n.wantKinds("news", "delivery_delivered") // it went out last
	n.wantKinds("alert", "delivery_sent")
	n.wantKinds("seen", "delivery_sent")

	c.ack("alert")
	n.wantKinds("alert", "delivery_sent", "delivery_delivered")
	c.read("seen")
	n.wantKinds("seen", "delivery_sent", "delivery_delivered", "delivery_read")
	c.ack("alert") // no error, and told once
	c.ack("news")
	c.wantError(codeUnknownID) // as ever: nobody waits for it
	n.wantKinds("alert", "delivery_sent", "delivery_delivered")
}

func TestASliceWithExplicitAck(t *testing.T) {
	t.Parallel()
	n := prepare(t)
	n.opened("mona", true)
	manual, _ := n.opened("omar", false)
	n.takeShared("alert", []string{"mona", "omar"}, explicit)
	n.pumpAll()
	manual.received(clientFrameBytes(finBit|opText, `{"type":"ack","ids":["alert"]}`))
	if got := strings.Join(n.broker.kinds("alert"), " "); got != "delivery_sent delivery_sent delivery_delivered" {
		t.Errorf("facts: %s", got)
	}
}

// TestASessionThatNeverAcknowledgesIsNotHeldToIt: with ack=auto it need not, so what goes unanswered neither ends the
// session nor is kept whole; and what it says late still counts.
func TestASessionThatNeverAcknowledgesIsNotHeldToIt(t *testing.T) {
	t.Parallel()
	n := prepare(t, func(c *Config, _ *fakeBroker) { c.MaxUnacked = 2 })
	s, _ := n.opened("mona", true)
	const got = 2 * recentEntries
	for i := range got {
		n.take(domain.High, "mona", fmt.Sprint(i), explicit)
		n.pumpAll()
	}
	if s.phase != open || s.unacked.len() > 0 || len(s.recent.entries) != recentEntries {
		t.Fatalf("closing %v, %d unacknowledged, %d remembered", s.phase != open, s.unacked.len(), len(s.recent.entries))
	}
	for range 8 {
		n.clock.advance(n.cfg.PingInterval / 2)
		s.heard.Store(n.now())
		n.timekeeper.tick(n.now())
	}
	for _, e := range s.recent.entries {
		if e.d != nil {
			t.Fatal("whole deliveries are kept")
		}
	}
	last := fmt.Sprint(got - 1)
	for _, verb := range []string{"ack", "ack", "read", "read"} {
		s.received(clientFrameBytes(finBit|opText, fmt.Sprintf(`{"type":%q,"ids":[%q]}`, verb, last)))
	}
	if kinds := strings.Join(n.broker.kinds(last), " "); kinds != "delivery_sent delivery_delivered delivery_read" {
		t.Errorf("facts: %s", kinds)
	}
}

// TestWhatExpiredInTheQueueCantBeAcknowledged: the session was never sent it.
func TestWhatExpiredInTheQueueCantBeAcknowledged(t *testing.T) {
	t.Parallel()
	n := prepare(t)
	s, _ := n.opened("mona", true)
	n.take(domain.High, "mona", "alert", explicit, func(r *whisperv1.Route) { r.ExpiresAtMs = n.clock.now().Add(time.Second).UnixMilli() })
	n.clock.advance(2 * time.Second)
	n.pumpAll()
	s.received(clientFrameBytes(finBit|opText, `{"type":"ack","ids":["alert"]}`))
	if got := strings.Join(n.broker.kinds("alert"), " "); got != "attempt_failed" {
		t.Errorf("facts: %s", got)
	}
}

// TestANewAttemptReplacesTheEarlierOne: what comes again is remembered once, as its last attempt.
func TestANewAttemptReplacesTheEarlierOne(t *testing.T) {
	t.Parallel()
	n := prepare(t)
	s, _ := n.opened("mona", true)
	id := domain.NewDeliveryID(n.clock.now(), domain.HashDelivery("alert", "mona"))
	for attempt := range int32(3) {
		n.take(domain.High, "mona", "alert", explicit, func(r *whisperv1.Route) { r.DeliveryId, r.Attempt = id[:], attempt+1 })
		n.pumpAll()
	}
	if len(s.recent.entries) != 1 {
		t.Errorf("%d remembered", len(s.recent.entries))
	}
	s.received(clientFrameBytes(finBit|opText, `{"type":"ack","ids":["alert"]}`))
	facts := n.broker.allFacts()
	if d := facts[len(facts)-1].GetDeliveryDelivered(); d.GetAttempt() != 3 {
		t.Errorf("the last fact is %v", facts[len(facts)-1])
	}
}
