package dispatch

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/decide"
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
func (w *world) openFor(in decide.Input) []*whisperv1.Event {
	seen, ok := in.(decide.PresenceChanged)
	if !ok || w.policy != nil || seen.Presence.GetSessions() <= 0 || w.told[seen.Node] != seen.Presence.GetIncarnation() || !w.opens(seen) {
		return nil
	}
	return w.openOf(seen.User)
}

// openOf are the deliveries of a user that dispatch has, and of which nothing says the end.
func (w *world) openOf(user string) []*whisperv1.Event {
	over, dropped := map[string]bool{}, map[int64]bool{}
	took := map[string]string{} // by notification: the user's delivery that a socket or a provider took last, or may have taken
	for _, ev := range w.events {
		if endedBy(ev) && (!w.toAll(ev.GetNotificationId()) || ev.GetDeliverySent() == nil) { // a push does not stop the socket
			over[string(ev.GetDeliveryId())] = true
		}
		if ev.GetUserId() == user && mayHaveReached(ev) {
			took[ev.GetNotificationId()] = string(ev.GetDeliveryId())
		}
		if ev.GetUserId() == user && ev.GetDeliveryRead() != nil && !domain.ProvenRead(ev) { // it may be true
			over[took[ev.GetNotificationId()]] = true
		}
		if d := ev.GetDuplicateDropped(); d != nil {
			dropped[d.GetRequest().GetOffset()] = true
		}
	}
	var open []*whisperv1.Event
	for lane := range w.lanes {
		for _, ev := range w.lanes[lane][:w.taken[lane]] {
			acc := ev.GetDeliveryAccepted()
			if acc == nil || ev.GetUserId() != user || over[string(ev.GetDeliveryId())] || dropped[acc.GetRequest().GetOffset()] ||
				!w.toAll(ev.GetNotificationId()) && !slices.Contains(acc.GetChannels(), domain.ChannelSocket) || acc.GetExpiresAtMs() <= w.now.UnixMilli() {
				continue
			}
			open = append(open, ev)
		}
	}
	return open
}

// opens: dispatch was not told of this session before.
func (w *world) opens(in decide.PresenceChanged) bool {
	key := in.User + "\x00" + in.Node
	last := w.opened[key]
	w.opened[key] = in.Presence.GetLatestSession()
	return last != in.Presence.GetLatestSession() && !slices.ContainsFunc(w.presenceAt, func(p decide.PresenceChanged) bool {
		return p.User == in.User && p.Node == in.Node // a later word of this node was there at the last restore
	})
}

// checkWoken: a session that opens gets what is open, whatever that waits for: a connection, a provider's answer, its
// next try.
func (w *world) checkWoken(in decide.Input, open []*whisperv1.Event, routes []routed) {
	if w.crashed {
		return
	}
	for _, ev := range open {
		node := in.(decide.PresenceChanged).Node
		if w.untold(open, ev) {
			continue
		}
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

// simPhones are the users of whom a phone registers late, in the order of the changes.
type simPhones struct {
	users           []string
	told, committed int
	tried           map[string]int // how many events there were when a delivery was last attempted
}

// register hands dispatch the next phone; after a crash those that were not committed come again.
func (w *world) register() {
	p := &w.phones
	if w.crashed || p.told >= len(p.users) {
		return
	}
	user := p.users[p.told]
	patch := fmt.Sprintf(`{"endpoints":{"late%d":{"channel":"apns","token":"t","app":"a"}}}`, p.told)
	if strings.HasPrefix(user, "new") {
		patch = `{"locale":"en"}`
	}
	w.decide(decide.ProfilePatched{User: user, At: w.now, Offset: int64(p.told) + 1, Patch: []byte(patch)})
	if !w.crashed {
		p.told++
	}
}

// awayFor are the deliveries that wait for their user to connect, and have to go to a phone that registers.
func (w *world) awayFor(in decide.Input) (away []*whisperv1.Event) {
	patched, ok := in.(decide.ProfilePatched)
	if !ok || w.policy != nil || strings.HasPrefix(patched.User, "new") {
		return nil
	}
	for _, ev := range w.openOf(patched.User) {
		waits := -1
		for i, told := range w.events {
			if string(told.GetDeliveryId()) == string(ev.GetDeliveryId()) && told.GetDeliveryDeferred().GetReason() == domain.ReasonAway && told.GetDeliveryDeferred().GetUntilMs() == 0 {
				waits = i
			}
		}
		if !w.toAll(ev.GetNotificationId()) && waits >= w.phones.tried[string(ev.GetDeliveryId())] && slices.Contains(ev.GetDeliveryAccepted().GetChannels(), domain.ChannelPush) && waits >= 0 {
			away = append(away, ev)
		}
	}
	return away
}

func (w *world) checkPushed(away []*whisperv1.Event, pushes []*whisperv1.Push) {
	if w.crashed {
		return
	}
	for _, ev := range away {
		p := &whisperv1.Profile{}
		if err := proto.Unmarshal(w.profiles[ev.GetUserId()], p); err != nil {
			w.t.Fatal(err)
		}
		if len(p.GetEndpoints()) == 0 { // handed out again, and pruned since
			continue
		}
		if !slices.ContainsFunc(pushes, func(p *whisperv1.Push) bool { return string(p.GetDeliveryId()) == string(ev.GetDeliveryId()) }) {
			w.t.Fatalf("%s registered a phone and did not get %s, which waits", ev.GetUserId(), ev.GetNotificationId())
		}
	}
}
