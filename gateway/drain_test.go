package gateway

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// A drain under load: everybody is asked to leave, one after the other and each at a time of its own; nobody
// is let in; what is not acknowledged goes back; every record has an outcome; it ends in time and without an error.
func TestADrainUnderLoad(t *testing.T) { eachLink(t, testADrainUnderLoad) }

func testADrainUnderLoad(t *testing.T, link change) {
	const clients, each = 60, 5
	n := setup(t, link, func(c *Config, _ *fakeBroker) {
		c.DrainTimeout, c.ReceiptHold, c.PingInterval = 2*time.Second, 10*time.Millisecond, time.Hour
	})
	type seen struct {
		asked time.Time
		after float64
		code  int
	}
	var got [clients]seen
	var reading sync.WaitGroup
	for i := range clients {
		user := fmt.Sprint("user-", i)
		c := n.connect(user)
		for k := range each {
			n.broker.put(domain.Low, route(n, user, fmt.Sprintf("%d-%d", i, k)))
		}
		reading.Go(func() {
			for acked := false; ; {
				f, err := c.tryFrame()
				switch {
				case err != nil:
					got[i].code = closeCode(err)
					return
				case f["type"] == "reconnect":
					got[i].asked, got[i].after = time.Now(), f["after_ms"].(float64)
					if i%2 == 0 { // the others stay to the end
						_ = c.Close()
						return
					}
				case f["type"] == "notification" && !acked:
					acked = true
					c.ack(f["id"].(string))
				}
			}
		})
	}
	eventually(t, "all to be written", func() bool { return n.metrics.sent.Get() == clients*each })
	began := time.Now()
	n.stop()
	eventually(t, "the drain", func() bool { return n.Ready() != nil })
	if conn, _, err := trusting.Dial(n.url, bearer(n.token("new", time.Hour))); err == nil {
		conn.Close()
		t.Error("a new one was let in")
	}
	reading.Wait()
	<-n.ended
	if took := time.Since(began); n.err != nil || took > n.cfg.DrainTimeout+2*closeLinger {
		t.Errorf("Run: %v after %s", n.err, took)
	}
	var asked []time.Time
	afters := map[float64]bool{}
	for i, s := range got {
		if s.asked.IsZero() || s.after < 0 || s.after > float64(n.leaveJitter().Milliseconds()) || i%2 == 1 && s.code != closeRestarting {
			t.Errorf("client %d: %+v", i, s)
		}
		asked, afters[s.after] = append(asked, s.asked), true
	}
	slices.SortFunc(asked, time.Time.Compare)
	if spread := asked[clients-1].Sub(asked[0]); spread < (clients-1)*leavingPace*3/4 || len(afters) < clients/4 {
		t.Errorf("asked within %s, with %d different times to wait", spread, len(afters))
	}
	n.wantNothingOpen()
	n.wantHandedBack(clients, each)
	if n.connections.Load() != 0 || n.handshakes.open.Load() != 0 {
		t.Errorf("%d connections, %d handshakes are left", n.connections.Load(), n.handshakes.open.Load())
	}
}

// wantHandedBack: of each client's, one was acknowledged and the others are unreachable, so that dispatch sends
// them again where the user is next.
func (n *node) wantHandedBack(clients, each int) {
	n.t.Helper()
	delivered, back := map[string]int{}, map[string]int{}
	for _, ev := range n.broker.allFacts() {
		switch {
		case ev.GetDeliveryDelivered() != nil:
			delivered[ev.GetNotificationId()]++
		case ev.GetAttemptFailed().GetClass() == whisperv1.FailureClass_FAILURE_CLASS_UNREACHABLE:
			back[ev.GetNotificationId()]++
		}
	}
	for i := range clients {
		acked := 0
		for k := range each {
			id := fmt.Sprintf("%d-%d", i, k)
			if acked += delivered[id]; delivered[id]+back[id] != 1 {
				n.t.Errorf("%s: delivered %d times, handed back %d times", id, delivered[id], back[id])
			}
		}
		if acked != 1 {
			n.t.Errorf("client %d acknowledged %d", i, acked)
		}
	}
}

func TestADrainIsPacedByTheTimeThatItHas(t *testing.T) {
	t.Parallel()
	n := prepare(t, func(c *Config, _ *fakeBroker) { c.DrainTimeout = 400 * time.Millisecond })
	var links []*fakeLink
	for i := range 300 {
		_, l := n.opened(fmt.Sprint("user-", i), false)
		links = append(links, l)
	}
	began := time.Now()
	n.askToLeave(t.Context())
	if took := time.Since(began); took < n.leaveWindow()*3/4 || took > 10*time.Second {
		t.Errorf("300 were asked within %s, the window is %s", took, n.leaveWindow())
	}
	n.pumpAll()
	for i, l := range links {
		if !slices.Contains(framesOf(l.wrote), "reconnect") {
			t.Fatalf("client %d was not asked", i)
		}
	}
}
