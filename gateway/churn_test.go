package gateway

import (
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// leave is one way in which a client ends.
func (c *rawConn) leave(how int) {
	switch how {
	case 0: // as it should
		c.send(closeBytes(1000, ""))
		_ = c.CloseWrite()
		_, _ = c.r.WriteTo(discard{})
	case 1: // its half, and it reads on
		_ = c.CloseWrite()
		_, _ = c.r.WriteTo(discard{})
	case 2: // a breach
		c.send([]byte{0xff, 0xff, 0, 0, 0, 0})
		_, _ = c.r.WriteTo(discard{})
	case 3: // a reset
		if tcp, ok := c.halfConn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
	case 4: // in the middle of a frame
		c.send(frame(fin|opText, textOf("t", 300))[:100])
	}
	_ = c.Close()
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }

// Clients come, get much, read it or not, and end in every way at once, while deliveries come for all of
// them: afterwards nothing is left of them, and each delivery has one outcome.
func TestChurn(t *testing.T) { eachLink(t, testChurn) }

func testChurn(t *testing.T, link change) {
	const users, lives, deliveries = 12, 12, 3000
	n := setup(t, link, func(c *Config, _ *fakeBroker) {
		c.SendBuffer, c.WriteTimeout, c.PingInterval, c.ReceiptHold = 64<<10, time.Second, 200*time.Millisecond, time.Millisecond
		c.AdmitRate = 1_000_000
	})
	var clients, feeding sync.WaitGroup
	var stop atomic.Bool
	var fed [len(domain.Lanes)]int
	feeding.Go(func() {
		for i := 0; i < deliveries || !stop.Load(); i++ {
			lane := domain.Lanes[i%len(domain.Lanes)]
			id := fmt.Sprintf("%s-%d", lane, fed[lane])
			fed[lane]++
			var rec *kgo.Record
			if i%5 == 0 {
				rec = shared(n, id, []string{"user-0", "user-1", "user-2", "user-3"})
			} else {
				rec = route(n, fmt.Sprint("user-", i%users), id, func(r *whisperv1.Route) { r.Frame = make([]byte, 1+rand.IntN(8000)) })
			}
			n.broker.put(lane, rec)
			if i%50 == 0 {
				runtime.Gosched()
			}
			if i >= 10*deliveries {
				return
			}
		}
	})
	for u := range users {
		clients.Go(func() {
			for life := range lives {
				c := n.raw(t, fmt.Sprint("user-", u))
				buf := make([]byte, 1024)
				for range rand.IntN(20) { // some read more, some hardly
					_ = c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
					if _, err := c.r.Read(buf); err != nil {
						break
					}
					c.send(frame(fin|opText, fmt.Sprintf(`{"type":"ack","ids":["high-%d","nobody"]}`, rand.IntN(deliveries))))
				}
				_ = c.SetDeadline(time.Now().Add(5 * time.Second))
				c.leave((u + life) % 5)
			}
		})
	}
	clients.Wait()
	stop.Store(true)
	feeding.Wait()
	eventually(t, "all to be freed", func() bool { return n.connections.Load() == 0 && n.handshakes.open.Load() == 0 })
	eventually(t, "an outcome of each", func() bool {
		n.lanes.mu.Lock()
		defer n.lanes.mu.Unlock()
		for _, waiting := range n.lanes.waiting {
			if len(waiting) > 0 {
				return false
			}
		}
		return n.lanes.unsettled() == 0
	})
	if blocked := n.blocked.Load(); blocked != 0 {
		t.Errorf("%d sessions count as blocked", blocked)
	}
	for lane, next := range fed {
		n.wantCommitted(domain.Lane(lane), int64(next))
	}
	n.timekeeper.each(func(s *session) { t.Errorf("session %s is still waited for", s.id) })
	for _, p := range n.pollers {
		p.mu.Lock()
		if len(p.free) != len(p.slots) {
			t.Errorf("%d of %d places are free", len(p.free), len(p.slots))
		}
		p.mu.Unlock()
	}
	n.wantOneOutcomeEach()
}

// wantOneOutcomeEach: of a delivery, either it was sent or delivered, or it failed, and each once.
func (n *node) wantOneOutcomeEach() {
	n.t.Helper()
	type story struct{ sent, delivered, failed int }
	stories := map[domain.DeliveryHash]*story{}
	for _, ev := range n.broker.allFacts() {
		hash := domain.DeliveryID(ev.GetDeliveryId()).Hash()
		s := stories[hash]
		if s == nil {
			s = &story{}
			stories[hash] = s
		}
		switch {
		case ev.GetDeliverySent() != nil:
			s.sent++
		case ev.GetDeliveryDelivered() != nil:
			s.delivered++
		case ev.GetAttemptFailed() != nil:
			s.failed++
		}
	}
	for hash, s := range stories {
		if s.sent > 1 || s.delivered > 1 || s.failed > 1 || s.sent+s.delivered+s.failed == 0 || s.failed == 1 && s.sent == 1 {
			n.t.Errorf("%x: %+v", hash, *s)
		}
	}
}
