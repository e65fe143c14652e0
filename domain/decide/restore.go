package decide

import (
	"slices"
	"time"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/profile"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// A restart restores the state in this order: [NewState], [State.SetAside], the Restore methods in any order, then
// [State.Resume]. Facts and the deliveries that were in flight come through [State.Decide] as they are read again, until
// [State.ReplayDone].

// RestoreUser puts a user back as whisper.users has it; nil forgets.
func (s *State) RestoreUser(user string, encoded []byte) {
	if encoded == nil {
		s.restoreReleases(user, nil)
		s.users.ForgetProfile(user)
		return
	}
	encoded, erased := s.restoreReleases(user, encoded)
	if erased {
		s.users.ForgetProfile(user)
		return
	}
	s.users.PutProfile(user, encoded)
	s.changesAt = max(s.changesAt, s.users.ProfileOf(user).Number(profile.FieldChanges))
}

// EncodedUser is what whisper.users is to have of a user; nil: nothing.
func (s *State) EncodedUser(user string) []byte {
	if encoded, ok := s.users.Profile(user); ok {
		return s.withReleases(user, []byte(encoded))
	}
	return s.withReleases(user, nil)
}

// RestoreChangesFrom says which offset of whisper.changes is read first: what was decided about earlier ones is
// acknowledged.
func (s *State) RestoreChangesFrom(offset int64) { s.changesFrom = offset }

// RestoreSeen puts a part of the window back.
func (s *State) RestoreSeen(seen ...SeenDelivery) {
	for _, d := range seen {
		s.dedupe.add(d)
	}
}

// RestoreParked puts a parked delivery back. It wakes with [State.Resume].
func (s *State) RestoreParked(p *whisperv1.Parked) {
	if r := p.GetRetraction(); r != nil {
		s.restoreRetraction(p)
		return
	}
	if p.GetMeant() != nil {
		s.restoreAudience(p)
		return
	}
	if p.GetRecall() != nil {
		s.restoreSilentPush(p)
		return
	}
	if p.GetWalk() != nil || p.GetCursor() != nil || p.GetWalkFirst() != nil || len(p.GetBroadcast()) > 0 {
		if !s.broadcasts.keepAway(s.users, p) {
			s.broadcasts.restoring = append(s.broadcasts.restoring, p)
		}
		return
	}
	id, err := domain.DeliveryIDFromBytes(p.GetAccepted().GetDeliveryId())
	if err != nil {
		return // we never write such a record
	}
	d := &delivery{
		id:    id,
		ev:    p.GetAccepted(),
		acc:   p.GetAccepted().GetDeliveryAccepted(),
		trace: Trace{Parent: p.GetTraceparent(), State: p.GetTracestate()},
	}
	d.source = LaneOffset{Lane: d.lane(), Offset: p.GetOffset()}
	d.request = FingerprintRequest(d.acc.GetRequest())
	if s.aside.has(id, d.ev.GetNotificationId()) {
		s.restoreAside(d)
		return
	}
	s.deliveries.add(d)
	s.restoreDelivery(d, p)
	s.dedupe.add(s.remembered(d))
}

// restoreDelivery puts d, which is held, where it stood.
func (s *State) restoreDelivery(d *delivery, p *whisperv1.Parked) {
	s.busy = busy{delivery: d}
	d.all = p.GetAllChannels()
	if len(p.GetLegs()) > 0 {
		s.restoreLegs(d, p)
	} else {
		s.restoreOne(d, p)
	}
	s.busy = busy{}
}

func (s *State) restoreOne(d *delivery, p *whisperv1.Parked) {
	s.deliveries.park(d)
	d.phase = p.GetPhase()
	d.attempt, d.step, d.tries = p.GetAttempt(), p.GetStep(), p.GetTries()
	s.restoreAttempts(d, p)
	s.restorePolicy(d, p)
	s.deliveries.schedule(d, time.UnixMilli(p.GetDueMs()))
	if p.GetDueMs() == 0 {
		s.deliveries.schedule(d, d.expires())
	}
}

// Resume goes on with what was parked, once everything is restored: users who are connected get what
// waited for them.
func (s *State) Resume(now time.Time) []Output {
	s.begin(now)
	s.out = append(s.out, s.tokens.due...)
	s.tokens.due = nil
	s.releaseAgain(s.changesFrom)
	s.dedupe.forget(now)
	s.users.Sort() // or the first broadcast would, in all partitions at once, and alerts wait
	s.endsAside()
	for _, d := range s.parkedOfConnected() {
		s.busy = busy{delivery: d}
		if s.deliveries.holds(d) && s.wakeable(d) && s.mayWake(d) {
			s.sendFromSocket(d)
		}
	}
	for _, w := range s.broadcasts.order {
		s.busy = busy{walk: w}
		if w.reacts(userConnects) == sends {
			s.wakeAll(w)
		}
	}
	s.busy = busy{}
	s.resumeRetractions()
	s.tidyWalks()
	return s.out
}

// parkedOfConnected are the parked deliveries of users who are connected that wait for them, in order.
func (s *State) parkedOfConnected() (parked []*delivery) {
	for user := range s.presence.users {
		if len(s.presence.live(user)) == 0 {
			continue
		}
		for _, d := range s.deliveries.of(user) {
			if d.parked && s.wakeable(d) {
				parked = append(parked, d)
			}
		}
	}
	slices.SortFunc(parked, compareArrival)
	return parked
}

// ReplayDone ends the restore: every record that was in flight has been handed out again.
func (s *State) ReplayDone() {
	s.keepForWalks()
	s.replay = nil
	s.keepCounts()
}

// ReplayHeld: facts from before the restart are still to be used, so their offset can't be let go.
func (s *State) ReplayHeld() bool {
	return slices.ContainsFunc(s.broadcasts.awake, func(w *walk) bool { return len(w.replay) > 0 })
}
