package decide

import (
	"cmp"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/users"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// broadcasts are the partition's shares of those that have not come to their end. Its invariants:
//
//   - A broadcast is under its notification's id, and in order, once: by lane, then as they came.
//   - Each broadcast of a lane that has something to do gets its slice before another gets a second one: turn is whose it
//     is, a place in order, which may be past its end.
//   - restoring has records only until the first decision after a restart: broadcasts are made of all of them at once, since
//     they come in any order.
type broadcasts struct {
	byNotification map[string]*walk
	order          []*walk
	turn           int
	restoring      []*whisperv1.Parked
	// Of the records to be restored, those that say of a user only that they are away, by the broadcast: 4 bytes each.
	restoringAway map[domain.DeliveryID][]users.IDRef
}

func newBroadcasts() broadcasts { return broadcasts{byNotification: map[string]*walk{}} }

// keepAway keeps a record that is to be restored in a few bytes, if it says only who is away.
func (b *broadcasts) keepAway(table *users.Table, p *whisperv1.Parked) bool {
	id, err := domain.DeliveryIDFromBytes(p.GetBroadcast())
	if err != nil || proto.Size(p) != proto.Size(awayRecord(id, p.GetUserId())) || p.GetPhase() != whisperv1.Phase_PHASE_AWAY {
		return false
	}
	if b.restoringAway == nil {
		b.restoringAway = map[domain.DeliveryID][]users.IDRef{}
	}
	b.restoringAway[id] = append(b.restoringAway[id], table.Intern(p.GetUserId()))
	return true
}

// awayRecord is what whisper.timers has of a user who is away.
func awayRecord(broadcast domain.DeliveryID, user string) *whisperv1.Parked {
	return &whisperv1.Parked{Broadcast: broadcast[:], UserId: user, Phase: whisperv1.Phase_PHASE_AWAY}
}

// get is the one with a notification id, or nil.
func (b *broadcasts) get(note string) *walk { return b.byNotification[note] }

// byID is the one with an id, or nil.
func (b *broadcasts) byID(id domain.DeliveryID) *walk {
	i := slices.IndexFunc(b.order, func(w *walk) bool { return w.id == id })
	if i < 0 {
		return nil
	}
	return b.order[i]
}

// has says whether one has the hash.
func (b *broadcasts) has(hash domain.DeliveryHash) bool {
	return slices.ContainsFunc(b.order, func(w *walk) bool { return w.id.Hash() == hash })
}

func (b *broadcasts) add(w *walk) {
	b.byNotification[w.note()] = w
	b.order = append(b.order, w)
	slices.SortFunc(b.order, func(a, b *walk) int {
		return cmp.Or(cmp.Compare(a.source.Lane, b.source.Lane), cmp.Compare(a.source.Offset, b.source.Offset), a.id.Compare(b.id))
	})
}

func (b *broadcasts) remove(w *walk) {
	delete(b.byNotification, w.note())
	if i := slices.Index(b.order, w); i >= 0 {
		b.order = slices.Delete(b.order, i, i+1)
	}
}

// due is when one of the lane has something to do; ok is false when none has before something happens.
func (b *broadcasts) due(lane domain.Lane) (at time.Time, ok bool) {
	for _, w := range b.order {
		if w.lane() != lane {
			continue
		}
		if due, has := w.dueAt(); has && (!ok || due.Before(at)) {
			at, ok = due, true
		}
	}
	return at, ok
}

// next is the lane's broadcast whose turn it is, of those that have something to do now, or nil. The one behind it comes
// next.
func (b *broadcasts) next(lane domain.Lane, now time.Time) *walk {
	n := len(b.order)
	for i := range n {
		w := b.order[(b.turn+i)%n]
		if w.lane() != lane {
			continue
		}
		if due, has := w.dueAt(); has && !due.After(now) {
			b.turn = (b.turn + i + 1) % n
			return w
		}
	}
	return nil
}

// waiting is how many recipients wait to connect, or for their local time.
func (b *broadcasts) waiting() (n int) {
	for _, w := range b.order {
		n += len(w.away) + len(w.scheduled)
	}
	return n
}
