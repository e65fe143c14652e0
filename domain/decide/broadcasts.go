package decide

import (
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
//   - It is also in awake, in the same order, or in asleep. Asleep is only what has nothing but its beginning before it, which is in the
//     future ([walk.sleeps]): thousands may be planned for tomorrow, and cost a decision, or a round of the loop, nothing. What happens to
//     one that is asleep wakes it first; a decision ends with putting to sleep whoever may.
//   - Each broadcast of a lane that has something to do gets its slice before another gets a second one: turn is whose it
//     is, a place in awake, which may be past its end.
//   - restoring has records only until the first decision after a restart: broadcasts are made of all of them at once, since
//     they come in any order.
type broadcasts struct {
	byNotification map[string]*walk
	order          []*walk
	awake          []*walk
	asleep         [len(domain.Lanes)]schedule[*walk]
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
	at, _ := slices.BinarySearchFunc(b.order, w, (*walk).compare)
	b.order = slices.Insert(b.order, at, w)
	b.enter(w)
}

// enter puts w among those that are awake.
func (b *broadcasts) enter(w *walk) {
	at, _ := slices.BinarySearchFunc(b.awake, w, (*walk).compare)
	if b.awake = slices.Insert(b.awake, at, w); at < b.turn {
		b.turn++
	}
}

func (b *broadcasts) leave(w *walk) {
	at, awake := slices.BinarySearchFunc(b.awake, w, (*walk).compare)
	if !awake {
		return
	}
	if b.awake = slices.Delete(b.awake, at, at+1); at < b.turn {
		b.turn--
	}
}

// wake: something happens to w.
func (b *broadcasts) wake(w *walk) {
	if w.slot > 0 {
		b.asleep[w.lane()].remove(w)
		b.enter(w)
	}
}

// sleep puts w to sleep if it may.
func (b *broadcasts) sleep(w *walk, now time.Time) (asleep bool) {
	at, ok := w.nextTurn()
	if !ok || !at.After(now) || !w.sleeps() {
		return false
	}
	b.leave(w)
	b.asleep[w.lane()].set(w, at)
	return true
}

func (b *broadcasts) remove(w *walk) {
	b.wake(w)
	b.leave(w)
	delete(b.byNotification, w.note())
	if i, found := slices.BinarySearchFunc(b.order, w, (*walk).compare); found {
		b.order = slices.Delete(b.order, i, i+1)
	}
}

// due is when one of the lane has something to do; ok is false when none has before something happens.
func (b *broadcasts) due(lane domain.Lane) (at time.Time, ok bool) {
	if w, any := b.asleep[lane].first(); any {
		at, ok = w.due, true
	}
	for _, w := range b.awake {
		if w.lane() != lane {
			continue
		}
		if due, has := w.nextTurn(); has && (!ok || due.Before(at)) {
			at, ok = due, true
		}
	}
	return at, ok
}

// next is the lane's broadcast whose turn it is, of those that have something to do now, or nil. The one behind it comes
// next.
func (b *broadcasts) next(lane domain.Lane, now time.Time) *walk {
	for w, due := b.asleep[lane].passed(now); due; w, due = b.asleep[lane].passed(now) {
		b.wake(w)
	}
	n := len(b.awake)
	for i := range n {
		w := b.awake[(b.turn+i)%n]
		if w.lane() != lane {
			continue
		}
		if due, has := w.nextTurn(); has && !due.After(now) {
			b.turn = (b.turn + i + 1) % n
			return w
		}
	}
	return nil
}

// waiting is how many recipients wait to connect, or for their local time.
func (b *broadcasts) waiting() (n int) {
	for _, w := range b.awake {
		n += len(w.away) + len(w.scheduled)
	}
	return n
}
