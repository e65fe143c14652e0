package decide_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/category"
	"github.com/klivvr/whisper/domain/decide"
	"github.com/klivvr/whisper/domain/template"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// desk is a State with one node and users who are connected to it, and everything it has said.
type desk struct {
	t   *testing.T
	s   *decide.State
	now time.Time
	n   int64

	counts []decide.Count
	users  map[string][]byte // encoded profiles
	parked map[string]*whisperv1.Parked
	// cursors says that those of broadcasts are written, too.
	cursors bool
	events  []*whisperv1.Event
	digest  *whisperv1.Event
	out     []decide.Output
	aside   []domain.DeliveryID
}

// noon is a Tuesday in Cairo, two hours after noon UTC.
var noon = time.Date(2026, 11, 24, 10, 0, 0, 0, time.UTC)

func newDesk(t *testing.T) *desk {
	d := &desk{t: t, now: noon, parked: map[string]*whisperv1.Parked{}, users: map[string][]byte{}}
	d.restart()
	return d
}

// restart makes the State anew of what it wrote.
func (d *desk) restart() {
	d.s = decide.NewState(0, decide.DefaultPolicy())
	d.s.SetAside(decide.Aside{IDs: d.aside})
	for user, profile := range d.users {
		d.s.RestoreUser(user, profile)
	}
	d.s.RestoreCounted(d.counts...)
	for _, key := range slices.Sorted(mapsKeys(d.parked)) {
		d.s.RestoreParked(proto.CloneOf(d.parked[key]))
	}
	d.s.ReplayDone()
	d.do(decide.NodeSeen{Node: "n1", Incarnation: 1})
}

func mapsKeys(m map[string]*whisperv1.Parked) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// do decides and returns what was said, in words.
func (d *desk) do(in decide.Input) (words []string) {
	d.t.Helper()
	for _, o := range d.s.Decide(in, d.now) {
		d.out = append(d.out, o)
		switch o := o.(type) {
		case decide.Settle, decide.Remember:
			continue
		case decide.PutUser:
			delete(d.users, o.User)
			if o.Profile != nil {
				d.users[o.User], _ = proto.Marshal(o.Profile)
			}
			continue
		case decide.Park:
			d.parked[string(o.ID[:])] = proto.CloneOf(o.Parked)
			continue
		case decide.ParkAfter:
			d.parked[string(o.ID[:])] = proto.CloneOf(o.Parked)
			continue
		case decide.Unpark:
			delete(d.parked, string(o.ID[:]))
			continue
		case decide.Count:
			d.counts = append(d.counts, o)
			continue
		case decide.Uncount:
			d.counts = slices.DeleteFunc(d.counts, func(c decide.Count) bool { return c.User == o.User })
		case decide.Deliver:
			d.digest = proto.CloneOf(o.Event)
		case decide.Emit:
			d.events = append(d.events, proto.CloneOf(o.Event))
			if id := o.Event.GetNotificationId(); id != "" {
				words = append(words, id+" "+said(o))
				continue
			}
		case decide.Advanced:
			if d.cursors {
				d.parked[string(o.CursorID[:])] = proto.CloneOf(o.Cursor)
			}
		case decide.Finished:
			for _, id := range append(o.FirstIDs, o.Broadcast, o.CursorID) {
				delete(d.parked, string(id[:]))
			}
		case decide.RouteTo, decide.PushTo, decide.PutPresence, decide.Notice, decide.Reject, decide.SliceTaken, decide.Steered, decide.Recall,
			decide.PutClaim, decide.TokenMoved, decide.Releasing:
		}
		words = append(words, said(o))
	}
	return words
}

func (d *desk) category(name, rules string) {
	d.t.Helper()
	c, err := category.Parse(name, []byte(rules))
	if err != nil {
		d.t.Fatal(err)
	}
	d.do(decide.CategorySeen{Name: name, Category: c})
}

func (d *desk) user(name, patch string) {
	d.n++
	d.do(decide.ProfilePatched{User: name, Patch: []byte(patch), At: d.now, Offset: d.n})
}

func (d *desk) connect(user string) {
	d.n++
	p := here(user, "n1", fmt.Sprint("s", d.n), 1)
	p.Presence.AtUs = d.now.UnixMicro()
	d.do(p)
}

func (d *desk) delivery(notification, user, category string, change func(*whisperv1.DeliveryAccepted)) decide.DeliveryArrived {
	d.n++
	id := domain.NewDeliveryID(d.now, domain.HashDelivery(notification, user))
	acc := &whisperv1.DeliveryAccepted{
		Category: category, Channels: []string{domain.ChannelSocket, domain.ChannelPush}, Content: &whisperv1.Content{Title: notification},
		AcceptedAtMs: d.now.UnixMilli(), ExpiresAtMs: d.now.Add(72 * time.Hour).UnixMilli(),
		Request: &whisperv1.Position{Topic: "r", Offset: d.n}, Recipients: 1,
	}
	if change != nil {
		change(acc)
	}
	return decide.DeliveryArrived{Source: decide.LaneOffset{Lane: domain.Normal, Offset: d.n}, Event: &whisperv1.Event{
		DeliveryId: id[:], NotificationId: notification, UserId: user, Lane: whisperv1.Lane_LANE_NORMAL,
		Kind: &whisperv1.Event_DeliveryAccepted{DeliveryAccepted: acc},
	}}
}

func (d *desk) send(notification, user, category string) []string {
	d.t.Helper()
	return d.do(d.delivery(notification, user, category, nil))
}

// pass lets time pass, and says what is due.
func (d *desk) pass(t time.Duration) []string {
	d.t.Helper()
	d.now = d.now.Add(t)
	return d.do(decide.TimePassed{})
}

func (d *desk) want(got []string, want ...string) {
	d.t.Helper()
	if !slices.Equal(got, want) {
		d.t.Fatalf("\n got %q\nwant %q", got, want)
	}
}

func (d *desk) ack(notification, user string) {
	d.t.Helper()
	for _, e := range d.out {
		if r, ok := e.(decide.RouteTo); ok && r.Route.GetNotificationId() == notification {
			d.do(decide.FactSeen{Event: &whisperv1.Event{
				DeliveryId: r.Route.GetDeliveryId(), NotificationId: notification, UserId: user, AtUs: d.now.UnixMicro(),
				Kind: &whisperv1.Event_DeliveryDelivered{DeliveryDelivered: &whisperv1.DeliveryDelivered{Attempt: 1, Channel: "socket"}},
			}})
			return
		}
	}
	d.t.Fatalf("%s was never routed", notification)
}

const cairo = `{"timezone":"Africa/Cairo","quiet_hours":{"from":"22:00","to":"07:00"}}`

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

// TestAnUnsubscribeReachesWhatWaits: what was accepted before is not sent after.
func TestAnUnsubscribeReachesWhatWaits(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.category("marketing", `{}`)
	d.user("mona", `{"locale":"ar"}`)
	d.want(d.send("a", "mona", "marketing"), "a deferred away")
	d.n++
	got := d.do(decide.ProfilePatched{User: "mona", Patch: []byte(`{"preferences":{"marketing":{"all":false}}}`), At: d.now, Offset: d.n})
	d.want(got, "a suppressed unsubscribed")
}

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

// TestACategoryThatChangesLetsOutWhatWaits by its old rules; what still waits by the new ones does.
func TestACategoryThatChangesLetsOutWhatWaits(t *testing.T) {
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

// TestANewerOneDoesNotPassWhatWaitsForItsPartOfTheMorning: a user's lane stays in order.
func TestANewerOneDoesNotPassWhatWaitsForItsPartOfTheMorning(t *testing.T) {
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

func TestQuietHoursThatChangeLetOutWhatWaits(t *testing.T) {
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

func TestWhatExpiresWhileItIsHeldSaysWhatItWaitedFor(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.category("news", `{}`)
	d.user("mona", cairo)
	d.now = time.Date(2026, 11, 24, 21, 0, 0, 0, time.UTC)
	d.want(d.do(d.delivery("a", "mona", "news", func(acc *whisperv1.DeliveryAccepted) { acc.ExpiresAtMs = d.now.Add(time.Hour).UnixMilli() })), "a deferred quiet_hours")
	d.want(d.pass(time.Hour), "a expired quiet_hours")
}

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

// TestADigestThatIsFullIsNotJoined: the record of a digest stays far below what a record may have, and nothing is told
// in two of them.
func TestADigestThatIsFullIsNotJoined(t *testing.T) {
	t.Parallel()
	const most, parts = 10_000, 10_050
	d := newDesk(t)
	tmpl, err := template.Parse([]byte(`{"default_locale":"en","locales":{"en":{"title":"{{ count }} news"}}}`))
	if err != nil {
		t.Fatal(err)
	}
	d.category("news", `{"digest":{"window":"1h","template":"digest"}}`)
	d.user("mona", `{}`)
	d.do(decide.TemplateSeen{ID: "digest", Version: 4, Template: tmpl})
	for i := range parts {
		d.send(fmt.Sprint("n", i), "mona", "news")
	}
	told := map[string]int{}
	var sizes []int
	d.now = d.now.Add(time.Hour)
	for range parts/decide.DueSlice + 2 { // what is due is looked at in slices
		for _, o := range d.s.Decide(decide.TimePassed{}, d.now) {
			deliver, is := o.(decide.Deliver)
			if !is {
				continue
			}
			members := deliver.Event.GetDeliveryAccepted().GetDigestMembers()
			sizes = append(sizes, len(members))
			for _, m := range members {
				told[string(m)]++
			}
			if n := proto.Size(deliver.Event); n > 500_000 {
				t.Errorf("a digest's record has %d bytes", n)
			}
		}
	}
	if !slices.Equal(sizes, []int{most, parts - most}) || len(told) != parts {
		t.Errorf("digests of %v parts tell of %d", sizes, len(told))
	}
}

func TestDigest(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	rules := `{"digest":{"window":"1h","template":"digest"},"caps":[{"n":1,"per":"hour"}]}`
	tmpl, err := template.Parse([]byte(`{"default_locale":"en","locales":{"en":{"title":"{{ count }} news"}}}`))
	if err != nil {
		t.Fatal(err)
	}
	prepare := func() {
		d.category("news", rules)
		d.user("mona", `{}`)
		d.connect("mona")
		d.do(decide.TemplateSeen{ID: "digest", Version: 4, Template: tmpl})
	}
	prepare()
	first := d.delivery("a", "mona", "news", nil)
	id, _ := domain.DeliveryIDFromBytes(first.Event.GetDeliveryId())
	name := "digest/" + id.String()
	d.want(d.do(first), "a deferred digest")
	d.now = d.now.Add(30 * time.Minute)
	d.want(d.send("b", "mona", "news.world"), "b deferred digest")
	d.restart()
	prepare()
	d.want(d.pass(30*time.Minute), "deliver "+name)
	var variables struct {
		Count, More int
		Items       []struct{ ID, Title string }
	}
	if err := json.Unmarshal(d.digest.GetDeliveryAccepted().GetVariables(), &variables); err != nil || variables.Count != 2 || len(variables.Items) != 2 || variables.Items[1].Title != "b" {
		t.Fatalf("%+v, %v", variables, err)
	}
	// Written, and everything forgotten before it comes: it is written again under the same name.
	d.restart()
	prepare()
	d.want(d.pass(0), "deliver "+name)
	come := decide.DeliveryArrived{Source: decide.LaneOffset{Lane: domain.Normal, Offset: 100}, Event: d.digest}
	got := d.do(come)
	d.want(got, "a suppressed digested", "b suppressed digested", "route "+name+" #1 to n1")
	r := d.out[len(d.out)-1].(decide.RouteTo)
	if !strings.Contains(string(r.Route.GetFrame()), "2 news") {
		t.Errorf("the frame is %s", r.Route.GetFrame())
	}
	if k := d.events[len(d.events)-1].GetDeliverySuppressed(); k.GetInstead() != name {
		t.Errorf("the fact does not name the digest: %v", k)
	}
	come.Source.Offset = 101
	d.want(d.do(come)) // the second copy
	d.ack(name, "mona")
	// One alone goes out as it is; and the cap holds for it, which the digest has used up.
	d.want(d.send("c", "mona", "news"), "c deferred digest")
	d.now = d.now.Add(59 * time.Minute)
	d.category("news", strings.Replace(rules, `"per":"hour"`, `"per":"day"`, 1))
	d.want(d.pass(time.Minute), "c suppressed cap")
}

func TestADigestThatCannotBeRenderedSendsItsParts(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.category("news", `{"digest":{"window":"1h","template":"typo"}}`)
	typo, err := template.Parse([]byte(`{"default_locale":"en","locales":{"en":{"title":"{{ cuont }} news","body":"b"}}}`))
	if err != nil {
		t.Fatal(err)
	}
	d.do(decide.TemplateSeen{ID: "typo", Version: 1, Template: typo})
	d.connect("mona")
	d.want(d.send("a", "mona", "news"), "a deferred digest")
	d.want(d.send("b", "mona", "news"), "b deferred digest")
	d.want(d.pass(time.Hour), "notice digest_template_fails typo", "route a #1 to n1", "route b #1 to n1")
}

func TestADigestWithoutItsTemplateSendsItsParts(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.category("news", `{"digest":{"window":"1h","template":"gone"}}`)
	d.connect("mona")
	d.want(d.send("a", "mona", "news"), "a deferred digest")
	d.want(d.send("b", "mona", "news"), "b deferred digest")
	d.want(d.pass(time.Hour), "notice unknown_digest_template gone", "route a #1 to n1", "route b #1 to n1")
}

// learn: the user reads at 18:15 UTC on four evenings.
func (d *desk) learn(user string) {
	for day := range 4 {
		at := time.Date(2026, 11, 20+day, 18, 15, 0, 0, time.UTC)
		read := about("old", user, &whisperv1.Event{Kind: &whisperv1.Event_DeliveryRead{DeliveryRead: &whisperv1.DeliveryRead{}}})
		read.Event.AtUs = at.UnixMicro()
		d.do(read)
	}
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

// socketSentAt: a socket took the delivery that was sent just now.
func socketSentAt(d *desk, note, user string, attempt int32) decide.FactSeen {
	fact := socketSent(note, user, attempt)
	id := domain.NewDeliveryID(d.now, domain.HashDelivery(note, user))
	fact.Event.DeliveryId = id[:]
	return fact
}

func TestAnUndeclaredCategoryIsToldOnce(t *testing.T) {
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
	d.want(d.do(decide.ProfilePatched{User: "mona", Offset: d.n, At: d.now}), "a suppressed erased", "b suppressed erased", "uncount mona", "user_erased")
	if st := d.s.Stats(); st.Users != 0 || st.Parked != 0 || st.InFlight != 0 || len(d.parked) != 0 {
		t.Errorf("%+v, %d parked", st, len(d.parked))
	}
	d.want(d.send("c", "mona", "promo"), "route c #1 to n1") // somebody new of that name
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

// connectAgain is what a State that is restored by hand is told, in the middle of its replay.
func (d *desk) connectAgain(promo string) {
	d.t.Helper()
	d.category("promo", promo)
	d.do(decide.NodeSeen{Node: "n1", Incarnation: 1})
	d.connect("mona")
}

// TestAWalkKnowsItsOwnCountsAfterARestart: a user of a broadcast is counted, and dispatch dies before anything is
// sent. What was counted for him must not keep from him what it was counted for, and is counted once.
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

// TestAWalkCountsWhomItDealtWithAndWhoWasForgottenSince: dispatch dies with its cursor before users whom it had sent
// to. Two of them are forgotten, so that only facts know them: mona has it, and of omar nobody can say.
func TestAWalkCountsWhomItDealtWithAndWhoWasForgottenSince(t *testing.T) {
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
		d.do(decide.FactSeen{Event: ev})
	}
	fact("mona", &whisperv1.Event{Kind: &whisperv1.Event_DeliveryDelivered{DeliveryDelivered: &whisperv1.DeliveryDelivered{Attempt: 1, Channel: "socket"}}})
	fact("omar", &whisperv1.Event{Kind: &whisperv1.Event_AttemptFailed{AttemptFailed: &whisperv1.AttemptFailed{
		Attempt: 1, Channel: "socket", Node: "n1", Class: whisperv1.FailureClass_FAILURE_CLASS_UNKNOWN,
	}}})
	d.do(decide.NodeSeen{Node: "n1", Incarnation: 1})
	d.s.ReplayDone()
	d.do(decide.TimePassed{})
	// The pass of who was connected, and with it of everyone of whom the facts tell.
	d.want(d.do(walk), "slice 1", "news deferred away", "news suppressed erased", "advanced to ")
	if last := d.events[len(d.events)-1]; last.GetUserId() != "omar" {
		t.Errorf("the end is told of %s", last.GetUserId())
	}
	d.want(d.do(walk), "slice 2", "advanced to ann")
	d.connect("ann")
	fact("ann", &whisperv1.Event{Kind: &whisperv1.Event_DeliveryDelivered{DeliveryDelivered: &whisperv1.DeliveryDelivered{Attempt: 1, Channel: "socket"}}})
	d.do(decide.TimePassed{})
	p := d.events[len(d.events)-1].GetBroadcastProgressed()
	if !p.GetSettled() || p.GetMatched() != 3 {
		t.Errorf("%v", p)
	}
}

// TestAWalkEndsWhatItPutOffBeforeARestart: that ann and mona wait is told, dispatch dies before they are parked, and
// neither is meant when the walk comes to them again: ann changed, mona is forgotten. No row may wait for ever.
func TestAWalkEndsWhatItPutOffBeforeARestart(t *testing.T) {
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
		d.do(decide.FactSeen{Event: ev})
	}
	d.s.ReplayDone()
	d.do(decide.TimePassed{})
	d.want(d.do(walk), "slice 1", "news suppressed segment", "news suppressed erased", "advanced to ann", "news walked settled 1/2 for 2", "finished")
}
