package dispatch

import (
	"slices"
	"strings"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// endedBy says whether a fact is the end of its delivery. That a socket took a frame is none: nobody may have seen it.
func endedBy(ev *whisperv1.Event) bool {
	if sent := ev.GetDeliverySent(); sent != nil {
		return sent.GetChannel() != domain.ChannelSocket
	}
	s, ok := domain.StatusOf(ev)
	return ok && !s.Pending()
}

// openFor are the deliveries that a session which opens has to get: those that dispatch has, whose user may have them over
// a socket, and of which nothing says the end. A world with categories has more to say about that; so have broadcasts.
func (w *world) openFor(in domain.Input) []*whisperv1.Event {
	seen, ok := in.(domain.PresenceSeen)
	if !ok || w.policy != nil || seen.Presence.GetSessions() <= 0 || w.told[seen.Node] != seen.Presence.GetIncarnation() || !w.opens(seen) {
		return nil
	}
	over, dropped := map[string]bool{}, map[int64]bool{}
	for _, ev := range w.events {
		if endedBy(ev) {
			over[string(ev.GetDeliveryId())] = true
		}
		if d := ev.GetDuplicateDropped(); d != nil {
			dropped[d.GetRequest().GetOffset()] = true
		}
	}
	var open []*whisperv1.Event
	for lane := range w.lanes {
		for _, ev := range w.lanes[lane][:w.taken[lane]] {
			acc := ev.GetDeliveryAccepted()
			if acc == nil || ev.GetUserId() != seen.User || over[string(ev.GetDeliveryId())] || dropped[acc.GetRequest().GetOffset()] ||
				!slices.Contains(acc.GetChannels(), domain.ChannelSocket) || acc.GetExpiresAtMs() <= w.now.UnixMilli() {
				continue
			}
			open = append(open, ev)
		}
	}
	return open
}

// opens: dispatch was not told of this session before.
func (w *world) opens(in domain.PresenceSeen) bool {
	key := in.User + "\x00" + in.Node
	last := w.opened[key]
	w.opened[key] = in.Presence.GetLatestSession()
	return last != in.Presence.GetLatestSession() && !slices.ContainsFunc(w.presenceAt, func(p domain.PresenceSeen) bool {
		return p.User == in.User && p.Node == in.Node // a later word of this node was there at the last restore
	})
}

// checkWoken: a session that opens gets what is open, whatever that waits for: a connection, a provider's answer, its
// next try.
func (w *world) checkWoken(in domain.Input, open []*whisperv1.Event, routes []routed) {
	if w.crashed {
		return
	}
	for _, ev := range open {
		node := in.(domain.PresenceSeen).Node
		if !slices.ContainsFunc(routes, func(r routed) bool {
			return r.node == node && r.user == ev.GetUserId() && r.r.GetNotificationId() == ev.GetNotificationId()
		}) {
			var story []string
			for _, told := range w.events {
				if string(told.GetDeliveryId()) == string(ev.GetDeliveryId()) {
					story = append(story, domain.KindOf(told)+" "+told.GetDeliveryDeferred().GetReason()+told.GetDeliverySent().GetChannel())
				}
			}
			w.t.Fatalf("%s connected at %s and did not get %s: %s", ev.GetUserId(), node, ev.GetNotificationId(), strings.Join(story, ", "))
		}
	}
}
