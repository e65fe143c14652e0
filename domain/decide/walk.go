package decide

import (
	"cmp"
	"math"
	"time"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// bucket bounds how many deliveries go out. Each partition has its share of the rate for itself, so where users
// are spread unevenly the whole is slower than asked for, never faster (but for what a restart lets out again).
type bucket struct {
	rate   float64 // a second; 0: no bound
	tokens float64
	filled time.Time
}

// fill makes good for the time that passed; a tenth of a second's worth is kept at most, for a walk that came late to its
// turn. More would be a burst after each wait.
func (b *bucket) fill(now time.Time) {
	if b.rate <= 0 {
		return
	}
	if !b.filled.IsZero() {
		b.tokens += b.rate * now.Sub(b.filled).Seconds()
	}
	b.tokens = min(b.tokens, max(b.rate/10, 1))
	b.filled = now
}

// room is how many may go out now.
func (b *bucket) room() int {
	if b.rate <= 0 {
		return math.MaxInt
	}
	return int(b.tokens)
}

func (b *bucket) spend(n int) {
	if b.rate > 0 {
		b.tokens -= float64(n)
	}
}

// reserve takes a place among those that go out, and says when its time is.
func (b *bucket) reserve(now time.Time) time.Time {
	b.fill(now)
	b.tokens--
	if b.tokens >= 0 {
		return now
	}
	return now.Add(time.Duration(-b.tokens / b.rate * float64(time.Second)))
}

// next is when one more may go out; a few are gathered where the rate allows it.
func (b *bucket) next(now time.Time) time.Time {
	if b.rate <= 0 || b.tokens >= 1 {
		return now
	}
	wait := time.Duration((1 - b.tokens) / b.rate * float64(time.Second))
	return now.Add(max(wait, walkPause))
}

// walkPause is how long a walk that must wait does, at least: long enough to be worth a slice.
const walkPause = 20 * time.Millisecond

// sleeps: it has nothing but its beginning before it, and nothing of it is held or is to be told.
func (w *walk) sleeps() bool {
	return w.stage() == walkScheduled && len(w.away)+len(w.scheduled)+len(w.replay)+len(w.slices)+w.open == 0 && !w.advance
}

func (w *walk) dueAt() time.Time    { return w.due }
func (w *walk) setDue(at time.Time) { w.due = at }
func (w *walk) scheduleSlot() *slot { return &w.slot }

// compare orders a lane's broadcasts as they came; lanes by their rank.
func (w *walk) compare(o *walk) int {
	return cmp.Or(cmp.Compare(w.source.Lane, o.source.Lane), cmp.Compare(w.source.Offset, o.source.Offset), w.id.Compare(o.id))
}

// nextTurn is when the walk has something to do; ok is false where only something that happens can tell.
func (w *walk) nextTurn() (at time.Time, ok bool) {
	if w.ending {
		return time.Time{}, len(w.toEnd) > 0 || !w.done
	}
	at = w.expires()
	if w.paused {
		if w.catchesUp() {
			at = earliest(at, w.waits)
		}
		return at, true
	}
	if len(w.toWake) > 0 {
		return time.Time{}, true
	}
	for ms := range w.times {
		at = earliest(at, latest(time.UnixMilli(ms), w.waits))
	}
	if !w.done && w.flying < maxFlying && len(w.slices) < maxSlices {
		at = earliest(at, latest(w.starts(), w.waits))
	}
	return at, true
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

func earliest(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// WalkDue is when a broadcast of the lane has something to do; ok is false when none has before something
// happens.
//
// After a restart nothing is walked before [State.ReplayDone]: what was in flight for single users comes first, or
// nobody could tell which of two requests with one id was the first.
func (s *State) WalkDue(lane domain.Lane) (at time.Time, ok bool) {
	if s.replay != nil {
		return time.Time{}, false
	}
	return s.broadcasts.due(lane)
}

// walkOn does one slice of the lane's broadcast whose turn it is.
func (s *State) walkOn(lane domain.Lane) {
	if w := s.broadcasts.next(lane, s.now); w != nil {
		s.cause, s.busy = w.acc.GetRequest(), busy{walk: w}
		s.step(w)
	}
}

// begin fixes who can be meant: the users that there are now; and who of them comes first.
func (s *State) beginWalk(w *walk) {
	s.users.Sort()
	w.setFirst(s.findFirst(w))
	w.begun, w.audience, w.changesAt = s.now, s.audienceNow(w), s.changesAt
	w.findReplayTo()
	s.parkFirst(w)
	s.parkWalk(w)
	s.progress(w)
}

// walkSlice looks at the next users.
func (s *State) walkSlice(w *walk) {
	if !w.ending && !s.textsReady(w) {
		w.waits = s.now.Add(templateWait)
		return
	}
	w.bucket.fill(s.now)
	if !w.ending && w.bucket.room() < 1 {
		w.waits = w.bucket.next(s.now)
		return
	}
	if w.begun.IsZero() {
		s.beginWalk(w)
	}
	sl := s.openSlice(w)
	over := s.walkUsers(w, sl)
	s.busy = busy{walk: w}
	if over {
		s.countForgotten(w)
		w.finish(s.now)
	} else if len(w.replay) > 0 && w.passed(w.replayTo) {
		s.countForgotten(w)
		w.replay, w.replayTo = nil, ""
	}
	s.sendGroups(w)
	sl.at, sl.rest, sl.done, sl.counts = w.at, w.rest, w.done, w.counts
	if w.bucket.room() < 1 {
		w.waits = w.bucket.next(s.now)
	}
}

// finish: everyone was looked at.
func (w *walk) finish(now time.Time) {
	w.done, w.walkedAt, w.replay, w.first = true, now, nil, nil
}

func (s *State) openSlice(w *walk) *slice {
	w.serial++
	sl := &slice{number: w.serial}
	w.slices = append(w.slices, sl)
	s.put(SliceTaken{Broadcast: w.id, Slice: sl.number, Replays: s.replay != nil || len(w.replay) > 0})
	return sl
}

// leaveSlice: nothing in memory only is left of the delivery.
func (d *delivery) leaveSlice() {
	if d.slice != nil {
		d.slice.open--
		d.walk.flying--
		d.slice = nil
	}
}

// endWalk stops a walk: what is in flight goes on to its own end, what waits is ended slice by slice, and who was
// not looked at is a number. After a restart nobody knows exactly how far the process before was, and gateways may
// still tell of what it sent: then the rest is walked after all, and each gets the fact of their end.
func (s *State) endWalk(w *walk, why whisperv1.BroadcastState) {
	if w.reacts(cancelAsked) != ends {
		return
	}
	s.broadcasts.wake(w)
	w.ending, w.advance, w.toWake, w.paused = true, true, nil, false
	if why == whisperv1.BroadcastState_BROADCAST_STATE_CANCELLED || !w.done {
		w.ended = why
	}
	w.toEnd = w.waiters()
	if w.done {
		return
	}
	if w.begun.IsZero() {
		s.users.Sort()
		w.audience, w.changesAt = s.audienceNow(w), s.changesAt
	}
	if w.restored && !w.begun.IsZero() || w.again {
		return
	}
	sl := s.openSlice(w)
	w.done, w.replay, w.first = true, nil, nil
	w.unwalked = max(w.audience-w.counts.walked, 0)
	sl.at, sl.rest, sl.done, sl.counts = w.at, w.rest, true, w.counts
}

// endSome ends a slice of those who wait.
func (s *State) endSome(w *walk) {
	n := min(WalkSlice, len(w.toEnd))
	for _, user := range w.toEnd[:n] {
		if !w.waitsFor(user) {
			continue // told of by a fact meanwhile
		}
		id := w.idOf(user)
		w.forget(user)
		w.skip(user, id.Hash())
		s.emitFor(w, user, id, w.endFact(domain.ReasonTTL))
		s.put(Unpark{ID: id})
	}
	if w.toEnd = w.toEnd[n:]; len(w.toEnd) == 0 {
		w.toEnd = nil
	}
}

// endFact is how the walk's deliveries end that were not sent.
func (w *walk) endFact(reason string) *whisperv1.Event {
	if w.ended == whisperv1.BroadcastState_BROADCAST_STATE_CANCELLED {
		return &whisperv1.Event{Kind: &whisperv1.Event_DeliveryCancelled{DeliveryCancelled: &whisperv1.DeliveryCancelled{}}}
	}
	return &whisperv1.Event{Kind: &whisperv1.Event_DeliveryExpired{DeliveryExpired: &whisperv1.DeliveryExpired{Reason: reason}}}
}
