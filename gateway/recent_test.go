package gateway

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// However much a session acknowledges between two pings, few deliveries are kept whole for it: the last. Of the others
// a read and a repeated acknowledgement mean what they meant.
func TestOnlyTheLastDeliveriesStayWhole(t *testing.T) {
	t.Parallel()
	n, s, _ := onFakeLink(t)
	for i := range 3 * recentEntries / 2 {
		n.take(domain.Normal, "mona", fmt.Sprint(i))
		n.pumpAll()
		s.received(clientFrameBytes(finBit|opText, fmt.Sprintf(`{"type":"ack","ids":["%d"]}`, i)))
		whole := 0
		for _, e := range s.recent.entries {
			if e.d != nil {
				whole++
			}
		}
		if want := min(i+1, recentWhole); whole != want {
			t.Fatalf("after %d acknowledgements %d deliveries are kept whole, not %d", i+1, whole, want)
		}
	}
	latest := 3*recentEntries/2 - 1
	for _, back := range []int{0, recentWhole - 1, recentWhole, recentEntries - 1} {
		id := fmt.Sprint(latest - back)
		for _, verb := range []string{"ack", "read", "read", "ack"} {
			s.received(clientFrameBytes(finBit|opText, fmt.Sprintf(`{"type":%q,"ids":[%q]}`, verb, id)))
		}
		if got := strings.Join(n.broker.kinds(id), " "); got != "delivery_sent delivery_delivered delivery_read" {
			t.Errorf("%d before the last: %s", back, got)
		}
	}
}

// What was taken out of the queue since it had expired is forgotten, also when much came after it.
func TestWhatExpiredBehindOthersCantBeAcknowledged(t *testing.T) {
	t.Parallel()
	n := prepare(t)
	s, _ := n.opened("mona", true)
	n.take(domain.Low, "mona", "expires", explicit, func(r *whisperv1.Route) { r.ExpiresAtMs = n.clock.now().Add(time.Second).UnixMilli() })
	for i := range 2 * recentWhole {
		n.take(domain.High, "mona", fmt.Sprint(i), explicit)
	}
	n.clock.advance(2 * time.Second)
	n.pumpAll()
	s.received(clientFrameBytes(finBit|opText, `{"type":"ack","ids":["expires"]}`))
	if got := strings.Join(n.broker.kinds("expires"), " "); got != "attempt_failed" {
		t.Errorf("facts: %s", got)
	}
}
