package decide

import (
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// A decision that meets a bug stops its partition, which is restored anew; see dispatch/poison.go. Whoever restores it
// asks [State.Busy] what it was about and has that set aside ([State.SetAside]): a delivery is ended with the reason
// [domain.ReasonInternal] wherever the restored state would have taken it up, and a broadcast is paused. Nothing else is decided
// about a delivery, since the same bug may stand in any decision.

// Subject names a delivery or a broadcast (User is empty).
type Subject struct {
	ID           domain.DeliveryID
	Notification string
	User         string
}

// Busy returns what a decision was about that a panic cut short. false: it was about nothing that could be set aside.
func (s *State) Busy() (Subject, bool) {
	switch b := s.busy; {
	case b.delivery != nil:
		return Subject{b.delivery.id, b.delivery.ev.GetNotificationId(), b.delivery.user()}, true
	case b.walk != nil && b.user == "":
		return Subject{ID: b.walk.id, Notification: b.walk.note()}, true
	case b.walk != nil:
		return Subject{b.walk.idOf(b.user), b.walk.note(), b.user}, true
	case b.note != "":
		return Subject{ID: b.id, Notification: b.note}, true
	default:
		return Subject{}, false
	}
}

// Aside is what a restore sets aside instead of taking it up.
type Aside struct {
	// Deliveries are ended, broadcasts are paused.
	IDs []domain.DeliveryID
	// Notifications whose deliveries are all ended; a broadcast is paused.
	Notifications []string
	// Broadcasts that met a bug though they were paused: they are left as they are parked.
	LeftOut []domain.DeliveryID
}

// SetAside names what to set aside. It is called before anything is restored.
func (s *State) SetAside(a Aside) {
	if len(a.IDs)+len(a.Notifications)+len(a.LeftOut) == 0 {
		return
	}
	s.aside = &aside{ids: map[domain.DeliveryID]bool{}, notes: map[string]bool{}, leftOut: map[domain.DeliveryID]bool{}}
	for _, id := range a.IDs {
		s.aside.ids[id] = true
	}
	for _, note := range a.Notifications {
		s.aside.notes[note] = true
	}
	for _, id := range a.LeftOut {
		s.aside.leftOut[id] = true
	}
}

// aside is nil as a rule.
type aside struct {
	ids     map[domain.DeliveryID]bool
	notes   map[string]bool
	leftOut map[domain.DeliveryID]bool
}

func (a *aside) has(id domain.DeliveryID, note string) bool {
	return a != nil && (a.ids[id] || a.notes[note])
}

func (a *aside) leavesOut(id domain.DeliveryID) bool { return a != nil && a.leftOut[id] }

// hasUser: what the walk would do for the user is set aside.
func (a *aside) hasUser(w *walk, user string) bool {
	return a != nil && a.ids[w.idOf(user)]
}

// asideParked is a delivery that was parked: it is ended once everything is restored.
type asideParked struct {
	delivery *delivery
	walk     *walk // of a broadcast: the user's
	user     string
}

func (s *State) restoreAside(d *delivery) {
	d.parked = true
	s.dedupe.add(s.remembered(d))
	s.endAside = append(s.endAside, asideParked{delivery: d})
}

// endsAside ends what was parked and is set aside, and lets its record go.
func (s *State) endsAside() {
	for _, a := range s.endAside {
		if d := a.delivery; d != nil {
			s.emit(d, internalFailure())
			seen, _ := s.dedupe.end(s.remembered(d), s.now)
			s.put(Remember{Seen: seen})
			s.put(Unpark{ID: d.id})
			continue
		}
		id := a.walk.idOf(a.user)
		s.broadcasts.wake(a.walk)
		a.walk.skip(a.user, id.Hash())
		s.emitFor(a.walk, a.user, id, internalFailure())
		s.put(Unpark{ID: id})
	}
	s.endAside = nil
}

func internalFailure() *whisperv1.Event {
	return &whisperv1.Event{Kind: &whisperv1.Event_DeliveryFailed{DeliveryFailed: &whisperv1.DeliveryFailed{Reason: domain.ReasonInternal}}}
}
