package decide

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/category"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// checkFlights compares what is known of flights with a look at all waves and walks.
func checkFlights(t *rapid.T, h *deliveries) {
	ofWaves, ofWalks := map[*wave]int{}, map[*walk]int{}
	for hash, f := range h.flights.at {
		v := h.flights.waves[f.wave]
		if v == nil || int(f.group) >= len(v.groups) || int(f.place) >= len(v.groups[f.group].users) {
			t.Fatalf("%+v is nowhere", f)
		}
		g := v.groups[f.group]
		user := g.users[f.place]
		switch {
		case domain.HashDelivery(v.walk.note(), user) != hash || g.states[f.place] == noFlight:
			t.Fatalf("%+v is another one's", f)
		case h.byHash[hash] != nil:
			t.Fatalf("%s has a delivery, too", user)
		case !v.walk.passed(user):
			t.Fatalf("%s was not walked", user)
		case v.slice.open == 0:
			t.Fatalf("the slice of %s is over", user)
		}
		ofWaves[v]++
		ofWalks[v.walk]++
	}
	if len(ofWaves) != len(h.flights.waves) || len(ofWalks) != len(h.flights.walks) {
		t.Fatalf("of %d waves and %d walks, not %d and %d", len(ofWaves), len(ofWalks), len(h.flights.waves), len(h.flights.walks))
	}
	for v, n := range ofWaves {
		states := 0
		for _, g := range v.groups {
			for _, state := range g.states {
				if state != noFlight {
					states++
				}
			}
		}
		if v.flights != n || states != n || v.left < n || v.slot <= 0 {
			t.Fatalf("%d of a wave, which counts %d, and %d of %d that are left", n, states, v.flights, v.left)
		}
	}
	for w, n := range ofWalks {
		if w.flights != n || w.open < n || w.flying < n {
			t.Fatalf("%d of a walk, which counts %d of %d, %d", n, w.flights, w.flying, w.open)
		}
	}
}

// TestAFlightIsTakenUpAsWhatItStandsFor: by every field.
func TestAFlightIsTakenUpAsWhatItStandsFor(t *testing.T) {
	t.Parallel()
	now := time.UnixMilli(1_700_000_000_000)
	for name, change := range map[string]func(acc *whisperv1.DeliveryAccepted, w *walk){
		"as it is": func(*whisperv1.DeliveryAccepted, *walk) {},
		"socket comes last": func(acc *whisperv1.DeliveryAccepted, _ *walk) {
			acc.Channels = []string{domain.ChannelAPNs, domain.ChannelSocket}
		},
		"of its category": func(acc *whisperv1.DeliveryAccepted, _ *walk) { acc.ChannelsDefault = true },
		"at a rate":       func(_ *whisperv1.DeliveryAccepted, w *walk) { w.bucket.rate = 100 },
		"after a pause":   func(_ *whisperv1.DeliveryAccepted, w *walk) { w.steered = &whisperv1.Position{Topic: "r"} },
		"later":           func(acc *whisperv1.DeliveryAccepted, _ *walk) { acc.SendAtMs = now.Add(time.Second).UnixMilli() },
		"not for long":    func(acc *whisperv1.DeliveryAccepted, _ *walk) { acc.ExpiresAtMs = now.Add(time.Minute).UnixMilli() },
	} {
		acc := &whisperv1.DeliveryAccepted{
			Category: "news", Channels: []string{domain.ChannelSocket}, Content: &whisperv1.Content{Body: "b"}, Request: &whisperv1.Position{Topic: "r"},
			AcceptedAtMs: now.UnixMilli(), ExpiresAtMs: now.Add(time.Hour).UnixMilli(),
		}
		id := domain.NewDeliveryID(now, domain.HashDelivery("cast", ""))
		ev := &whisperv1.Event{
			DeliveryId: id[:], NotificationId: "cast", Lane: whisperv1.Lane_LANE_LOW,
			Kind: &whisperv1.Event_BroadcastAccepted{BroadcastAccepted: &whisperv1.BroadcastAccepted{Partitions: 1, Accepted: acc}},
		}
		content := &whisperv1.Content{Body: "b"}
		made := func(flies bool) *delivery {
			s := NewState(0, DefaultPolicy())
			s.ReplayDone()
			rules, err := category.Parse("news", []byte(`{"channels":["push","socket"],"ack_timeout":"7s"}`))
			if err != nil {
				t.Fatal(err)
			}
			s.Decide(CategoryChanged{Name: "news", Category: rules}, now)
			s.begin(now.Add(3 * time.Second))
			w := newWalk(s.users, ev, Trace{Parent: "p"}, LaneOffset{Lane: domain.Low, Offset: 7})
			change(acc, w)
			s.broadcasts.add(w)
			w.at = "mona"
			sl, user, text := s.openSlice(w), "mona", &sharedText{content: content}
			at := place{node: "n1", incarnation: 3}
			if !flies {
				d := s.openDelivery(w, sl, user, w.idOf(user))
				s.settleChannels(d)
				s.group(d, []place{at}, text)
				if d.socketTook = true; d.reacts(becameDue) != nextChannel {
					t.Fatalf("%s: it does not stand at a socket", name)
				}
				return d
			}
			s.fly(w, sl, user, w.idOf(user).Hash(), at, text, s.category("news"))
			if !s.flightFact(domain.SocketFact{ID: w.idOf(user)}) || s.deliveries.inFlight() != 1 || w.open != 1 || w.flying != 1 || sl.open != 1 {
				t.Fatalf("%s: %d are in flight", name, s.deliveries.inFlight())
			}
			return s.deliveries.get(w.idOf(user).Hash())
		}
		got, want := made(true), made(false)
		if got.wave.left != 1 || got.wave.flights != 0 {
			t.Errorf("%s: %+v", name, got.wave)
		}
		got.wave.groups, want.wave.groups = nil, nil // one notes that it was a flight
		g, w := reflect.ValueOf(got).Elem(), reflect.ValueOf(want).Elem()
		for i := range g.NumField() {
			field := g.Type().Field(i).Name
			if a, b := fmt.Sprintf("%+v", g.Field(i)), fmt.Sprintf("%+v", w.Field(i)); field != "walk" && field != "slice" && field != "wave" &&
				field != "atSocket" && field != "ofNote" && a != b {
				t.Errorf("%s: %s is %s, want %s", name, field, a, b)
			}
		}
		if !got.wave.due.Equal(want.wave.due) || got.atSocket.in() != want.atSocket.in() || got.ofNote.in() != want.ofNote.in() ||
			*got.slice != *want.slice || got.walk.open != want.walk.open {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
}

// TestFlightsDecideAsDeliveries plays every history twice: as it is, and with all flights taken up before each decision. Nothing that
// is written, and no time that anything is due, differs.
func TestFlightsDecideAsDeliveries(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		policy := DefaultPolicy()
		policy.IndexFrom, policy.Due, policy.Slice = rapid.IntRange(1, 3).Draw(t, "index from"), rapid.IntRange(1, 3).Draw(t, "due"),
			rapid.IntRange(1, 16).Draw(t, "slice")
		as, ups := NewState(0, policy), NewState(0, policy)
		as.ReplayDone()
		ups.ReplayDone()
		now, n := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC), int64(0)
		var sent []domain.AttemptFacts // of which each of its users may tell
		do := func(in Input) {
			ups.deliveries.takeUpIf(anyWave, anyRecord)
			out := as.Decide(in, now)
			got, want := told(out), told(ups.Decide(in, now))
			if got != want {
				t.Fatalf("%T: %s\nwant %s", in, got, want)
			}
			for _, o := range out {
				if route, is := o.(RouteTo); is {
					sent = append(sent, domain.AttemptFacts{
						Notification: route.Route.GetNotificationId(), Attempt: route.Route.GetAttempt(),
						Node: route.Node,
					})
				}
			}
			due, any := as.NextDue()
			if dueToo, anyToo := ups.NextDue(); !due.Equal(dueToo) || any != anyToo || as.Stats() != ups.Stats() || as.Sizes() != ups.Sizes() {
				t.Fatalf("%T: due %v %v, %+v, %+v; want %v %v, %+v, %+v", in, due, any, as.Stats(), as.Sizes(), dueToo, anyToo, ups.Stats(),
					ups.Sizes())
			}
			checkFlights(t, &as.deliveries)
			checkBroadcasts(t, &as.broadcasts)
		}
		users := []string{"mona", "ali", "omar", "nour"}
		user, node := rapid.SampledFrom(users), rapid.SampledFrom([]string{"n1", "n2"})
		event := func(note, user string) *whisperv1.Event {
			n++
			now = now.Add(time.Millisecond)
			id := domain.NewDeliveryID(now, domain.HashDelivery(note, user))
			return &whisperv1.Event{DeliveryId: id[:], NotificationId: note, UserId: user, AtUs: now.UnixMicro(), Lane: whisperv1.Lane_LANE_LOW}
		}
		accepted := func(t *rapid.T) *whisperv1.DeliveryAccepted {
			acc := &whisperv1.DeliveryAccepted{
				Category: rapid.SampledFrom([]string{"news", "capped", "pushed"}).Draw(t, "category"), CollapseKey: rapid.SampledFrom([]string{"", "", "", "key"}).Draw(t, "collapse key"),
				Channels: []string{domain.ChannelSocket}, ChannelsDefault: true, Content: &whisperv1.Content{Body: "b"},
				AcceptedAtMs: now.UnixMilli(), ExpiresAtMs: now.Add(time.Hour).UnixMilli(), Request: &whisperv1.Position{Topic: "r", Offset: n}, Recipients: 1,
			}
			return acc
		}
		declare := func(name, rules string) {
			c, err := category.Parse(name, []byte(rules))
			if err != nil {
				t.Fatal(err)
			}
			do(CategoryChanged{Name: name, Category: c})
		}
		declare("news", `{}`)
		declare("capped", `{"caps":[{"n":2,"per":"day"}]}`)
		declare("pushed", `{"channels":["socket","push"]}`)
		incarnations := map[string]uint64{}
		starts := func(at string) {
			incarnations[at]++
			do(NodeChanged{Node: at, Incarnation: incarnations[at]})
		}
		connects := func(user, node string) {
			n++
			do(PresenceChanged{User: user, Node: node, Presence: &whisperv1.Presence{
				UserId: user, Node: node, Incarnation: incarnations[node], Sessions: 1, LatestSession: fmt.Sprint(n), AtUs: now.UnixMicro(),
			}})
		}
		starts("n1")
		starts("n2")
		for i, user := range users {
			n++
			do(ProfilePatched{User: user, Patch: []byte(`{"attributes":{}}`), At: now, Offset: n})
			connects(user, []string{"n1", "n2"}[i%2])
		}
		broadcast := func(t *rapid.T) {
			ev := event(fmt.Sprint("cast", n%5), "")
			spec := &whisperv1.BroadcastAccepted{Partitions: 1, Rate: rapid.SampledFrom([]float64{0, 0, 50}).Draw(t, "rate"), Accepted: accepted(t)}
			if later := rapid.SampledFrom([]time.Duration{0, 0, 100 * time.Millisecond, 10 * time.Second}).Draw(t, "begins later"); later > 0 {
				spec.Accepted.SendAtMs = now.Add(later).UnixMilli()
			}
			ev.Kind = &whisperv1.Event_BroadcastAccepted{BroadcastAccepted: spec}
			do(BroadcastArrived{Event: ev, Source: LaneOffset{domain.Low, n}})
		}
		walk := func(t *rapid.T) {
			now = now.Add(25 * time.Millisecond)
			do(WalkOn{Lane: domain.Low, Wide: rapid.Bool().Draw(t, "wide")})
		}
		steer := func(t *rapid.T, note string) {
			ev := event(note, "")
			request := &whisperv1.Position{Topic: "r", Offset: n}
			switch rapid.IntRange(0, 3).Draw(t, "command") {
			case 0:
				ev.Kind = &whisperv1.Event_PauseRequested{PauseRequested: &whisperv1.PauseRequested{Request: request}}
			case 1:
				ev.Kind = &whisperv1.Event_ResumeRequested{ResumeRequested: &whisperv1.ResumeRequested{Request: request}}
			case 2:
				ev.Kind = &whisperv1.Event_RetractRequested{RetractRequested: &whisperv1.RetractRequested{Request: request}}
			default:
				ev.Kind = &whisperv1.Event_CancelRequested{CancelRequested: &whisperv1.CancelRequested{Request: request}}
				do(CancelArrived{Event: ev, Source: LaneOffset{domain.Low, n}})
				return
			}
			do(SteeringArrived{Event: ev, Source: LaneOffset{domain.Low, n}})
		}
		hand := func(facts domain.AttemptFacts, known domain.AttemptFact) {
			facts.Prepare()
			value, _ := facts.Encode(known)
			read, ok := domain.ReadSocketFact(value)
			if !ok {
				t.Fatal("not read")
			}
			do(&SocketFactArrived{Fact: read, Value: value, Topic: "e", Offset: n})
		}
		fact := func(t *rapid.T) {
			if len(sent) == 0 {
				return
			}
			facts, user := rapid.SampledFrom(sent).Draw(t, "of"), user.Draw(t, "user")
			if flying := flying(as); len(flying) > 0 && rapid.Bool().Draw(t, "of a flight") {
				one := rapid.SampledFrom(flying).Draw(t, "flight")
				facts, user = domain.AttemptFacts{Notification: one.note, Attempt: firstAttempt, Node: one.node}, one.user
			}
			id := domain.NewDeliveryID(now, domain.HashDelivery(facts.Notification, user))
			if w := as.broadcasts.get(facts.Notification); w != nil && rapid.IntRange(0, 9).Draw(t, "another time") > 0 {
				id = w.idOf(user)
			}
			known := domain.AttemptFact{ID: id, User: user, AtUS: now.UnixMicro(), Delivered: rapid.Bool().Draw(t, "acknowledged")}
			switch rapid.IntRange(0, 3).Draw(t, "how") {
			case 0:
				do(FactArrived{Event: facts.Event(known)})
			case 1:
				ev := facts.Event(known)
				ev.Kind = &whisperv1.Event_AttemptFailed{AttemptFailed: &whisperv1.AttemptFailed{
					Attempt: facts.Attempt, Channel: domain.ChannelSocket, Node: facts.Node, Class: whisperv1.FailureClass_FAILURE_CLASS_UNREACHABLE, Incarnation: incarnations[facts.Node],
				}}
				do(FactArrived{Event: ev})
			default:
				hand(facts, known)
			}
		}
		actions := map[string]func(*rapid.T){
			"broadcast": broadcast, "walk": walk, "walk on": walk, "walk further": walk, "fact": fact, "another fact": fact, "a third fact": fact, "a fourth fact": fact,
			"send": func(t *rapid.T) {
				ev := event(rapid.SampledFrom([]string{"a", "b", "cast1"}).Draw(t, "note"), user.Draw(t, "user"))
				ev.Kind = &whisperv1.Event_DeliveryAccepted{DeliveryAccepted: accepted(t)}
				do(DeliveryArrived{Event: ev, Source: LaneOffset{domain.Low, n}})
			},
			"steer": func(t *rapid.T) {
				notes := []string{"cast1"}
				for _, w := range as.broadcasts.order {
					notes = append(notes, w.note())
				}
				steer(t, rapid.SampledFrom(notes).Draw(t, "cast"))
			},
			"connect":     func(t *rapid.T) { connects(user.Draw(t, "user"), node.Draw(t, "node")) },
			"leave":       func(t *rapid.T) { do(PresenceChanged{User: user.Draw(t, "user"), Node: node.Draw(t, "node")}) },
			"a node ends": func(t *rapid.T) { do(NodeChanged{Node: node.Draw(t, "node")}) },
			"a node starts": func(t *rapid.T) {
				starts(node.Draw(t, "node"))
			},
			"a phone": func(t *rapid.T) {
				n++
				user := user.Draw(t, "user")
				do(ProfilePatched{User: user, Patch: fmt.Appendf(nil, `{"endpoints":{"p":{"channel":"apns","token":"%s","app":"a"}}}`, user), At: now, Offset: n})
			},
			"refuse": func(t *rapid.T) {
				n++
				do(ProfilePatched{User: user.Draw(t, "user"), Patch: []byte(`{"preferences":{"news":{"socket":false}}}`), At: now, Offset: n})
			},
			"erase": func(t *rapid.T) { n++; do(ProfilePatched{User: user.Draw(t, "user"), Offset: n}) },
			"new rules": func(t *rapid.T) {
				declare("pushed", rapid.SampledFrom([]string{`{}`, `{"channels":["push","socket"]}`}).Draw(t, "rules"))
			},
			"time passes": func(t *rapid.T) {
				now = now.Add(rapid.SampledFrom([]time.Duration{0, time.Second, 10 * time.Second, 25 * time.Minute}).Draw(t, "for"))
				do(TimePassed{})
			},
		}
		first := event("first", "")
		first.Kind = &whisperv1.Event_BroadcastAccepted{BroadcastAccepted: &whisperv1.BroadcastAccepted{Partitions: 1, Accepted: accepted(t)}}
		first.GetBroadcastAccepted().GetAccepted().Category, first.GetBroadcastAccepted().GetAccepted().CollapseKey = "news", ""
		do(BroadcastArrived{Event: first, Source: LaneOffset{domain.Low, n}})
		for range users {
			walk(t)
		}
		if len(as.deliveries.flights.at) != len(users) {
			t.Fatalf("%d fly", len(as.deliveries.flights.at))
		}
		one := flying(as)[0]
		acknowledged := domain.AttemptFact{ID: as.broadcasts.get("first").idOf(one.user), User: one.user, AtUS: now.UnixMicro(), Delivered: true}
		if hand(domain.AttemptFacts{Notification: "first", Attempt: firstAttempt, Node: one.node}, acknowledged); len(as.deliveries.flights.at) != len(users)-1 || as.deliveries.inFlight() != len(users)-1 {
			t.Fatalf("%d fly on, %d are in flight", len(as.deliveries.flights.at), as.deliveries.inFlight())
		}
		for range 2 {
			t.Repeat(actions)
		}
	})
}

// told is what outputs say.
func told(out []Output) string {
	var b strings.Builder
	for _, o := range out {
		if settle, is := o.(Settle); is && settle.Seen != nil {
			_, _ = fmt.Fprintf(&b, "\n%T %+v %+v", o, settle.Source, *settle.Seen)
			continue
		}
		_, _ = fmt.Fprintf(&b, "\n%T %+v", o, o)
	}
	return b.String()
}

// aFlight is what facts about one say.
type aFlight struct{ note, user, node string }

// flying are the flights, in a fixed order.
func flying(s *State) (all []aFlight) {
	for _, v := range s.deliveries.flights.waves {
		for _, g := range v.groups {
			for i, state := range g.states {
				if state != noFlight {
					all = append(all, aFlight{v.walk.note(), g.users[i], g.node})
				}
			}
		}
	}
	slices.SortFunc(all, func(a, b aFlight) int { return cmp.Or(cmp.Compare(a.note, b.note), cmp.Compare(a.user, b.user)) })
	return all
}
