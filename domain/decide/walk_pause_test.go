package decide_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/decide"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// cast is a broadcast to everyone of the desk, walked to its end. What its slices say is left out.
func (d *desk) cast(note, category string, change func(*whisperv1.BroadcastAccepted)) []string {
	d.t.Helper()
	d.cursors = true
	d.n++
	in := broadcast(note, "")
	id := domain.NewDeliveryID(d.now, domain.HashDelivery(note, ""))
	in.Event.DeliveryId, in.Source.Offset = id[:], d.n
	acc := in.Event.GetBroadcastAccepted().GetAccepted()
	acc.Category, acc.AcceptedAtMs, acc.ExpiresAtMs = category, d.now.UnixMilli(), d.now.Add(72*time.Hour).UnixMilli()
	acc.Request.Offset = d.n
	if change != nil {
		change(in.Event.GetBroadcastAccepted())
	}
	words := d.do(in)
	for range 4 {
		words = append(words, d.do(decide.WalkOn{Lane: domain.Low})...)
	}
	return slices.DeleteFunc(words, aboutWalk)
}

func (d *desk) steer(command, note string) []string {
	d.t.Helper()
	return slices.DeleteFunc(d.do(steer(command, note)), aboutWalk)
}

// aboutWalk: it tells how far a broadcast is.
func aboutWalk(word string) bool {
	for _, said := range []string{"slice ", "advanced to ", "pause ", "resume ", "finished"} {
		if strings.HasPrefix(word, said) {
			return true
		}
	}
	return strings.Contains(word, " for ") && !strings.Contains(word, "route")
}

// TestAPauseHoldsWaitingDeliveries: whatever a delivery of a broadcast waited for, it is not begun with until the
// broadcast is resumed, nor after a restart in between; and then it is.
func TestAPauseHoldsWaitingDeliveries(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		rules  string
		key    string
		setUp  func(d *desk)
		cast   []string
		during func(d *desk) []string
	}{
		"the end of quiet hours": {
			rules: `{}`, cast: []string{"news deferred quiet_hours"},
			setUp: func(d *desk) {
				d.user("mona", `{"timezone":"UTC","quiet_hours":{"from":"09:00","to":"11:00"}}`)
				d.connect("mona")
			},
			during: func(d *desk) []string { return d.pass(2 * time.Hour) },
		},
		"a profile without quiet hours": {
			rules: `{}`, cast: []string{"news deferred quiet_hours"},
			setUp: func(d *desk) {
				d.user("mona", `{"timezone":"UTC","quiet_hours":{"from":"09:00","to":"11:00"}}`)
				d.connect("mona")
			},
			during: func(d *desk) []string { d.user("mona", `{"quiet_hours":null}`); return d.pass(time.Second) },
		},
		"a cap": {
			rules: `{"caps":[{"n":1,"per":"hour"}],"over_cap":"defer"}`, cast: []string{"news deferred cap"},
			setUp: func(d *desk) {
				d.user("mona", `{"locale":"en"}`)
				d.connect("mona")
				d.want(d.send("first", "mona", "some"), "route first #1 to n1")
				d.ack("first", "mona")
			},
			during: func(d *desk) []string { return d.pass(2 * time.Hour) },
		},
		"its user, with a collapse key": {
			rules: `{}`, key: "k", cast: []string{"news deferred away"},
			setUp:  func(d *desk) { d.user("mona", `{"locale":"en"}`) },
			during: func(d *desk) []string { d.n++; return d.do(here("mona", "n1", "late", 1)) },
		},
		"others for a digest": {
			rules: `{"digest":{"window":"10m","template":"none","min":1}}`, cast: []string{"news deferred digest"},
			setUp: func(d *desk) {
				d.user("mona", `{"locale":"en"}`)
				d.connect("mona")
			},
			during: func(d *desk) []string { return d.pass(11 * time.Minute) },
		},
	} {
		for _, restart := range []string{"", "while it is paused", "and once more when it was resumed"} {
			t.Run(name+" "+restart, func(t *testing.T) {
				t.Parallel()
				d := newDesk(t)
				d.category("some", tc.rules)
				tc.setUp(d)
				d.want(d.cast("news", "some", func(b *whisperv1.BroadcastAccepted) { b.Accepted.CollapseKey = tc.key }), tc.cast...)
				d.want(d.steer("pause", "news"))
				again := func() {
					d.restart()
					d.category("some", tc.rules)
					d.connect("mona")
					d.pass(time.Second)
				}
				held := slices.DeleteFunc(tc.during(d), func(w string) bool {
					return strings.HasPrefix(w, "notice") ||
						w == "unknown_digest_template none"
				})
				d.want(held)
				if restart != "" {
					again()
				}
				d.want(d.pass(time.Second))
				got := d.steer("resume", "news")
				if strings.HasPrefix(restart, "and") {
					again()
				}
				got = append(got, d.pass(time.Second)...)
				if sent := d.sent("news"); sent != 1 {
					t.Fatalf("it was sent %d times once it was resumed: %q", sent, got)
				}
			})
		}
	}
}

// An intake that was stopped writes the commands that it held after its successor wrote them, and later ones.
func TestACommandThatComesLateAgainSteersNothing(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.category("some", `{}`)
	for _, user := range []string{"mona", "omar", "sara"} {
		d.user(user, `{"locale":"en"}`)
	}
	d.cast("news", "some", nil)
	command := func(name string, partition int32, offset int64) {
		in := steer(name, "news").(decide.SteeringArrived)
		request := &whisperv1.Position{Topic: "whisper.requests.low", Partition: partition, Offset: offset}
		switch k := in.Event.GetKind().(type) {
		case *whisperv1.Event_PauseRequested:
			k.PauseRequested.Request = request
		case *whisperv1.Event_ResumeRequested:
			k.ResumeRequested.Request = request
		}
		d.do(in)
	}
	goesOut := func(user string) bool { // to one who connects now
		before := d.sent("news")
		d.connect(user)
		return d.sent("news") > before
	}
	command("pause", 3, 10)
	command("resume", 3, 11)
	command("pause", 3, 10)
	d.restart()
	d.category("some", `{}`)
	command("pause", 3, 10)
	if !goesOut("mona") {
		t.Error("a pause from before the resume holds the broadcast")
	}
	command("pause", 3, 12)
	command("resume", 3, 11)
	if goesOut("omar") {
		t.Error("a resume from before the pause lets it go")
	}
	command("resume", 4, 2) // of another partition: nothing says which came first
	if !goesOut("sara") {
		t.Error("a resume of another partition lets nothing go")
	}
}

// sent counts the records to nodes.
func (d *desk) sent(note string) (n int) {
	for _, o := range d.out {
		if r, ok := o.(decide.RouteTo); ok && r.Route.GetNotificationId() == note && !r.Route.GetRetract() {
			n++
		}
	}
	return n
}
