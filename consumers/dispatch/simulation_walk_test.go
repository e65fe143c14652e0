package dispatch

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/decide"
	"github.com/klivvr/whisper/domain/request"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// broadcast is upstream and intake: to everyone.
func (w *world) broadcast(lane int, notification string) {
	w.requests++
	w.now = w.now.Add(time.Millisecond)
	id := domain.NewDeliveryID(w.now, domain.HashDelivery(notification, ""))
	ev := &whisperv1.Event{
		DeliveryId: id[:], NotificationId: notification, Lane: domain.Lane(lane).Proto(),
		Kind: &whisperv1.Event_BroadcastAccepted{BroadcastAccepted: &whisperv1.BroadcastAccepted{
			Partitions: 1, Rate: w.rateOf(notification),
			Accepted: &whisperv1.DeliveryAccepted{
				Category: w.categoryOf(notification), CollapseKey: w.collapseKeyOf(notification), ChannelsDefault: w.toAll(notification),
				Channels: simChannels[len(notification)%len(simChannels)], Content: &whisperv1.Content{Body: "b"},
				AcceptedAtMs: w.now.UnixMilli(), ExpiresAtMs: w.now.Add(w.ttl()).UnixMilli(),
				Request: &whisperv1.Position{Topic: "r", Offset: w.requests},
			},
		}},
	}
	if w.toConnected(notification) {
		b := ev.GetBroadcastAccepted()
		b.Connected, b.Segment = true, request.Connected
	}
	w.casts[fmt.Sprint(w.requests)] = ev
	w.lanes[lane] = append(w.lanes[lane], ev)
}

// toConnected: by the notification's id, as what else it is.
func (w *world) toConnected(notification string) bool {
	return w.connected || len(notification)%3 == 2 // not the first one of a test, which all others of it speak of
}

// checkBegun: in a broadcast that is paused, as its record says, nobody is begun with.
func (w *world) checkBegun(notification, user string, attempt int32) {
	if attempt != 1 || w.asked[notification+"/"+user] > 0 {
		return
	}
	for _, p := range w.timers {
		if p.GetWalk().GetPaused() && p.GetWalk().GetAccepted().GetNotificationId() == notification {
			w.t.Fatalf("%s is paused, and begun with %s", notification, user)
		}
	}
}

// checkFirst: of a broadcast of which everyone was looked at, no list of users is kept.
func (w *world) checkFirst() {
	for _, p := range w.timers {
		if !p.GetCursor().GetDone() {
			continue
		}
		for _, f := range w.timers {
			if string(f.GetWalkFirst().GetBroadcast())+string(f.GetWalkFirst().GetConnectedBroadcast()) == string(p.GetCursor().GetBroadcast()) {
				w.t.Fatalf("everyone was looked at, and it is kept who came first: %v", f)
			}
		}
	}
}

func (w *world) steer(lane int, notification string, pause bool) {
	ev := &whisperv1.Event{NotificationId: notification, Kind: &whisperv1.Event_ResumeRequested{ResumeRequested: &whisperv1.ResumeRequested{}}}
	if pause {
		ev.Kind = &whisperv1.Event_PauseRequested{PauseRequested: &whisperv1.PauseRequested{}}
	}
	w.lanes[lane] = append(w.lanes[lane], ev)
}

// retract is upstream and intake: what was sent is to be taken back, what was not is not to be sent.
func (w *world) retract(lane int, notification string) {
	w.requests++
	w.lanes[lane] = append(w.lanes[lane], &whisperv1.Event{
		NotificationId: notification, Lane: domain.Lane(lane).Proto(), AtUs: w.now.UnixMicro(),
		Kind: &whisperv1.Event_RetractRequested{RetractRequested: &whisperv1.RetractRequested{Request: &whisperv1.Position{Topic: "r", Offset: w.requests}}},
	})
}

// checkRetractions: what was taken back is parked until nobody can have it any more, and then it is gone.
func (w *world) checkRetractions() {
	told := 0
	for _, p := range w.timers {
		if p.GetRetraction() != nil {
			told++
		}
	}
	asked := map[string]bool{}
	for _, lane := range w.lanes {
		for _, ev := range lane {
			if ev.GetRetractRequested() != nil {
				asked[ev.GetNotificationId()] = true
			}
		}
	}
	if told != len(asked) {
		w.t.Errorf("%d retractions are kept, of %v", told, asked)
	}
	w.now = w.now.Add(decide.DefaultPolicy().Window)
	w.decide(decide.TimePassed{})
	w.commit(0)
}

// newUser has a profile from now on.
func (w *world) newUser() {
	w.phones.users = append(w.phones.users, fmt.Sprint("new", len(w.phones.users)))
	w.register()
}

// walk does what is to be walked now, a slice of each lane.
func (w *world) walk() {
	for _, lane := range domain.Lanes {
		if at, ok := w.state.WalkDue(lane); ok && !at.After(w.now) {
			w.decide(decide.WalkOn{Lane: lane, Over: w.lasted(), Wide: w.slices%2 == 0})
		}
	}
}

// lasted ends slices behind any user.
func (w *world) lasted() func() bool {
	w.slices++
	left := w.slices % 4
	return func() bool {
		left--
		return left == 0
	}
}

// checkFactsGo: once the broadcasts went as far as they may, paused or not, none needs the facts from before a restart.
func (w *world) checkFactsGo(t *rapid.T) {
	for lane, end := range w.laneEnds {
		if w.taken[lane] < end {
			return // the replay lasts
		}
	}
	for range 100 {
		if w.walk(); w.crashed {
			return
		}
	}
	if w.state.ReplayHeld() {
		t.Fatal("a broadcast holds the facts from before the restart, and does not go on")
	}
}

// direct counts the dropped requests that were for single users.
func (w *world) direct(dropped map[int64]bool) (n int) {
	for request := range dropped {
		if w.casts[fmt.Sprint(request)] == nil {
			n++
		}
	}
	return n
}

// broadcastHas: a broadcast took the id before anybody asked for the user alone, and each request for him was
// dropped.
func (w *world) broadcastHas(key string, dropped map[int64]bool) bool {
	return w.direct(dropped) == w.asked[key] && w.asked[key] > 0
}

// checkBroadcasts: every broadcast was walked to its end or ended, everyone who is counted as meant came to an
// end, and nobody who is not counted was dealt with.
func (w *world) checkBroadcasts(duplicates map[string]map[int64]bool) {
	status := map[string]domain.Status{}
	last := map[string]*whisperv1.BroadcastProgressed{}
	dropped, reachedUser := map[string]bool{}, map[string]bool{}
	for _, ev := range w.events {
		key := ev.GetNotificationId() + "/" + ev.GetUserId()
		reachedUser[key] = reachedUser[key] || mayHaveReached(ev)
		if s, ok := domain.StatusOf(ev); ok && (reachedUser[key] || !unprovenRead(ev)) {
			status[key] = status[key].Then(s)
		}
		if p := ev.GetBroadcastProgressed(); p != nil {
			last[ev.GetNotificationId()] = proto.CloneOf(p)
		}
		if d := ev.GetBroadcastDropped(); d != nil {
			dropped[fmt.Sprint(d.GetRequest().GetOffset())] = true
		}
	}
	for request, cast := range w.casts {
		note := cast.GetNotificationId()
		p := last[note]
		if dropped[request] {
			continue
		}
		if p == nil || !p.GetSettled() {
			w.t.Errorf("the broadcast %s never came to its end: %v", note, p)
			continue
		}
		offset := cast.GetBroadcastAccepted().GetAccepted().GetRequest().GetOffset()
		reached := map[string]domain.Status{}
		for key, s := range status {
			if user, of := keyOf(key, note); of && (w.asked[key] == 0 || w.broadcastHas(key, duplicates[key])) {
				reached[user] = s
				if s.Pending() {
					w.t.Errorf("%s of the broadcast %s is %s for ever", user, note, s)
				}
			}
		}
		for key, requests := range duplicates {
			if user, of := keyOf(key, note); of && requests[offset] {
				reached[user] = domain.Suppressed
			}
		}
		gone := int64(0) // who is forgotten between what was sent and the fact of it may not be counted; see docs/broadcasts.md
		for user := range reached {
			if w.erased(user) {
				gone++
			}
		}
		if n := int64(len(reached)); p.GetMatched() > n || p.GetMatched() < n-gone {
			w.t.Errorf("the broadcast %s is for %d, and %d were dealt with: %v, %v", note, p.GetMatched(), len(reached), reached, p)
		}
		if p.GetState() == whisperv1.BroadcastState_BROADCAST_STATE_WALKED && p.GetWalked() != p.GetAudience() && w.policy == nil {
			w.t.Errorf("the broadcast %s has looked at %d of %d", note, p.GetWalked(), p.GetAudience())
		}
	}
}

// erased says whether a user was ever forgotten.
func (w *world) erased(user string) bool {
	return w.policy != nil && slices.ContainsFunc(w.policy.patches, func(p simPatch) bool { return p.user == user && p.value == "" })
}

func keyOf(key, note string) (user string, ok bool) {
	if len(key) > len(note) && key[:len(note)] == note && key[len(note)] == '/' {
		return key[len(note)+1:], true
	}
	return "", false
}

// TestAnyInterleavingWalksEveryoneOnce: a broadcast in two passes, of whose users some are connected, come and go
// while it runs, and dispatch dying at any moment of it. Nobody is looked at twice, nobody is missed, and nobody
// whose end was told gets it again. Its few actions bring the walk far, other than those of the test of everything.
func TestAnyInterleavingWalksEveryoneOnce(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		w.connected = rapid.Bool().Draw(t, "to those who are connected")
		users := make([]string, 9)
		for i := range users {
			if users[i] = fmt.Sprint("u", i); w.connected && i%2 == 0 {
				continue
			}
			w.profiles[users[i]], _ = proto.Marshal(&whisperv1.Profile{Locale: "en"})
		}
		w.restore()
		user, node := rapid.SampledFrom(users), rapid.SampledFrom(simNodes)
		flow := func(*rapid.T) {
			w.tellNodes()
			for _, in := range w.presenceAt {
				w.decide(in)
			}
			w.presenceAt = nil
			w.feedLane(2)
			for range 4 {
				w.gateway(true)
			}
			for range 8 {
				w.feedEvent()
			}
			w.walk()
		}
		for range rapid.IntRange(0, len(users)).Draw(t, "connected") {
			w.setPresence(node.Draw(t, "node"), user.Draw(t, "user"), true)
		}
		w.broadcast(2, simID(0))
		flow(t)
		actions := map[string]func(*rapid.T){
			"everything flows": flow,
			"dispatch walks":   func(*rapid.T) { w.walk() },
			"steer":            func(t *rapid.T) { w.steer(2, simID(0), rapid.Bool().Draw(t, "pause")) },
			"cancel": func(t *rapid.T) {
				if rapid.IntRange(0, 9).Draw(t, "seldom") == 0 {
					w.lanes[2] = append(w.lanes[2], &whisperv1.Event{
						NotificationId: simID(0), Kind: &whisperv1.Event_CancelRequested{CancelRequested: &whisperv1.CancelRequested{}},
					})
				}
			},
			"connect":    func(t *rapid.T) { w.setPresence(node.Draw(t, "node"), user.Draw(t, "user"), true) },
			"disconnect": func(t *rapid.T) { w.setPresence(node.Draw(t, "node"), user.Draw(t, "user"), false) },
			"time passes": func(t *rapid.T) {
				w.now = w.now.Add(time.Duration(rapid.IntRange(1, 40).Draw(t, "seconds")) * time.Second)
				w.decide(decide.TimePassed{})
			},
			"commit": func(*rapid.T) {
				if !w.crashed {
					w.commit(0)
				}
			},
			"nothing holds the facts": func(*rapid.T) { w.checkFactsGo(t) },
			"crash soon":              func(t *rapid.T) { w.crashAfter = rapid.IntRange(0, 3).Draw(t, "outputs") },
			"crash in a commit": func(t *rapid.T) {
				if !w.crashed {
					w.commit(rapid.IntRange(0, 2).Draw(t, "after"))
				}
				w.restore()
			},
			"": func(*rapid.T) {
				if w.crashed {
					w.restore()
				}
			},
		}
		for range 3 {
			t.Repeat(actions)
		}
		w.settleAll()
		w.check()
	})
}
