package decide

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/users"
	"github.com/klivvr/whisper/domain/whisperv1"
)

var noon = time.UnixMilli(1_700_000_000_000)

// broadcastOf is one that may begin at noon.
func broadcastOf(note string, source LaneOffset) *walk {
	id := domain.NewDeliveryID(noon, domain.HashDelivery(note, ""))
	return newWalk(users.NewTable(), &whisperv1.Event{
		DeliveryId: id[:], NotificationId: note, Lane: source.Lane.Proto(),
		Kind: &whisperv1.Event_BroadcastAccepted{BroadcastAccepted: &whisperv1.BroadcastAccepted{
			Accepted: &whisperv1.DeliveryAccepted{AcceptedAtMs: noon.UnixMilli(), ExpiresAtMs: noon.Add(time.Hour).UnixMilli()},
		}},
	}, Trace{}, source)
}

// TestBroadcastsTakeTurns: of those that have something to do, none gets two slices while another of its lane gets none.
func TestBroadcastsTakeTurns(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		b := newBroadcasts()
		lanes := []domain.Lane{domain.High, domain.Normal}
		waited := map[*walk]int{}
		for offset := range int64(rapid.IntRange(1, 40).Draw(t, "steps")) {
			lane := rapid.SampledFrom(lanes).Draw(t, "lane")
			switch step := rapid.IntRange(0, 5).Draw(t, "step"); {
			case step == 0 || len(b.order) == 0:
				w := broadcastOf(fmt.Sprint(offset), LaneOffset{lane, offset})
				b.add(w)
				if b.get(w.note()) != w || b.byID(w.id) != w || !b.has(w.id.Hash()) {
					t.Fatal("it is not there")
				}
			case step == 1:
				w := b.order[rapid.IntRange(0, len(b.order)-1).Draw(t, "which")]
				if b.remove(w); b.get(w.note()) != nil || b.byID(w.id) != nil || b.has(w.id.Hash()) {
					t.Fatal("it is still there")
				}
				delete(waited, w)
				clear(waited) // whose turn it is moved
			case step == 2:
				w := b.order[rapid.IntRange(0, len(b.order)-1).Draw(t, "which")]
				w.done = !w.done // nothing to do before it expires
			default:
				w := b.next(lane, noon)
				at, due := b.due(lane)
				if due = due && !at.After(noon); due != (w != nil) {
					t.Fatalf("next is %v, due %v", w, due)
				}
				if w == nil {
					continue
				}
				if w.lane() != lane || w.done {
					t.Fatalf("%s of lane %v, done %v", w.note(), w.lane(), w.done)
				}
				waited[w] = 0
				for _, other := range b.order {
					if other != w && other.lane() == lane && !other.done {
						if waited[other]++; waited[other] > 2*len(b.order) {
							t.Fatalf("%s waits for %d turns", other.note(), waited[other])
						}
					}
				}
			}
			if len(b.byNotification) != len(b.order) || !slices.IsSortedFunc(b.order, func(a, b *walk) int { return int(a.source.Lane) - int(b.source.Lane) }) {
				t.Fatalf("%d and %d", len(b.byNotification), len(b.order))
			}
		}
	})
}
