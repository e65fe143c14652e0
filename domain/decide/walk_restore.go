package decide

import (
	"maps"
	"slices"
	"time"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/request"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// restoreWalks puts broadcasts back, once all of whisper.timers is read: its records come in any order.
func (s *State) restoreWalks() {
	cursors := map[domain.DeliveryID]*whisperv1.Cursor{}
	first := map[domain.DeliveryID][]*whisperv1.WalkFirst{}
	walks := map[domain.DeliveryID]*walk{}
	for _, p := range s.broadcasts.restoring {
		switch {
		case p.GetWalk() != nil:
			w := s.restoreWalk(p)
			if w == nil {
				continue
			}
			s.dedupe.add(s.rememberedWalk(w))
			walks[w.id] = w
			s.broadcasts.add(w)
		case p.GetCursor() != nil:
			if id, err := domain.DeliveryIDFromBytes(p.GetCursor().GetBroadcast()); err == nil {
				cursors[id] = p.GetCursor()
			}
		case p.GetWalkFirst() != nil:
			if id, err := ofBroadcast(p.GetWalkFirst()); err == nil {
				first[id] = append(first[id], p.GetWalkFirst())
			}
		}
	}
	for id, c := range cursors {
		if w := walks[id]; w != nil {
			s.busy = busy{walk: w}
			w.restoreCursor(c)
		}
	}
	for id, w := range walks {
		w.restoreFirst(first[id])
		delete(first, id)
	}
	for _, id := range slices.SortedFunc(maps.Keys(first), domain.DeliveryID.Compare) {
		if !s.aside.leavesOut(id) {
			s.dropFirst(id, first[id])
		}
	}
	for _, p := range s.broadcasts.restoring {
		id, err := domain.DeliveryIDFromBytes(p.GetBroadcast())
		if w := walks[id]; err == nil && w != nil {
			s.restoreWaiting(w, p)
		}
	}
	for _, w := range s.broadcasts.order {
		for _, ref := range s.broadcasts.restoringAway[w.id] {
			s.restoreWaiting(w, awayRecord(w.id, s.users.Own(ref)))
		}
		delete(s.broadcasts.restoringAway, w.id)
	}
	for _, w := range s.broadcasts.order {
		if w.ended != whisperv1.BroadcastState_BROADCAST_STATE_UNSPECIFIED {
			w.ending, w.toEnd = true, w.waiters()
		}
	}
	s.broadcasts.restoring, s.broadcasts.restoringAway = nil, nil
}

func (s *State) restoreWalk(p *whisperv1.Parked) *walk {
	m := p.GetWalk()
	id, err := domain.DeliveryIDFromBytes(m.GetAccepted().GetDeliveryId())
	if err != nil || s.aside.leavesOut(id) {
		return nil
	}
	s.busy = busy{id: id, note: m.GetAccepted().GetNotificationId()}
	if request.CheckBroadcast(m.GetAccepted()) != nil {
		return nil // we never write such a record
	}
	lane := domain.LaneOf(m.GetAccepted().GetLane())
	w := newWalk(s.users, m.GetAccepted(), Trace{Parent: p.GetTraceparent(), State: p.GetTracestate()},
		LaneOffset{Lane: lane, Offset: p.GetOffset()})
	w.restored = true
	w.paused = m.GetPaused() || s.aside.has(w.id, w.note())
	w.audience, w.changesAt = m.GetAudience(), m.GetChangesOffset()
	w.firstRecords, w.steered = int(m.GetFirstRecords()), m.GetSteered()
	if ms := m.GetStartedMs(); ms > 0 {
		w.begun = time.UnixMilli(ms)
	}
	return w
}

func (w *walk) restoreCursor(c *whisperv1.Cursor) {
	w.at, w.rest, w.done, w.ended, w.unwalked = c.GetUser(), c.GetRest(), c.GetDone(), c.GetEnded(), c.GetUnwalked()
	w.counts = walkCounts{walked: c.GetWalked(), matched: c.GetMatched(), errors: c.GetSegmentErrors()}
	if ms := c.GetWalkedMs(); ms > 0 {
		w.walkedAt = time.UnixMilli(ms)
	}
	w.cursor = slice{at: w.at, rest: w.rest, done: w.done, counts: w.counts}
}

// restoreWaiting puts a parked delivery of a broadcast back: compactly, where nothing was tried yet and nothing else
// would be forgotten of it.
func (s *State) restoreWaiting(w *walk, p *whisperv1.Parked) {
	user := p.GetUserId()
	s.busy = busy{walk: w, user: user}
	if s.aside.hasUser(w, user) {
		s.endAside = append(s.endAside, asideParked{walk: w, user: user})
		return
	}
	untried := p.GetAttempt() == 0 && !p.GetSent() && !p.GetSocketTook() && p.GetTries() == 0
	plain := w.acc.GetCollapseKey() == "" && !p.GetTimed() && !p.GetGathered() && len(p.GetChannels()) == 0 && len(p.GetLegs()) == 0
	switch compact := untried && plain; {
	case compact && p.GetPhase() == whisperv1.Phase_PHASE_AWAY:
		w.setAway(user)
		return
	case compact && p.GetPhase() == whisperv1.Phase_PHASE_SCHEDULED:
		w.setScheduled(user, p.GetDueMs())
		return
	}
	d := s.openDelivery(w, nil, user, w.idOf(user))
	s.restoreDelivery(d, p)
}

// keepForWalks hands what facts told during the replay to the walks that will come to it.
func (s *State) keepForWalks() {
	for hash, r := range s.replay {
		w := s.broadcasts.get(r.note)
		if w == nil || r.user == "" || !r.at.Equal(w.id.Time()) || w.passed(r.user) {
			continue
		}
		s.broadcasts.wake(w)
		if w.replay == nil {
			w.replay = replay{}
		}
		w.replay[hash] = r
		w.extendReplay(r.user)
	}
}

// countForgotten counts those whom the walk did not come to again though facts tell of them: an earlier process had dealt
// with them, and they were forgotten since. Of whom nothing says the end, this is it.
func (s *State) countForgotten(w *walk) {
	var open []string
	for hash, r := range w.replay {
		w.counts.matched++
		if !r.settled && !w.waitsFor(r.user) && !s.deliveries.has(hash) {
			open = append(open, r.user)
		}
	}
	slices.Sort(open)
	for _, user := range open {
		why := &whisperv1.DeliverySuppressed{Reason: domain.ReasonErased}
		s.emitFor(w, user, w.idOf(user), &whisperv1.Event{Kind: &whisperv1.Event_DeliverySuppressed{DeliverySuppressed: why}})
	}
}
