package decide_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/category"
	"github.com/klivvr/whisper/domain/decide"
	"github.com/klivvr/whisper/domain/whisperv1"
)

func steer(command, note string) decide.Input {
	source := decide.LaneOffset{Lane: domain.Low, Offset: 9}
	ev := &whisperv1.Event{NotificationId: note, Lane: whisperv1.Lane_LANE_LOW, AtUs: at(0).UnixMicro()}
	switch command {
	case "cancel":
		return decide.CancelArrived{Event: ev, Source: source}
	case "pause":
		ev.Kind = &whisperv1.Event_PauseRequested{PauseRequested: &whisperv1.PauseRequested{}}
	case "resume":
		ev.Kind = &whisperv1.Event_ResumeRequested{ResumeRequested: &whisperv1.ResumeRequested{}}
	case "retract":
		ev.Kind = &whisperv1.Event_RetractRequested{RetractRequested: &whisperv1.RetractRequested{}}
	}
	return decide.SteeringArrived{Event: ev, Source: source}
}

func with(b decide.BroadcastArrived, change func(*whisperv1.BroadcastAccepted)) decide.BroadcastArrived {
	change(b.Event.GetBroadcastAccepted())
	return b
}

func TestBroadcastDecisions(t *testing.T) {
	t.Parallel()
	user := func(name, patch string, offset int64) step {
		return step{0, decide.ProfilePatched{User: name, Patch: []byte(patch), At: t0, Offset: offset}, []string{"put " + name}}
	}
	people := []step{
		user("ann", `{"locale":"en","timezone":"Africa/Cairo"}`, 1), user("bob", `{"locale":"ar","attributes":{"vip":true}}`, 2),
		user("cay", `{"locale":"en","attributes":{"vip":true}}`, 3),
		{0, n1, nil},
	}
	walk := decide.WalkOn{Lane: domain.Low}
	taken := []string{"park", "running 0/0 for 0", "settle 1"}
	tests := map[string][]step{
		"connected users share a record, the others wait and are woken": {
			{0, here("bob", "n1", "s1", 1), nil},
			{0, here("cay", "n1", "s2", 1), nil},
			{0, broadcast("news", ""), taken},
			{0, walk, []string{"park first bob,cay", "park", "running 0/3 for 0", "slice 1", "route news #1 to n1 for bob,cay"}},
			{0, walk, []string{"slice 2", "deferred away", "park"}},
			{1, delivered("news", "bob", 1), nil},
			{1, delivered("news", "cay", 1), []string{"advanced to cay"}},
			{2, here("ann", "n1", "s3", 1), []string{"route news #1 to n1"}},
			{3, delivered("news", "ann", 1), []string{"unpark", "walked settled 3/3 for 3", "finished"}},
		},
		"users to whom another broadcast is still open share a record all the same": {
			{0, here("bob", "n1", "s1", 1), nil},
			{0, here("cay", "n1", "s2", 1), nil},
			{0, broadcast("news", ""), taken},
			{0, walk, []string{"park first bob,cay", "park", "running 0/3 for 0", "slice 1", "route news #1 to n1 for bob,cay"}},
			{0, with(broadcast("more", ""), func(b *whisperv1.BroadcastAccepted) { b.Accepted.Request.Offset = 2 }), taken},
			{0, walk, []string{"park first bob,cay", "park", "running 0/3 for 0", "slice 1", "route more #1 to n1 for bob,cay"}},
			{1, delivered("news", "bob", 1), nil},
			{1, delivered("more", "bob", 1), nil},
			{1, delivered("more", "cay", 1), []string{"advanced to "}},
			{1, delivered("news", "cay", 1), []string{"advanced to "}},
		},
		"whoever has only endpoints that nothing serves is away, until one comes that something does": {
			user("dee", `{"attributes":{"own":true},"endpoints":{"web":{"channel":"webpush","token":"ab","app":"a"}}}`, 4),
			user("eve", `{"attributes":{"own":true},"endpoints":{"phone":{"channel":"apns","token":"cd","app":"a"}},"preferences":{"default":{"apns":false}}}`, 5),
			{0, with(broadcast("news", "user.attributes.own"), func(b *whisperv1.BroadcastAccepted) { b.Accepted.Channels = domain.DefaultChannels }), taken},
			{0, walk, []string{"park", "running 0/5 for 0", "slice 1", "deferred away", "park", "deferred away", "park", "advanced to eve"}},
			{1, here("dee", "n1", "s1", 1), []string{"route news #1 to n1"}},
			{2, decide.ProfilePatched{User: "eve", Patch: []byte(`{"preferences":{"default":{"apns":true}}}`), At: t0, Offset: 6}, []string{"put eve", "push news #1 to phone"}},
		},
		"a segment means some; who can't be asked about is not meant": {
			{0, broadcast("news", "user.attributes.vip && user.locale == 'ar'"), taken},
			{0, walk, []string{"park", "running 0/3 for 0", "slice 1", "deferred away", "park", "advanced to cay"}},
			{3600, walk, []string{"advanced to cay"}},
			{3600, walk, []string{"expired ttl", "unpark", "walked settled 3/3 for 1", "park meant", "finished", "remember"}},
		},
		"who comes after it began is not in it": {
			{0, with(broadcast("news", "false"), func(b *whisperv1.BroadcastAccepted) { b.Rate = 1 }), taken},
			{0, walk, nil}, // the rate has nothing to give yet
			{1, walk, []string{"park", "running 0/3 for 0", "slice 1", "advanced to cay", "walked settled 3/3 for 0", "park meant", "finished"}},
		},
		"a pause holds the walk and those who connect": {
			{0, broadcast("news", ""), taken},
			{0, walk, []string{"park", "running 0/3 for 0", "slice 1", "deferred away", "park", "deferred away", "park", "deferred away", "park", "advanced to cay"}},
			{1, steer("pause", "news"), []string{"pause news", "park", "paused 3/3 for 3", "settle 9"}},
			{2, here("bob", "n1", "s1", 1), nil},
			{2, walk, nil},
			{3, steer("resume", "news"), []string{"resume news", "park", "walked 3/3 for 3", "settle 9"}},
			{3, walk, []string{"route news #1 to n1"}},
		},
		"a cancel ends what waits, slice by slice, and counts the rest": {
			{0, with(broadcast("news", ""), func(b *whisperv1.BroadcastAccepted) { b.Accepted.SendAtMs = at(100).UnixMilli() }), []string{"park", "scheduled 0/0 for 0", "settle 1"}},
			{1, walk, nil},
			{2, steer("cancel", "news"), []string{"slice 1", "cancelled 0/3 for 0", "settle 9", "cancel news", "advanced to ", "cancelled settled 0/3 for 0", "finished"}},
		},
		"a cancel that comes first, or of what was tried": {
			{0, steer("cancel", "news"), []string{"settle 9", "cancel news"}},
			{1, broadcast("news", ""), []string{"park", "running 0/0 for 0", "slice 1", "settle 1", "advanced to ", "cancelled settled 0/3 for 0", "finished"}},
			{1, steer("cancel", "pay"), []string{"settle 9", "cancel pay"}},
			{2, arrived("pay", "ann", 7, given{}), []string{"delivery_cancelled", "settle 7"}},
		},
		"an id sends once": {
			{0, broadcast("news", ""), taken},
			{0, broadcast("news", ""), []string{"settle 1"}},
			{0, with(broadcast("news", ""), func(b *whisperv1.BroadcastAccepted) { b.Accepted.Request.Offset = 2 }), []string{"broadcast_dropped", "settle 1"}},
			{1, arrived("news", "ann", 7, given{}), []string{"duplicate_dropped", "settle 7"}},
			{1, steer("pause", "nobody's"), []string{"pause nobody's", "settle 9"}},
		},
		"everybody's own nine o'clock": { // it is 22:13 UTC
			{0, with(broadcast("news", "user.id != 'cay'"), func(b *whisperv1.BroadcastAccepted) {
				b.SendAtLocal = "09:00"
				b.Accepted.ExpiresAtMs = at(200_000).UnixMilli()
			}), taken},
			{0, walk, []string{"park", "running 0/3 for 0", "slice 1", "delivery_scheduled", "park", "delivery_scheduled", "park", "advanced to cay"}},
			{31_600, walk, []string{"deferred away", "park"}}, // 07:00 UTC is 09:00 in Cairo
			{38_800, walk, []string{"deferred away", "park"}}, // 09:00 UTC
		},
		"a retraction reaches who is connected, and who connects": {
			{0, here("ann", "n1", "s1", 1), nil},
			{0, broadcast("news", "user.id == 'ann'"), taken},
			{0, walk, []string{"park first ann", "park", "running 0/3 for 0", "slice 1", "route news #1 to n1 for ann"}},
			{0, walk, []string{"slice 2"}},
			{1, delivered("news", "ann", 1), []string{"advanced to cay", "walked settled 3/3 for 1", "park meant", "finished"}},
			{2, steer("retract", "news"), []string{"settle 9", "retract news", "park", "recall news from 0", "retract at n1 for ann"}},
			{3, here("bob", "n1", "s2", 1), nil},
			{3, here("ann", "n1", "s3", 1), []string{"retract at n1/s3 for ann"}},
			{100_000, decide.TimePassed{}, []string{"unpark", "unpark"}},
		},
		"a retraction of what runs for days, and of what came to its end then": {
			{0, with(broadcast("news", "user.id == 'ann'"), func(b *whisperv1.BroadcastAccepted) { b.Accepted.ExpiresAtMs = at(400_000).UnixMilli() }), taken},
			{0, walk, []string{"park", "running 0/3 for 0", "slice 1", "deferred away", "park", "advanced to cay"}},
			{259_200, decide.TimePassed{}, nil},
			{259_200, here("ann", "n1", "s1", 1), []string{"route news #1 to n1"}},
			{259_201, delivered("news", "ann", 1), []string{"unpark", "walked settled 3/3 for 1", "park meant", "finished", "remember"}},
			{259_300, decide.TimePassed{}, nil},
			{259_300, steer("retract", "news"), []string{"settle 9", "retract news", "park", "recall news from 0", "retract at n1 for ann"}},
		},
		"who is erased waits for nothing": {
			{0, broadcast("news", "user.id == 'bob'"), taken},
			{0, walk, []string{"park", "running 0/3 for 0", "slice 1", "deferred away", "park", "advanced to cay"}},
			{1, decide.ProfilePatched{User: "bob", Offset: 9}, []string{"suppressed erased", "unpark", "forget bob", "user_erased", "walked settled 3/3 for 1", "park meant", "finished"}},
		},
	}
	for name, steps := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := decide.NewState(0, decide.DefaultPolicy())
			s.ReplayDone()
			for i, step := range append(slices.Clone(people), steps...) {
				var got []string
				for _, o := range s.Decide(step.in, at(step.at)) {
					got = append(got, said(o))
				}
				if !slices.Equal(got, step.want) {
					t.Fatalf("step %d (%T at %ds):\n got %q\nwant %q", i-len(people), step.in, step.at, got, step.want)
				}
			}
		})
	}
}

// TestABroadcastSaysWhetherASocketAloneSettlesIt: so does the record that many share.
func TestABroadcastSaysWhetherASocketAloneSettlesIt(t *testing.T) {
	t.Parallel()
	for rules, explicit := range map[string]bool{`{}`: false, `{"mandatory":true}`: true, `{"auto_ack":false}`: true} {
		s := decide.NewState(0, decide.DefaultPolicy())
		s.ReplayDone()
		c, err := category.Parse("fraud", []byte(rules))
		if err != nil {
			t.Fatal(err)
		}
		s.Decide(decide.CategoryChanged{Name: "fraud", Category: c}, at(0))
		s.Decide(n1, at(0))
		for i, name := range []string{"ann", "bob"} {
			s.Decide(decide.ProfilePatched{User: name, Patch: []byte(`{"locale":"en"}`), At: t0, Offset: int64(i)}, at(0))
			s.Decide(here(name, "n1", name, 1), at(0))
		}
		s.Decide(with(broadcast("news", ""), func(b *whisperv1.BroadcastAccepted) { b.Accepted.Category = "fraud" }), at(0))
		shared := 0
		for _, o := range s.Decide(decide.WalkOn{Lane: domain.Low}, at(0)) {
			if r, is := o.(decide.RouteTo); is {
				if shared++; len(r.Route.GetUsers()) != 2 || r.Route.GetExplicitAck() != explicit {
					t.Errorf("%s: route %v", rules, r.Route)
				}
			}
		}
		if shared != 1 {
			t.Errorf("%s: %d shared routes", rules, shared)
		}
	}
}

// TestARateIsKept: a walk sends no more than its share in any second, and not much less; also to those whose hour
// has come, and it does not ask for its turn while it has to wait.
func TestARateIsKept(t *testing.T) {
	t.Parallel()
	for _, local := range []string{"", "22:13"} { // when it is 22:13:20
		t.Run(local, func(t *testing.T) {
			t.Parallel()
			keepsItsRate(t, local)
		})
	}
}

func keepsItsRate(t *testing.T, local string) {
	start := at(0)
	if local != "" {
		start = at(86_400 - 20)
	}
	s := decide.NewState(0, decide.DefaultPolicy())
	s.ReplayDone()
	s.Decide(n1, at(0))
	for i := range 100 {
		name := fmt.Sprint("u", i)
		s.Decide(decide.ProfilePatched{User: name, Patch: []byte(`{"locale":"en"}`), At: t0, Offset: int64(i)}, at(0))
		s.Decide(here(name, "n1", name, 1), at(0))
	}
	s.Decide(with(broadcast("news", ""), func(b *whisperv1.BroadcastAccepted) {
		b.Rate, b.Partitions, b.SendAtLocal = 40, 4, local
		b.Accepted.ExpiresAtMs = at(200_000).UnixMilli()
	}), at(0))
	if local != "" { // who has to wait for the hour does
		s.Decide(decide.WalkOn{Lane: domain.Low}, at(1))
		s.Decide(decide.WalkOn{Lane: domain.Low}, at(2))
	}
	sent, turns := map[int]int{}, 0
	for ms := 0; ms < 20_000; ms += 10 {
		now := start.Add(time.Duration(ms) * time.Millisecond)
		if due, ok := s.WalkDue(domain.Low); !ok || due.After(now) {
			continue
		}
		turns++
		for _, o := range s.Decide(decide.WalkOn{Lane: domain.Low}, now) {
			if r, is := o.(decide.RouteTo); is {
				sent[ms/1000] += max(1, len(r.Route.GetUsers()))
			}
		}
	}
	total := 0
	for second, n := range sent {
		total += n
		if n > 11 {
			t.Errorf("%d in second %d, 10 are its share", n, second)
		}
	}
	if total != 100 || len(sent) > 12 || turns > 250 {
		t.Errorf("%d were sent in %d seconds and %d turns", total, len(sent), turns)
	}
}

var n1 = decide.NodeChanged{Node: "n1", Incarnation: 1}

func delivered(note, user string, attempt int32) decide.FactArrived {
	id := domain.NewDeliveryID(at(0), domain.HashDelivery(note, user))
	return decide.FactArrived{Event: &whisperv1.Event{
		DeliveryId: id[:], NotificationId: note, UserId: user, AtUs: at(0).UnixMicro(),
		Kind: &whisperv1.Event_DeliveryDelivered{DeliveryDelivered: &whisperv1.DeliveryDelivered{Attempt: attempt, Channel: domain.ChannelSocket, Node: "n1"}},
	}}
}
