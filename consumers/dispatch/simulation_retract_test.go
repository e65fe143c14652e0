package dispatch

import (
	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/domain/decide"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// simShown is a push that may have been shown, or the silent one that takes it back.
type simShown struct{ delivery, user, endpoint string }

// simRecall is a reading of the log, where it stands.
type simRecall struct {
	note    string
	at, end int64
}

// recall is recalls.ask, and what finds out where to begin.
func (w *world) recall(o decide.Recall) {
	r := simRecall{note: o.Notification, end: w.eventsAt}
	for r.at < r.end && w.events[r.at].GetAtUs() < o.From.UnixMicro() {
		r.at++
	}
	w.recalls = append(w.recalls, r)
}

// readBack reads some facts for the oldest retraction that asked.
func (w *world) readBack(facts int) {
	for range facts {
		if len(w.recalls) == 0 || w.crashed {
			return
		}
		r := &w.recalls[0]
		if r.at >= r.end {
			note := r.note
			w.recalls = w.recalls[1:]
			w.decide(decide.RecallRead{Notification: note})
			continue
		}
		ev := w.events[r.at]
		r.at++
		if ev.GetNotificationId() == r.note && decide.MayHaveShown(ev) {
			w.decide(decide.FactRecalled{Event: ev})
		}
	}
}

// takeBack is a silent push on its way.
func (w *world) takeBack(p *whisperv1.Push) {
	if p.GetContent() != nil || p.GetToken() == "" || p.GetAttempt() < 1 || p.GetExpiresAtMs() == 0 {
		w.t.Fatalf("pushed silently with too much or too little: %v", p)
	}
	w.silent[simShown{string(p.GetDeliveryId()), p.GetUserId(), p.GetEndpoint()}]++
	w.pushes = append(w.pushes, proto.CloneOf(p))
}

func (w *world) answerSilent(p *whisperv1.Push, ev *whisperv1.Event, class whisperv1.FailureClass) {
	if class == whisperv1.FailureClass_FAILURE_CLASS_UNSPECIFIED {
		ev.Kind = &whisperv1.Event_DeliveryRetracted{DeliveryRetracted: &whisperv1.DeliveryRetracted{Channel: p.GetChannel(), Endpoint: p.GetEndpoint()}}
		return
	}
	ev.Kind = &whisperv1.Event_RetractFailed{RetractFailed: &whisperv1.AttemptFailed{
		Attempt: p.GetAttempt(), Channel: p.GetChannel(), Endpoint: p.GetEndpoint(), Class: class,
	}}
}

// checkTakenBack: of what was taken back, every push that was taken or may have been was followed by a silent one, unless
// its endpoint is gone; nobody else got any.
func (w *world) checkTakenBack() {
	retracted := map[string]bool{}
	for _, lane := range w.lanes {
		for _, ev := range lane {
			if ev.GetRetractRequested() != nil {
				retracted[ev.GetNotificationId()] = true
			}
		}
	}
	shown := map[simShown]bool{}
	for _, ev := range w.events {
		if !retracted[ev.GetNotificationId()] || !decide.MayHaveShown(ev) {
			continue
		}
		endpoint := ev.GetDeliverySent().GetEndpoint() + ev.GetAttemptFailed().GetEndpoint()
		key := simShown{string(ev.GetDeliveryId()), ev.GetUserId(), endpoint}
		shown[key] = true
		if w.silent[key] == 0 && w.has(ev.GetUserId(), endpoint) {
			w.t.Errorf("%s was pushed to %s of %s, and is not taken back", ev.GetNotificationId(), endpoint, ev.GetUserId())
		}
	}
	for key := range w.silent {
		if !shown[key] {
			w.t.Errorf("%v is taken back and was never shown", key)
		}
	}
	if len(w.recalls) > 0 || len(w.pushes) > 0 {
		w.t.Errorf("still to be read: %v, to be answered: %v", w.recalls, w.pushes)
	}
}

func (w *world) has(user, endpoint string) bool {
	p := &whisperv1.Profile{}
	if err := proto.Unmarshal(w.profiles[user], p); err != nil {
		w.t.Fatal(err)
	}
	for _, e := range p.GetEndpoints() {
		if e.GetName() == endpoint {
			return true
		}
	}
	return false
}
