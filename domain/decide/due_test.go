package decide_test

import (
	"testing"
	"time"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/decide"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// due is what the last attempt of a notification says of when it was due; the request's time is 0.
func (d *desk) due(notification string) (due time.Time) {
	d.t.Helper()
	found := false
	for _, o := range d.out {
		var ms int64
		if r, ok := o.(decide.RouteTo); ok && r.Route.GetNotificationId() == notification {
			ms = r.Route.GetDueMs()
		} else if p, ok := o.(decide.PushTo); ok && p.Push.GetNotificationId() == notification {
			ms = p.Push.GetDueMs()
		} else {
			continue
		}
		if found, due = true, (time.Time{}); ms > 0 {
			due = time.UnixMilli(ms)
		}
	}
	if !found {
		d.t.Fatalf("no attempt of %s", notification)
	}
	return due
}

// TestAnAttemptSaysSinceWhenItWasDue: what held it is not Whisper's own time, also where dispatch was restarted meanwhile.
func TestAnAttemptSaysSinceWhenItWasDue(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		rules string
		run   func(d *desk, again func()) (due time.Time) // zero: with its request
	}{
		"at once": {`{}`, func(d *desk, _ func()) time.Time {
			d.connect("mona")
			d.send("n", "mona", "c")
			return time.Time{}
		}},
		"a schedule, and dispatch comes late": {`{}`, func(d *desk, again func()) time.Time {
			d.connect("mona")
			sendAt := d.now.Add(time.Hour)
			d.do(d.delivery("n", "mona", "c", func(acc *whisperv1.DeliveryAccepted) { acc.SendAtMs = sendAt.UnixMilli() }))
			again()
			d.connect("mona")
			d.pass(time.Hour + 3*time.Second)
			return sendAt
		}},
		"quiet hours, and dispatch comes late": {`{}`, func(d *desk, again func()) time.Time {
			d.user("mona", cairo)
			d.connect("mona")
			d.now = time.Date(2026, 11, 24, 21, 0, 0, 0, time.UTC)
			d.send("n", "mona", "c")
			until := time.UnixMilli(d.events[len(d.events)-1].GetDeliveryDeferred().GetUntilMs())
			again()
			d.connect("mona")
			d.now = until.Add(5 * time.Second)
			d.pass(0)
			return until
		}},
		"quiet hours that are taken back": {`{}`, func(d *desk, _ func()) time.Time {
			d.user("mona", cairo)
			d.connect("mona")
			d.now = time.Date(2026, 11, 24, 21, 0, 0, 0, time.UTC)
			d.send("n", "mona", "c")
			d.now = d.now.Add(time.Minute)
			d.user("mona", `{"quiet_hours":null}`)
			return d.now
		}},
		"absence, then no acknowledgement": {`{}`, func(d *desk, again func()) time.Time {
			d.user("mona", `{"locale":"en"}`)
			d.send("n", "mona", "c")
			again()
			d.now = d.now.Add(time.Hour)
			back := d.now
			d.connect("mona")
			for range 3 {
				d.pass(10 * time.Second) // sent again: that it takes this long is Whisper's own time
			}
			return back
		}},
		"the rate of a broadcast": {`{}`, func(d *desk, _ func()) time.Time {
			d.user("mona", `{"locale":"en"}`)
			d.connect("mona")
			d.cast("n", "c", func(b *whisperv1.BroadcastAccepted) { b.Rate, b.Partitions = 0.1, 1 })
			d.now = d.now.Add(20 * time.Second)
			for range 4 {
				d.do(decide.WalkOn{Lane: domain.Low})
			}
			return d.now
		}},
	} {
		for _, restart := range []bool{false, true} {
			d := newDesk(t)
			d.category("c", tt.rules)
			again := func() {}
			if restart {
				again = func() { d.restart(); d.category("c", tt.rules) }
			}
			if want, got := tt.run(d, again), d.due("n"); !got.Equal(want) {
				t.Errorf("%s, restart %t: due at %s, want %s", name, restart, got.UTC(), want.UTC())
			}
		}
	}
}

// TestAParkedAttemptKeepsWhenItWasDue: its offset was let go, and dispatch is restarted before it is tried again.
func TestAParkedAttemptKeepsWhenItWasDue(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.category("c", `{}`)
	d.user("mona", `{"locale":"en"}`)
	d.send("n", "mona", "c")
	d.now = d.now.Add(time.Hour)
	back := d.now
	d.connect("mona")
	for range 40 {
		d.pass(10 * time.Second)
	}
	d.restart()
	d.category("c", `{}`)
	d.out = nil
	d.now = d.now.Add(time.Minute)
	d.do(here("mona", "n1", "later", 1))
	for range 40 {
		d.pass(10 * time.Second)
	}
	if got := d.due("n"); !got.Equal(back) {
		t.Errorf("due at %s, want %s", got.UTC(), back.UTC())
	}
}
