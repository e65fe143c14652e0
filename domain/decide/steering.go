package decide

import (
	"time"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// cancelHash is what the window of duplicates remembers a cancel by.
func cancelHash(notification string) domain.DeliveryHash {
	return domain.HashDelivery(notification, cancelMark)
}

// wasCancelled: a cancel came before what it is about, or on another lane, within the window.
func (s *State) wasCancelled(notification string, asked time.Time) bool {
	_, ok := s.dedupe.lookup(cancelHash(notification), 0, asked)
	return ok
}

// cancel ends what was not sent. What was sent stays sent; it is not sent again. The window remembers it, for
// what comes later than its cancel.
func (s *State) cancel(in CancelArrived) {
	note := in.Event.GetNotificationId()
	known := s.cancelHeld(note, in.Event.GetCancelRequested().GetRequest(), in.Event.GetAtUs(), in.Source)
	s.put(Steered{Command: "cancel", Notification: note, Known: known})
}

// cancelHeld cancels what is held of a notification, and says whether anything was.
func (s *State) cancelHeld(note string, request *whisperv1.Position, atUS int64, source LaneOffset) (known bool) {
	w := s.broadcasts.get(note)
	if w != nil { // first, since it counts what is held
		s.endWalk(w, whisperv1.BroadcastState_BROADCAST_STATE_CANCELLED)
		s.progress(w)
	}
	held := s.deliveries.ofNote(note, w)
	for _, d := range held {
		if s.deliveries.holds(d) {
			s.end(d, &whisperv1.Event{Kind: &whisperv1.Event_DeliveryCancelled{DeliveryCancelled: &whisperv1.DeliveryCancelled{}}})
		}
	}
	seen := SeenDelivery{Hash: cancelHash(note), Request: FingerprintRequest(request), AcceptedMs: atUS / 1000, TakenMs: s.now.UnixMilli()}
	s.dedupe.add(seen)
	s.put(Settle{Source: source, Seen: &seen})
	return len(held) > 0 || w != nil
}

// steer pauses, resumes or retracts.
func (s *State) steer(in SteeringArrived) {
	note := in.Event.GetNotificationId()
	w := s.broadcasts.get(note)
	switch in.Event.GetKind().(type) {
	case *whisperv1.Event_RetractRequested:
		s.retract(in)
		return
	case *whisperv1.Event_PauseRequested:
		s.put(Steered{Command: "pause", Notification: note, Known: w != nil})
		if s.steers(w, in.Event.GetPauseRequested().GetRequest(), true) {
			w.toWake = nil
			s.progress(w)
		}
	case *whisperv1.Event_ResumeRequested:
		s.put(Steered{Command: "resume", Notification: note, Known: w != nil})
		if s.steers(w, in.Event.GetResumeRequested().GetRequest(), false) {
			s.wakeAll(w)
			s.progress(w)
			s.endPause(w)
		}
	}
	s.put(Settle{Source: in.Source})
}

// steers pauses or resumes a broadcast and says whether that changed it. A request from before the last one is a
// redelivery: an intake that was stopped may write it after its successor wrote what came later.
func (s *State) steers(w *walk, request *whisperv1.Position, pause bool) (changed bool) {
	if w == nil {
		return false
	}
	reaction := w.reacts(resumeAsked)
	if pause {
		reaction = w.reacts(pauseAsked)
	}
	if reaction == walkIgnores {
		return false
	}
	last := w.steered
	if last != nil && last.GetTopic() == request.GetTopic() && last.GetPartition() == request.GetPartition() &&
		request.GetOffset() <= last.GetOffset() {
		return false
	}
	s.broadcasts.wake(w)
	w.steered, w.paused = request, pause
	s.parkWalk(w)
	return reaction != walkNotes
}
