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

func TestPreferencesAndUnsubscribe(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.category("marketing", `{}`)
	d.category("security", `{"mandatory":true}`)
	d.connect("mona")
	d.user("mona", `{"preferences":{"marketing":{"socket":false}},"endpoints":{"phone":{"channel":"apns","token":"t"}}}`)
	d.want(d.send("a", "mona", "marketing"), "push a #1 to phone")
	d.user("mona", `{"preferences":{"marketing":{"push":false}}}`)
	d.want(d.send("b", "mona", "marketing.cards"), "b suppressed preference")
	d.user("mona", `{"preferences":{"marketing":{"all":false}}}`)
	d.user("mona", `{"preferences":{"marketing":{"socket":true,"apns":true,"push":true}}}`) // an app registers again
	d.want(d.send("c", "mona", "marketing"), "c suppressed unsubscribed")
	d.want(d.send("e", "mona", "security"), "route e #1 to n1")
	d.user("mona", `{"preferences":{"marketing":{"all":null}}}`)
	d.want(d.send("f", "mona", "marketing"), "route f #1 to n1")
}

// TestAnUnsubscribeEndsWaitingDeliveries: what was accepted before is not sent after.
func TestAnUnsubscribeEndsWaitingDeliveries(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.category("marketing", `{}`)
	d.user("mona", `{"locale":"ar"}`)
	d.want(d.send("a", "mona", "marketing"), "a deferred away")
	d.n++
	got := d.do(decide.ProfilePatched{User: "mona", Patch: []byte(`{"preferences":{"marketing":{"all":false}}}`), At: d.now, Offset: d.n})
	d.want(got, "a suppressed unsubscribed")
}

// TestAChangedCategoryReleasesWaitingDeliveries by its old rules; what still waits by the new ones does.
func TestAChangedCategoryReleasesWaitingDeliveries(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		before, after string
		want          []string
	}{
		"quiet hours pass":         {`{}`, `{"quiet_hours":"pass"}`, []string{"route a #1 to n1", "route b #1 to n1"}},
		"mandatory":                {`{}`, `{"mandatory":true}`, []string{"route a #1 to n1", "route b #1 to n1"}},
		"quiet hours drop":         {`{}`, `{"quiet_hours":"drop"}`, []string{"a suppressed quiet_hours", "b suppressed quiet_hours"}},
		"still held":               {`{}`, `{"ack_timeout":"1s"}`, nil},
		"another category":         {`{}`, "", nil},
		"no cap any more":          {`{"quiet_hours":"pass","caps":[{"n":1,"per":"day"}],"over_cap":"defer"}`, `{"quiet_hours":"pass"}`, []string{"route b #1 to n1"}},
		"no digest any more":       {`{"digest":{"window":"1h","template":"digest"}}`, `{"quiet_hours":"pass"}`, []string{"route a #1 to n1", "route b #1 to n1"}},
		"its digest is still open": {`{"digest":{"window":"1h","template":"digest"}}`, `{"digest":{"window":"2h","template":"digest"}}`, nil},
	} {
		d := newDesk(t)
		d.category("news", tt.before)
		d.user("mona", cairo)
		d.connect("mona")
		d.now = time.Date(2026, 11, 24, 20, 30, 0, 0, time.UTC) // 22:30 there
		d.send("a", "mona", "news.eg")
		d.send("b", "mona", "news.eg")
		if tt.after != "" {
			d.category("news", tt.after)
		} else {
			d.category("newspapers", `{"quiet_hours":"pass"}`)
		}
		if got := d.pass(time.Second); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

func TestCollapse(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.category("status", `{}`)
	d.category("each", `{"collapse":false}`)
	key := func(acc *whisperv1.DeliveryAccepted) { acc.CollapseKey = "order-1" }
	d.want(d.do(d.delivery("a", "mona", "status", key)), "a deferred away")
	d.want(d.do(d.delivery("other", "mona", "status", nil)), "other deferred away")
	d.want(d.do(d.delivery("b", "mona", "status", key)), "a suppressed collapsed", "b deferred away")
	if k := d.events[len(d.events)-2].GetDeliverySuppressed(); k.GetInstead() != "b" {
		t.Errorf("the fact does not name the newer one: %v", k)
	}
	d.want(d.do(d.delivery("c", "mona", "each", key)), "c deferred away")
	d.want(d.do(d.delivery("e", "mona", "each", key)), "e deferred away")
}

func TestSmartTiming(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.category("promo", `{"smart_timing":{"max_delay":"12h"}}`)
	d.category("soon", `{"smart_timing":{"max_delay":"1h"}}`)
	d.user("mona", `{"timezone":"Africa/Cairo"}`)
	d.connect("mona")
	d.want(d.send("a", "mona", "promo"), "route a #1 to n1") // no history
	d.learn("mona")
	d.want(d.send("b", "mona", "promo"), "b deferred smart_timing")
	until := time.UnixMilli(d.events[len(d.events)-1].GetDeliveryDeferred().GetUntilMs())
	if eight := time.Date(2026, 11, 24, 18, 0, 0, 0, time.UTC); until.Before(eight) || until.After(eight.Add(15*time.Minute)) {
		t.Errorf("held until %s", until.UTC())
	}
	d.want(d.send("c", "mona", "soon"), "route c #1 to n1") // too far
	d.ack("a", "mona")
	d.ack("c", "mona")
	d.now = until
	d.want(d.pass(0), "route b #1 to n1")
	d.want(d.send("e", "mona", "promo"), "route e #1 to n1") // it is that hour
}

func TestCategoryChannelsAndAckTimeout(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.category("security", `{"mandatory":true,"channels":["push","socket"],"ack_timeout":"3s"}`)
	d.user("mona", `{"endpoints":{"phone":{"channel":"apns","token":"t"}}}`)
	d.connect("mona")
	byDefault := func(acc *whisperv1.DeliveryAccepted) { acc.ChannelsDefault = true }
	d.want(d.do(d.delivery("a", "mona", "security", byDefault)), "push a #1 to phone")
	d.want(d.send("b", "mona", "security"), "route b #1 to n1") // the request says so
	d.want(d.pass(3*time.Second), "push b #2 to phone")
}

// TestACategorySaysWhetherASocketAloneSettlesIt: where only the client's own word counts, the gateway is told so with
// every route, and a phone gets what nobody acknowledged.
func TestACategorySaysWhetherASocketAloneSettlesIt(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		rules    string
		explicit bool
	}{
		"says nothing":                      {`{}`, false},
		"mandatory":                         {`{"mandatory":true}`, true},
		"mandatory, and a socket is enough": {`{"mandatory":true,"auto_ack":true}`, false},
		"wants the client's word":           {`{"auto_ack":false}`, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDesk(t)
			d.category("fraud", c.rules)
			d.user("mona", `{"endpoints":{"phone":{"channel":"apns","token":"t"}}}`)
			d.connect("mona")
			d.want(d.send("a", "mona", "fraud.card"), "route a #1 to n1")
			d.n++
			d.do(socketSentAt(d, "a", "mona", 1))
			d.want(d.pass(10*time.Second), "push a #2 to phone")
			d.connect("mona") // on its way to a phone, it goes to a new session as well
			routes := 0
			for _, o := range d.out {
				if r, ok := o.(decide.RouteTo); ok {
					if routes++; r.Route.GetExplicitAck() != c.explicit {
						t.Errorf("route %v", r.Route)
					}
				}
			}
			if routes != 2 {
				t.Errorf("%d routes", routes)
			}
		})
	}
}

func TestAnUndeclaredCategoryIsReportedOnce(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.connect("mona")
	d.want(d.send("a", "mona", "markting"), "notice unknown_category markting", "route a #1 to n1")
	d.want(d.send("b", "mona", "markting"), "route b #1 to n1")
	d.want(d.send("c", "mona", "default"), "route c #1 to n1")
}

func TestErasureForgetsEverything(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.category("promo", `{"caps":[{"n":1,"per":"day"}]}`)
	d.user("mona", cairo)
	d.connect("mona")
	d.want(d.send("a", "mona", "promo"), "route a #1 to n1")
	d.now = time.Date(2026, 11, 24, 21, 0, 0, 0, time.UTC)
	d.want(d.send("b", "mona", "promo"), "b deferred quiet_hours")
	d.n++
	d.want(d.do(decide.ProfilePatched{User: "mona", Offset: d.n, At: d.now}), "a suppressed erased", "b suppressed erased", "uncount mona",
		"user_erased")
	if st := d.s.Stats(); st.Users != 0 || st.Parked != 0 || st.InFlight != 0 || len(d.parked) != 0 {
		t.Errorf("%+v, %d parked", st, len(d.parked))
	}
	d.want(d.send("c", "mona", "promo"), "route c #1 to n1") // somebody new of that name
}

// TestAWalkEndsDeliveriesItDeferredBeforeARestart: that ann and mona wait is told, dispatch dies before they are parked, and
// neither is meant when the walk comes to them again: ann changed, mona is forgotten. No row may wait for ever.
func TestAWalkEndsDeliveriesItDeferredBeforeARestart(t *testing.T) {
	t.Parallel()
	walk := decide.WalkOn{Lane: domain.Low}
	d := newDesk(t)
	in := broadcast("news", "user.locale == 'en'")
	in.Event.GetBroadcastAccepted().GetAccepted().ExpiresAtMs = noon.Add(time.Hour).UnixMilli()
	d.user("ann", `{"locale":"en"}`)
	d.user("mona", `{"locale":"en"}`)
	d.do(in)
	d.do(decide.WalkOn{Lane: domain.Low})
	told := d.events
	for key, p := range d.parked {
		if p.GetUserId() != "" {
			delete(d.parked, key)
		}
	}
	d.s = decide.NewState(0, decide.DefaultPolicy())
	encoded, err := proto.Marshal(&whisperv1.Profile{Locale: "ar"})
	if err != nil {
		t.Fatal(err)
	}
	d.s.RestoreUser("ann", encoded)
	for _, key := range slices.Sorted(mapsKeys(d.parked)) {
		d.s.RestoreParked(proto.CloneOf(d.parked[key]))
	}
	for _, ev := range told {
		d.do(decide.FactArrived{Event: ev})
	}
	d.s.ReplayDone()
	d.do(decide.TimePassed{})
	d.want(d.do(walk), "slice 1", "news suppressed segment", "news suppressed erased", "advanced to ann", "news walked settled 1/2 for 2",
		"finished")
}
