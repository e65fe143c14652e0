package domain

import (
	"github.com/klivvr/whisper/domain/whisperv1"
)

// A decision that meets a bug stops its partition, which is restored anew; see dispatch/poison.go. Whoever restores it
// asks [State.Busy] what it was about and has that set aside: a delivery is ended with the reason
// [ReasonInternal] wherever the restored state would have taken it up, and a broadcast is not gone on with. Nothing else
// is decided about either, since the same bug may stand in any decision.

// busy is what a decision is about at the moment: at most one delivery, or one user of a broadcast.
type busy struct {
	delivery *delivery
	walk     *walk
	user     string // of the walk; "": the walk itself
}

// Subject names a delivery or a broadcast (User is empty).
type Subject struct {
	ID           DeliveryID
	Notification string
	User         string
}

// Busy is what the last decision was about when it was cut short by a panic; false: by nothing that could be set aside.
func (s *State) Busy() (Subject, bool) {
	switch b := s.busy; {
	case b.delivery != nil:
		return Subject{b.delivery.id, b.delivery.ev.GetNotificationId(), b.delivery.user()}, true
	case b.walk != nil:
		return Subject{b.walk.idOf(b.user), b.walk.note(), b.user}, true
	default:
		return Subject{}, false
	}
}

// SetAside has deliveries and broadcasts taken up no more. It is called before anything is restored.
func (s *State) SetAside(ids ...DeliveryID) {
	for _, id := range ids {
		if s.aside == nil {
			s.aside = map[DeliveryID]bool{}
		}
		s.aside[id] = true
	}
}

// isAside: what the walk would do for the user is set aside.
func (s *State) isAside(w *walk, user string) bool { return len(s.aside) > 0 && s.aside[w.idOf(user)] }

// asideParked is a delivery that was parked: it is ended once everything is restored.
type asideParked struct {
	delivery *delivery
	walk     *walk // of a broadcast: the user's
	user     string
}

func (s *State) restoreAside(d *delivery) {
	d.parked = true
	s.seen.add(s.remembered(d))
	s.endAside = append(s.endAside, asideParked{delivery: d})
}

// endsAside ends what was parked and is set aside, and lets its record go.
func (s *State) endsAside() {
	for _, a := range s.endAside {
		var id DeliveryID
		if a.delivery != nil {
			id = a.delivery.id
			s.emit(a.delivery, internalFailure())
			s.put(Remember{Seen: s.remembered(a.delivery)})
		} else {
			id = a.walk.idOf(a.user)
			s.emitFor(a.walk, a.user, id, internalFailure())
		}
		s.put(Unpark{ID: id})
	}
	s.endAside = nil
}

func internalFailure() *whisperv1.Event {
	return &whisperv1.Event{Kind: &whisperv1.Event_DeliveryFailed{DeliveryFailed: &whisperv1.DeliveryFailed{Reason: ReasonInternal}}}
}
