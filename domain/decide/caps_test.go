package decide_test

import (
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/decide"
	"github.com/klivvr/whisper/domain/whisperv1"
)

func TestCaps(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.category("promo", `{"caps":[{"n":2,"per":"day"}]}`)
	d.category("hourly", `{"caps":[{"n":1,"per":"hour"}],"over_cap":"defer"}`)
	d.category("all", `{"caps":[{"n":4,"per":"week","by":"user"}]}`)
	d.user("mona", `{"timezone":"Africa/Cairo"}`)
	d.connect("mona")
	d.want(d.send("p1", "mona", "promo"), "route p1 #1 to n1")
	d.ack("p1", "mona")
	d.want(d.send("p2", "mona", "promo.shoes"), "route p2 #1 to n1") // an undeclared child shares its caps
	d.ack("p2", "mona")
	d.want(d.send("p3", "mona", "promo"), "p3 suppressed cap")
	k := d.events[len(d.events)-1].GetDeliverySuppressed()
	if k.GetCap() != "2 per day by user_category" || k.GetCount() != 2 || k.GetCategory() != "promo" {
		t.Errorf("the fact says %v", k)
	}
	d.want(d.send("h1", "mona", "hourly"), "route h1 #1 to n1")
	d.ack("h1", "mona")
	d.now = d.now.Add(10 * time.Minute)
	d.want(d.send("h2", "mona", "hourly"), "h2 deferred cap")
	d.restart()
	d.category("promo", `{"caps":[{"n":2,"per":"day"}]}`)
	d.category("hourly", `{"caps":[{"n":1,"per":"hour"}],"over_cap":"defer"}`)
	d.category("all", `{"caps":[{"n":4,"per":"week","by":"user"}]}`)
	d.user("mona", `{"timezone":"Africa/Cairo"}`)
	d.connect("mona")
	d.want(d.send("p4", "mona", "promo"), "p4 suppressed cap")
	d.want(d.pass(50*time.Minute - time.Millisecond))
	d.want(d.pass(time.Millisecond), "route h2 #1 to n1")
	d.ack("h2", "mona")
	d.want(d.send("a1", "mona", "all"), "a1 suppressed cap") // 4 of all categories with caps this week
	d.now = time.Date(2026, 11, 24, 21, 59, 0, 0, time.UTC)  // the last minute of the day there
	d.want(d.send("p5", "mona", "promo"), "p5 suppressed cap")
	d.now = d.now.Add(time.Minute)
	d.want(d.send("p6", "mona", "promo"), "route p6 #1 to n1")
	d.want(d.send("a2", "mona", "all"), "a2 suppressed cap")
	d.now = time.Date(2026, 11, 29, 22, 0, 0, 0, time.UTC) // Monday there
	d.want(d.send("a3", "mona", "all"), "route a3 #1 to n1")
}

// TestOnlyWhatIsSentCounts: who is away, retries, and duplicates do not use up a cap.
func TestOnlyWhatIsSentCounts(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.category("promo", `{"caps":[{"n":1,"per":"day"}]}`)
	d.user("mona", `{}`)
	d.want(d.send("a", "mona", "promo"), "a deferred away")
	d.want(d.send("b", "mona", "promo"), "b deferred away")
	d.n++
	p := here("mona", "n1", "s1", 1)
	d.want(d.do(p), "route a #1 to n1", "b suppressed cap")
	d.want(d.pass(10*time.Second), "a deferred unacknowledged") // nobody acknowledged: it waits and comes again
	if len(d.counts) != 1 {
		t.Fatalf("counted %v", d.counts)
	}
	d.now = d.now.Add(time.Hour)
	d.want(d.do(decide.TimePassed{}), "route a #2 to n1")
	if len(d.counts) != 1 {
		t.Errorf("a second attempt was counted: %v", d.counts)
	}
}

// TestACountFromBeforeAnErasureIsNotTakenForAnother: a is counted, and dispatch dies before it is sent. The
// user is forgotten before a comes again, and in the same millisecond b is counted, which must stand in the
// way of both a and c.
func TestACountFromBeforeAnErasureIsNotTakenForAnother(t *testing.T) {
	t.Parallel()
	const promo = `{"caps":[{"n":1,"per":"day"}]}`
	forget := decide.ProfilePatched{User: "mona", Offset: 100, At: noon}
	begin := func(t *testing.T) *desk {
		d := newDesk(t)
		d.category("promo", promo)
		d.connect("mona")
		return d
	}
	for name, erase := range map[string]func(d *desk, before []decide.Count){
		"after the restart": func(d *desk, before []decide.Count) {
			d.s.RestoreCounted(before...)
			d.connectAgain(promo)
			d.want(d.do(forget), "uncount mona", "user_erased")
		},
		"in the log": func(d *desk, before []decide.Count) {
			d.s.RestoreCounted(before...)
			d.s.RestoreUncounted("mona")
			d.connectAgain(promo)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := begin(t)
			a := d.delivery("a", "mona", "promo", nil)
			d.want(d.do(a), "route a #1 to n1") // the count is written, the route is not
			d.s = decide.NewState(0, decide.DefaultPolicy())
			erase(d, d.counts)
			d.want(d.send("b", "mona", "promo"), "route b #1 to n1")
			d.want(d.do(a), "a suppressed cap")
			d.want(d.send("c", "mona", "promo"), "c suppressed cap")
		})
	}
}

// TestAWalkKnowsItsOwnCountsAfterARestart: a user of a broadcast is counted, and dispatch dies before anything is
// sent. What was counted for them must not keep from them what it was counted for, and is counted once.
func TestAWalkKnowsItsOwnCountsAfterARestart(t *testing.T) {
	t.Parallel()
	const promo = `{"caps":[{"n":1,"per":"day"}]}`
	walk := decide.WalkOn{Lane: domain.Low}
	d := newDesk(t)
	d.category("promo", promo)
	d.user("mona", `{"locale":"en"}`)
	d.connect("mona")
	in := broadcast("news", "")
	acc := in.Event.GetBroadcastAccepted().GetAccepted()
	acc.Category, acc.ExpiresAtMs = "promo", noon.Add(time.Hour).UnixMilli()
	d.do(in)
	if got := d.do(walk); !slices.Contains(got, "route news #1 to n1 for mona") || len(d.counts) != 1 {
		t.Fatalf("%q, counted %v", got, d.counts)
	}

	d.s = decide.NewState(0, decide.DefaultPolicy()) // the count and the walk are written, the route is not
	encoded, err := proto.Marshal(&whisperv1.Profile{Locale: "en"})
	if err != nil {
		t.Fatal(err)
	}
	d.s.RestoreUser("mona", encoded)
	d.s.RestoreCounted(d.counts...)
	for _, key := range slices.Sorted(mapsKeys(d.parked)) {
		d.s.RestoreParked(proto.CloneOf(d.parked[key]))
	}
	d.connectAgain(promo)
	d.s.ReplayDone()
	d.do(decide.TimePassed{})
	if got := d.do(walk); !slices.Contains(got, "route news #1 to n1 for mona") {
		t.Fatalf("%q", got)
	}
	d.want(d.send("other", "mona", "promo"), "other suppressed cap")
	if k := d.events[len(d.events)-1].GetDeliverySuppressed(); k.GetCount() != 1 {
		t.Errorf("counted %d", k.GetCount())
	}
}

// TestAWalkCountsHandledAndForgottenUsers: dispatch dies when it has sent to users behind its cursor. Two of them are
// forgotten, so that only facts know them: mona has it, and of omar nobody can say.
func TestAWalkCountsHandledAndForgottenUsers(t *testing.T) {
	t.Parallel()
	walk := decide.WalkOn{Lane: domain.Low}
	d := newDesk(t)
	in := broadcast("news", "")
	in.Event.GetBroadcastAccepted().GetAccepted().ExpiresAtMs = noon.Add(time.Hour).UnixMilli()
	for _, user := range []string{"ann", "mona", "omar"} {
		d.user(user, `{"locale":"en"}`)
		d.connect(user)
	}
	d.do(in)
	if got := d.do(walk); !slices.Contains(got, "route news #1 to n1 for ann,mona,omar") {
		t.Fatalf("%q", got)
	}

	d.s = decide.NewState(0, decide.DefaultPolicy())
	encoded, err := proto.Marshal(&whisperv1.Profile{Locale: "en"})
	if err != nil {
		t.Fatal(err)
	}
	d.s.RestoreUser("ann", encoded)
	for _, key := range slices.Sorted(mapsKeys(d.parked)) {
		d.s.RestoreParked(proto.CloneOf(d.parked[key]))
	}
	cast := domain.DeliveryID(in.Event.GetDeliveryId())
	fact := func(user string, ev *whisperv1.Event) {
		id := domain.NewDeliveryID(cast.Time(), domain.HashDelivery("news", user))
		ev.DeliveryId, ev.NotificationId, ev.UserId, ev.AtUs = id[:], "news", user, d.now.UnixMicro()
		d.do(decide.FactArrived{Event: ev})
	}
	fact("mona", &whisperv1.Event{Kind: &whisperv1.Event_DeliveryDelivered{DeliveryDelivered: &whisperv1.DeliveryDelivered{
		Attempt: 1,
		Channel: "socket",
	}}})
	fact("omar", &whisperv1.Event{Kind: &whisperv1.Event_AttemptFailed{AttemptFailed: &whisperv1.AttemptFailed{
		Attempt: 1, Channel: "socket", Node: "n1", Class: whisperv1.FailureClass_FAILURE_CLASS_UNKNOWN,
	}}})
	d.do(decide.NodeChanged{Node: "n1", Incarnation: 1})
	d.s.ReplayDone()
	d.do(decide.TimePassed{})
	// The pass of who was connected, and with it of everyone of whom the facts tell.
	d.want(d.do(walk), "slice 1", "news deferred away", "news suppressed erased", "advanced to ")
	if last := d.events[len(d.events)-1]; last.GetUserId() != "omar" {
		t.Errorf("the end is told of %s", last.GetUserId())
	}
	d.want(d.do(walk), "slice 2", "advanced to ann")
	d.connect("ann")
	fact("ann", &whisperv1.Event{Kind: &whisperv1.Event_DeliveryDelivered{DeliveryDelivered: &whisperv1.DeliveryDelivered{
		Attempt: 1,
		Channel: "socket",
	}}})
	d.do(decide.TimePassed{})
	p := d.events[len(d.events)-1].GetBroadcastProgressed()
	if !p.GetSettled() || p.GetMatched() != 3 {
		t.Errorf("%v", p)
	}
}
