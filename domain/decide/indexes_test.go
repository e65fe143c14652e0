package decide

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/category"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// TestIndexesKnowWhatAScanFinds: whatever is decided in whatever order, what is asked of deliveries by an index is what a look at all
// of them finds.
func TestIndexesKnowWhatAScanFinds(t *testing.T) {
	t.Parallel()
	const night = `{"timezone":"Africa/Cairo","quiet_hours":{"from":"22:00","to":"07:00"}}`
	rapid.Check(t, func(t *rapid.T) {
		policy := DefaultPolicy()
		policy.IndexFrom, policy.Due, policy.Slice = rapid.IntRange(1, 3).Draw(t, "index from"), rapid.IntRange(1, 3).Draw(t, "due"), 1
		s, now, n := NewState(0, policy), time.Date(2026, 11, 24, 21, 0, 0, 0, time.UTC), int64(0)
		parked, aloft := map[domain.DeliveryID]*whisperv1.Parked{}, rapid.Bool().Draw(t, "flights stay")
		var routed []*whisperv1.Route
		took := func(out []Output) {
			for _, o := range out {
				if route, is := o.(RouteTo); is {
					routed = append(routed, route.Route)
				}
				if park, is := o.(Park); is {
					parked[park.ID] = park.Parked
				}
				if unpark, is := o.(Unpark); is {
					delete(parked, unpark.ID)
				}
			}
			checkFlights(t, &s.deliveries)
			checkBroadcasts(t, &s.broadcasts)
			if !aloft {
				s.deliveries.takeUpIf(anyWave, anyRecord)
			}
			if len(s.deliveries.flights.at) == 0 { // a look at them takes them up
				checkIndexes(t, &s.deliveries)
			}
		}
		do := func(in Input) { took(s.Decide(in, now)) }
		user, node := rapid.SampledFrom([]string{"mona", "ali"}), rapid.SampledFrom([]string{"n1", "n2"})
		lane, note := rapid.SampledFrom(domain.Lanes[:]), rapid.SampledFrom([]string{"a", "b", "c", "d", "e", "f"})
		incarnations := map[string]uint64{}
		event := func(note, user string) *whisperv1.Event {
			n++
			now = now.Add(time.Millisecond)
			id := domain.NewDeliveryID(now, domain.HashDelivery(note, user))
			return &whisperv1.Event{DeliveryId: id[:], NotificationId: note, UserId: user, AtUs: now.UnixMicro()}
		}
		source := func(ev *whisperv1.Event, lane domain.Lane) LaneOffset {
			ev.Lane = lane.Proto()
			return LaneOffset{lane, n}
		}
		accepted := func(t *rapid.T) *whisperv1.DeliveryAccepted {
			return &whisperv1.DeliveryAccepted{
				Category:    rapid.SampledFrom([]string{"held", "told", "passes", "all"}).Draw(t, "category"),
				CollapseKey: rapid.SampledFrom([]string{"", "", "key", "other"}).Draw(t, "collapse key"),
				Channels:    []string{domain.ChannelSocket}, ChannelsDefault: true, Content: &whisperv1.Content{Body: "b"},
				AcceptedAtMs: now.UnixMilli(), ExpiresAtMs: now.Add(20 * time.Hour).UnixMilli(), Request: &whisperv1.Position{Topic: "r", Offset: n}, Recipients: 1,
			}
		}
		declare := func(name, rules string) {
			c, err := category.Parse(name, []byte(rules))
			if err != nil {
				t.Fatal(err)
			}
			do(CategoryChanged{Name: name, Category: c})
		}
		rules := func() {
			declare("held", `{}`)
			declare("told", `{"digest":{"window":"20m","template":"none"}}`)
			declare("passes", `{"quiet_hours":"pass"}`)
			declare("all", `{"all_channels":["socket","push"]}`)
		}
		rules()
		actions := map[string]func(*rapid.T){
			"send": func(t *rapid.T) {
				ev := event(fmt.Sprint(note.Draw(t, "note"), n), user.Draw(t, "user"))
				ev.Kind = &whisperv1.Event_DeliveryAccepted{DeliveryAccepted: accepted(t)}
				do(DeliveryArrived{Event: ev, Source: source(ev, lane.Draw(t, "lane"))})
			},
			"send one id to all": func(t *rapid.T) {
				ev := event(note.Draw(t, "note"), user.Draw(t, "user"))
				ev.Kind = &whisperv1.Event_DeliveryAccepted{DeliveryAccepted: accepted(t)}
				do(DeliveryArrived{Event: ev, Source: source(ev, lane.Draw(t, "lane"))})
			},
			"broadcast": func(t *rapid.T) {
				ev := event(fmt.Sprint("cast", n%4), "")
				ev.Kind = &whisperv1.Event_BroadcastAccepted{BroadcastAccepted: &whisperv1.BroadcastAccepted{Partitions: 1, Accepted: accepted(t)}}
				do(BroadcastArrived{Event: ev, Source: source(ev, domain.Low)})
			},
			"walk":    func(*rapid.T) { do(WalkOn{Lane: domain.Low}) },
			"walk on": func(*rapid.T) { do(WalkOn{Lane: domain.Low}) },
			"pause or resume": func(t *rapid.T) {
				ev := event(fmt.Sprint("cast", rapid.IntRange(0, 3).Draw(t, "cast")), "")
				ev.Kind = &whisperv1.Event_PauseRequested{PauseRequested: &whisperv1.PauseRequested{Request: &whisperv1.Position{
					Topic:  "r",
					Offset: n,
				}}}
				if rapid.Bool().Draw(t, "resume") {
					ev.Kind = &whisperv1.Event_ResumeRequested{ResumeRequested: &whisperv1.ResumeRequested{Request: &whisperv1.Position{
						Topic:  "r",
						Offset: n,
					}}}
				}
				do(SteeringArrived{Event: ev, Source: source(ev, domain.Low)})
			},
			"cancel": func(t *rapid.T) {
				ev := event(rapid.SampledFrom([]string{"a", "b", "cast0", "cast1"}).Draw(t, "cancelled"), "")
				ev.Kind = &whisperv1.Event_CancelRequested{CancelRequested: &whisperv1.CancelRequested{}}
				do(CancelArrived{Event: ev, Source: source(ev, domain.Low)})
			},
			"connect": func(t *rapid.T) {
				user, node := user.Draw(t, "user"), node.Draw(t, "node")
				n++
				do(PresenceChanged{User: user, Node: node, Presence: &whisperv1.Presence{
					UserId: user, Node: node, Incarnation: incarnations[node], Sessions: 1, LatestSession: fmt.Sprint(n), AtUs: now.UnixMicro(),
				}})
			},
			"leave":       func(t *rapid.T) { do(PresenceChanged{User: user.Draw(t, "user"), Node: node.Draw(t, "node")}) },
			"a node ends": func(t *rapid.T) { do(NodeChanged{Node: node.Draw(t, "node")}) },
			"a node starts": func(t *rapid.T) {
				at := node.Draw(t, "node")
				incarnations[at]++
				do(NodeChanged{Node: at, Incarnation: incarnations[at]})
			},
			"sleep": func(t *rapid.T) {
				n++
				do(ProfilePatched{User: user.Draw(t, "user"), Patch: []byte(night), At: now, Offset: n})
			},
			"sleep on": func(t *rapid.T) {
				n++
				do(ProfilePatched{User: user.Draw(t, "user"), Patch: []byte(night), At: now, Offset: n})
			},
			"wake": func(t *rapid.T) {
				n++
				do(ProfilePatched{User: user.Draw(t, "user"), Patch: []byte(`{"quiet_hours":null}`), At: now, Offset: n})
			},
			"erase": func(t *rapid.T) { n++; do(ProfilePatched{User: user.Draw(t, "user"), Offset: n}) },
			"new rules": func(t *rapid.T) {
				declare("held", rapid.SampledFrom([]string{`{}`, `{"quiet_hours":"pass"}`}).Draw(t, "rules"))
			},
			"acknowledge": func(t *rapid.T) {
				if len(routed) == 0 {
					return
				}
				r := rapid.SampledFrom(routed).Draw(t, "route")
				do(FactArrived{Event: &whisperv1.Event{
					DeliveryId: r.GetDeliveryId(), NotificationId: r.GetNotificationId(), AtUs: now.UnixMicro(), UserId: "mona",
					Kind: &whisperv1.Event_DeliveryDelivered{DeliveryDelivered: &whisperv1.DeliveryDelivered{Attempt: r.GetAttempt(), Channel: domain.ChannelSocket}},
				}})
			},
			"time passes": func(t *rapid.T) {
				now = now.Add(rapid.SampledFrom([]time.Duration{0, time.Second, 15 * time.Second, 25 * time.Minute, 8 * time.Hour}).Draw(t, "for"))
				do(TimePassed{})
			},
			"restart": func(*rapid.T) {
				s = NewState(0, policy)
				for _, p := range parked {
					s.RestoreParked(p)
				}
				rules()
				s.ReplayDone()
				for node, incarnation := range incarnations {
					do(NodeChanged{Node: node, Incarnation: incarnation})
				}
				took(s.Resume(now))
			},
		}
		for range 3 {
			t.Repeat(actions)
		}
		for range 1_000 { // everything ends
			now = now.Add(time.Hour)
			for due, any := s.NextDue(); any && !due.After(now); due, any = s.NextDue() {
				do(TimePassed{})
			}
			for at, any := s.WalkDue(domain.Low); any && !at.After(now); at, any = s.WalkDue(domain.Low) {
				do(WalkOn{Lane: domain.Low})
			}
			if len(s.deliveries.byHash)+len(s.deliveries.flights.at) == 0 {
				break
			}
		}
		h := &s.deliveries
		if len(h.byHash)+len(h.byUser)+len(h.indexes)+len(h.notes)+len(h.resting)+len(h.ready.of) > 0 || h.atSockets.latest != nil ||
			h.hastened > 0 {
			t.Fatalf("something is left: %+v", h)
		}
	})
}
