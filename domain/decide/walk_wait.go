package decide

import (
	"slices"
	"time"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// Who waits in a broadcast is known by the place of the id: of a million who are away each costs some 8 bytes, and nothing
// that the garbage collector looks at.

func (w *walk) setAway(user string) { w.away[w.users.Intern(user)] = struct{}{} }

func (w *walk) isAway(user string) bool {
	if len(w.away) == 0 {
		return false
	}
	ref, _ := w.users.Ref(user)
	_, away := w.away[ref]
	return away
}

func (w *walk) setScheduled(user string, ms int64) {
	ref := w.users.Intern(user)
	w.scheduled[ref] = ms
	w.times[ms] = append(w.times[ms], ref)
}

func (w *walk) waitsFor(user string) bool {
	ref, known := w.users.Ref(user)
	if !known {
		return false
	}
	if _, away := w.away[ref]; away {
		return true
	}
	_, later := w.scheduled[ref]
	return later
}

// forget takes a user out of those who wait. The list of a time is looked through when it comes.
func (w *walk) forget(user string) {
	if ref, known := w.users.Ref(user); known {
		delete(w.away, ref)
		delete(w.scheduled, ref)
	}
}

// waiters are the users who wait for something, sorted.
func (w *walk) waiters() []string {
	all := make([]string, 0, len(w.away)+len(w.scheduled))
	for ref := range w.away {
		all = append(all, w.users.Own(ref))
	}
	for ref := range w.scheduled {
		all = append(all, w.users.Own(ref))
	}
	slices.Sort(all)
	return all
}

// wakeWalks makes deliveries of what waits for the user in broadcasts, so that they are woken with the rest.
func (s *State) wakeWalks(user string) {
	for _, w := range s.broadcasts.awake {
		if w.isAway(user) && w.reacts(userConnects) == sends && !w.over(s.now) {
			s.materialize(w, user)
		}
	}
}

// materialize makes an ordinary delivery, parked as it was, of a user who waited.
func (s *State) materialize(w *walk, user string) *delivery {
	w.forget(user)
	d := s.openDelivery(w, nil, user, w.idOf(user))
	s.settleChannels(d)
	s.deliveries.park(d)
	d.phase, d.step = whisperv1.Phase_PHASE_AWAY, d.socketStep()
	s.deliveries.schedule(d, w.expires())
	return d
}

// wakeSome sends to users who connected, or whose endpoints came, while the broadcast was paused.
func (s *State) wakeSome(w *walk) {
	n := min(WalkSlice, len(w.toWake))
	for i, user := range w.toWake[:n] {
		if i > 0 && s.timeBox.ends(metUnits) {
			n = i
			break
		}
		s.busy = busy{walk: w, user: user}
		switch {
		case !w.isAway(user):
		case len(s.presence.live(user)) > 0:
			s.sendFromSocket(s.materialize(w, user))
		default:
			s.reconsiderAway(w, user)
		}
	}
	if w.toWake = w.toWake[n:]; len(w.toWake) == 0 {
		w.toWake = nil
	}
}

// awayOf are those of the users who wait to connect.
func (w *walk) awayOf(users []string) (away []string) {
	for _, user := range users {
		if w.isAway(user) {
			away = append(away, user)
		}
	}
	return away
}

// findAwake are the users who wait and are connected, sorted: of those who wait and those who are connected, the fewer are looked at.
func (s *State) findAwake(w *walk) []string {
	var awake []string
	if len(s.presence.users) < len(w.away) {
		for user := range s.presence.users {
			if w.isAway(user) && len(s.presence.live(user)) > 0 {
				awake = append(awake, user)
			}
		}
	} else {
		for ref := range w.away {
			if user := w.users.Own(ref); len(s.presence.live(user)) > 0 {
				awake = append(awake, user)
			}
		}
	}
	slices.Sort(awake)
	return awake
}

// startScheduled starts a slice of those whose time of day has come; false: there are none.
func (s *State) startScheduled(w *walk) bool {
	due := int64(0)
	for ms := range w.times {
		if ms <= s.now.UnixMilli() && (due == 0 || ms < due) {
			due = ms
		}
	}
	if due == 0 {
		return false
	}
	w.bucket.fill(s.now)
	users := w.times[due]
	n := 0
	for ; n < min(WalkSlice, len(users)) && w.bucket.room() > 0 && (n == 0 || !s.timeBox.ends(metUnits)); n++ {
		if ms, waits := w.scheduled[users[n]]; !waits || ms != due {
			continue
		}
		user := w.users.Own(users[n])
		s.busy = busy{walk: w, user: user}
		w.forget(user)
		d := s.openDelivery(w, nil, user, w.idOf(user))
		s.deliveries.park(d)
		d.readyMs = max(d.readyMs, due)
		w.bucket.spend(1)
		s.advance(d)
	}
	if w.bucket.room() < 1 {
		w.waits = w.bucket.next(s.now)
	}
	if n == len(users) {
		delete(w.times, due)
		return true
	}
	w.times[due] = users[n:]
	return n > 0
}

// mayBegin: nobody is begun with in a broadcast that is paused. What quiet hours, a cap or a better hour held goes out at
// the broadcast's rate.
func (s *State) mayBegin(d *delivery) bool {
	w := d.walk
	switch {
	case w == nil || d.begun():
		return true
	case w.paused:
		s.holdForPause(d)
		return false
	case w.bucket.rate <= 0 || heldReason(d.phase) == "":
		return true
	case d.rateSlot == 0:
		d.rateSlot = w.bucket.reserve(s.now).UnixMilli()
	}
	if at := time.UnixMilli(d.rateSlot); at.After(s.now) {
		s.deliveries.schedule(d, at)
		return false
	}
	return true
}

// holdForPause keeps d, parked, until its broadcast is resumed. Its record says that it is due, so that a restart finds it.
func (s *State) holdForPause(d *delivery) {
	if !d.heldByPause && (!d.parked || d.due.After(s.now)) {
		s.deliveries.schedule(d, s.now)
		s.park(d)
	}
	d.heldByPause = true
	s.deliveries.schedule(d, d.expires())
}

// endPause goes on with what a pause held, a slice each time that time passes.
func (s *State) endPause(w *walk) {
	for d := range w.held.all(noteLink) { // the heap orders them
		if d.heldByPause {
			d.heldByPause = false
			s.noteReadyNow(d)
			s.deliveries.schedule(d, s.now)
		}
	}
}

// walkFact takes a fact about a delivery of a broadcast that is not held; false: it is not one. What waits
// compactly may have been dealt with before a restart.
func (s *State) walkFact(id domain.DeliveryID, ev *whisperv1.Event) bool {
	w := s.broadcasts.get(ev.GetNotificationId())
	if w == nil || ev.GetUserId() == "" || !id.Time().Equal(w.id.Time()) {
		return false
	}
	if w.waitsFor(ev.GetUserId()) {
		unproven := ev.GetDeliveryRead() != nil && !domain.ProvenRead(ev) // nothing was tried yet: it can't have been read
		pushTook := ev.GetDeliverySent() != nil && ev.GetDeliverySent().GetChannel() != domain.ChannelSocket
		if (ev.GetDeliveryDelivered() != nil || pushTook) && s.goesToAll(w.acc) { // its other channels are still to be dealt with
			if leg := s.legOf(s.materialize(w, ev.GetUserId()), ev); leg != nil {
				s.settle(leg)
			}
			return true
		}
		if status, ok := domain.StatusOf(ev); ok && !status.Pending() && (status != domain.Sent || pushTook) && !unproven {
			w.forget(ev.GetUserId())
			w.skip(ev.GetUserId(), id.Hash())
			s.put(Unpark{ID: w.idOf(ev.GetUserId())})
		}
		return true
	}
	if !w.passed(ev.GetUserId()) {
		s.broadcasts.wake(w)
		if w.replay == nil {
			w.replay = replay{}
		}
		w.replay.keep(id.Hash(), ev)
		if _, kept := w.replay[id.Hash()]; kept {
			w.extendReplay(ev.GetUserId())
		}
		return true
	}
	return false
}

// skip: the walk will come to this user (again, after a restart) and must skip them.
func (w *walk) skip(user string, hash domain.DeliveryHash) {
	if w.passed(user) {
		return
	}
	if w.replay == nil {
		w.replay = replay{}
	}
	w.replay[hash] = replayed{settled: true, ended: true, note: w.note(), user: user, at: w.id.Time()}
	w.extendReplay(user)
}

func (s *State) replayedOf(w *walk, hash domain.DeliveryHash) (replayed, bool) {
	if r, ok := w.replay[hash]; ok {
		return r, true
	}
	r, ok := s.replay[hash]
	return r, ok && r.at.Equal(w.id.Time())
}

// walkReplayed takes up a user of whom facts told before the walk came here (again).
func (s *State) walkReplayed(w *walk, sl *slice, user string, hash domain.DeliveryHash, r replayed) {
	open := !r.settled || !r.ended && !w.ending && s.goesToAll(w.acc)
	if !open || w.waitsFor(user) || s.deliveries.has(hash) {
		return
	}
	id := domain.NewDeliveryID(w.id.Time(), hash)
	if w.ending {
		reason := domain.ReasonTTL
		if r.socketSent {
			reason = domain.ReasonUnacknowledged
		}
		s.emitFor(w, user, id, w.endFact(reason))
		return
	}
	d := s.openDelivery(w, sl, user, id)
	d.attempt, d.socketTook = r.attempt, r.socketSent
	s.settleChannels(d)
	if d.all && !r.waits() {
		s.takeUpLegs(d, r)
		return
	}
	if r.socketSent && d.usesSocket() {
		d.phase, d.step = whisperv1.Phase_PHASE_SENDING, d.socketStep()
		s.deliveries.schedule(d, time.UnixMicro(r.sentUS).Add(s.ackTimeout(d)))
		return
	}
	s.advance(d)
}

// eraseWaiting ends what a user who is forgotten waits for in broadcasts.
func (s *State) eraseWaiting(user string) {
	for _, w := range s.broadcasts.awake {
		if !w.waitsFor(user) {
			continue
		}
		id := w.idOf(user)
		w.forget(user)
		w.skip(user, id.Hash())
		why := &whisperv1.DeliverySuppressed{Reason: domain.ReasonErased}
		s.emitFor(w, user, id, &whisperv1.Event{Kind: &whisperv1.Event_DeliverySuppressed{DeliverySuppressed: why}})
		s.put(Unpark{ID: id})
	}
}
