package dispatch

import (
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/category"
	"github.com/klivvr/whisper/domain/decide"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// simAll is a category of which all channels get what is sent. Where there are no others, what has the longest id is of it.
const simAll = "all"

// toAll says whether a notification goes to all of its channels.
func (w *world) toAll(notification string) bool {
	if w.policy == nil {
		return notification == simID(5)
	}
	name := simRules[w.rulesOf(notification)].name
	return name == simAll || name == "digested" && w.allDigest
}

func (w *world) declare(name, rules string) {
	category, err := category.Parse(name, []byte(rules))
	if err != nil {
		w.t.Fatal(err)
	}
	w.state.Decide(decide.CategoryChanged{Name: name, Category: category}, w.now)
}

// noteEnd notes what a fact ends: the delivery, or one of its channels, where all get it.
func (w *world) noteEnd(ev *whisperv1.Event) {
	s, ok := domain.StatusOf(ev)
	id := string(ev.GetDeliveryId())
	switch all := w.toAll(ev.GetNotificationId()); {
	case !ok || s.Pending() || unprovenRead(ev):
	case all && ev.GetDeliveryDelivered() != nil:
		w.ended[id+domain.ChannelSocket] = true
	case all && ev.GetDeliverySent() != nil && ev.GetDeliverySent().GetChannel() != domain.ChannelSocket:
		w.ended[id+domain.ChannelPush] = true
	case s != domain.Sent:
		w.ended[id] = true
	}
}

// simOwed is what began over a socket of a user who has a phone, and since when dispatch could have pushed it.
type simOwed struct {
	note, user string
	since      time.Time
}

// checkAllGetIt: what begins over a socket is pushed at once, or soon after a restart, whatever the socket comes to.
func (w *world) checkAllGetIt(in decide.Input, routes []routed) {
	for _, r := range routes {
		note, id := r.r.GetNotificationId(), r.r.GetDeliveryId()
		direct := w.asked[note+"/"+r.user] > 0 && !slices.ContainsFunc(slices.Collect(maps.Values(w.casts)), func(ev *whisperv1.Event) bool { return ev.GetNotificationId() == note })
		if direct && w.toAll(note) && !w.pushed[string(id)] && w.reachable(r.user) {
			w.owed[string(id)] = simOwed{note, r.user, w.now}
		}
	}
	if _, passed := in.(decide.TimePassed); !passed || w.crashed {
		return
	}
	for id, owed := range w.owed {
		switch late := w.now.Sub(owed.since) > 5*time.Second; {
		case !w.reachable(owed.user) || w.over(id, owed):
			delete(w.owed, id)
		case late:
			w.t.Fatalf("%s went to a socket of %s and not to a phone", owed.note, owed.user)
		}
	}
}

// over: it is not to be sent any more, so that nothing is owed.
func (w *world) over(id string, owed simOwed) bool {
	for _, lane := range w.lanes {
		for _, ev := range lane {
			ended := ev.GetCancelRequested() != nil || ev.GetRetractRequested() != nil
			if ended && ev.GetNotificationId() == owed.note || string(ev.GetDeliveryId()) == id && ev.GetDeliveryAccepted().GetExpiresAtMs() <= w.now.UnixMilli() {
				return true
			}
		}
	}
	return slices.ContainsFunc(w.events, func(ev *whisperv1.Event) bool {
		mine := ev.GetUserId() == owed.user && ev.GetNotificationId() == owed.note
		return mine && (ev.GetDeliveryRead() != nil || endedBy(ev) && ev.GetDeliveryDelivered() == nil)
	})
}

// reachable: the user has an endpoint, and never said when or over what they want nothing.
func (w *world) reachable(user string) bool {
	p := &whisperv1.Profile{}
	if err := proto.Unmarshal(w.profiles[user], p); err != nil {
		w.t.Fatal(err)
	}
	return len(p.GetEndpoints()) > 0 && (w.policy == nil || !slices.ContainsFunc(w.policy.patches, func(p simPatch) bool { return p.user == user }))
}
