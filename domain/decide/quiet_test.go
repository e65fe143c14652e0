package decide_test

import (
	"testing"
	"time"

	"github.com/klivvr/whisper/domain/decide"
	"github.com/klivvr/whisper/domain/whisperv1"
)

const cairo = `{"timezone":"Africa/Cairo","quiet_hours":{"from":"22:00","to":"07:00"}}`

func TestQuietHoursHoldDropAndPass(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.category("news", `{}`)
	d.category("promo", `{"quiet_hours":"drop"}`)
	d.category("chat", `{"quiet_hours":"pass"}`)
	d.category("security", `{"mandatory":true}`)
	d.user("mona", cairo)
	d.connect("mona")
	d.now = time.Date(2026, 11, 24, 21, 0, 0, 0, time.UTC) // 23:00 there
	d.want(d.send("n1", "mona", "news"), "n1 deferred quiet_hours")
	d.want(d.send("p", "mona", "promo"), "p suppressed quiet_hours")
	d.want(d.send("c", "mona", "chat"), "route c #1 to n1")
	d.want(d.send("s", "mona", "security"), "route s #1 to n1")
	d.connect("mona") // connecting at night wakes nothing that is held
	until := d.events[0].GetDeliveryDeferred().GetUntilMs()
	end := time.Date(2026, 11, 25, 5, 0, 0, 0, time.UTC)
	if at := time.UnixMilli(until); at.Before(end) || at.After(end.Add(15*time.Minute)) {
		t.Fatalf("held until %s", at.UTC())
	}
	d.ack("c", "mona")
	d.ack("s", "mona")
	d.restart()
	d.user("mona", cairo)
	d.connect("mona")
	d.category("news", `{}`)
	d.now = time.UnixMilli(until - 1)
	d.want(d.pass(0))
	d.want(d.pass(time.Millisecond), "route n1 #1 to n1")
}

// TestANewerDeliveryDoesNotOvertakeOneSpreadOverTheMorning: a user's lane stays in order.
func TestANewerDeliveryDoesNotOvertakeOneSpreadOverTheMorning(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.category("news", `{}`)
	d.user("mona", cairo)
	d.connect("mona")
	d.now = time.Date(2026, 11, 24, 21, 0, 0, 0, time.UTC)
	d.want(d.send("a", "mona", "news"), "a deferred quiet_hours")
	d.want(d.send("b", "mona", "news"), "b deferred quiet_hours")
	d.now = time.Date(2026, 11, 25, 5, 0, 0, 0, time.UTC)
	d.want(d.send("c", "mona", "news"), "route a #1 to n1", "route b #1 to n1", "route c #1 to n1")
}

func TestChangedQuietHoursReleaseWaitingDeliveries(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.category("news", `{}`)
	d.user("mona", cairo)
	d.connect("mona")
	d.now = time.Date(2026, 11, 24, 21, 0, 0, 0, time.UTC)
	d.want(d.send("a", "mona", "news"), "a deferred quiet_hours")
	d.n++
	d.want(d.do(decide.ProfilePatched{User: "mona", Patch: []byte(`{"quiet_hours":null}`), At: d.now, Offset: d.n}), "route a #1 to n1")
}

func TestAHeldDeliveryThatExpiresSaysWhatItWaitedFor(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.category("news", `{}`)
	d.user("mona", cairo)
	d.now = time.Date(2026, 11, 24, 21, 0, 0, 0, time.UTC)
	d.want(d.do(d.delivery("a", "mona", "news", func(acc *whisperv1.DeliveryAccepted) { acc.ExpiresAtMs = d.now.Add(time.Hour).UnixMilli() })), "a deferred quiet_hours")
	d.want(d.pass(time.Hour), "a expired quiet_hours")
}
