package decide_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/category"
	"github.com/klivvr/whisper/domain/decide"
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
	d.do(decide.NodeChanged{Node: "n1", Incarnation: 1})
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
	d.do(decide.CategoryChanged{Name: name, Category: c})
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
			d.do(decide.FactArrived{Event: &whisperv1.Event{
				DeliveryId: r.Route.GetDeliveryId(), NotificationId: notification, UserId: user, AtUs: d.now.UnixMicro(),
				Kind: &whisperv1.Event_DeliveryDelivered{DeliveryDelivered: &whisperv1.DeliveryDelivered{Attempt: 1, Channel: "socket"}},
			}})
			return
		}
	}
	d.t.Fatalf("%s was never routed", notification)
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

// socketSentAt: a socket took the delivery that was sent just now.
func socketSentAt(d *desk, note, user string, attempt int32) decide.FactArrived {
	fact := socketSent(note, user, attempt)
	id := domain.NewDeliveryID(d.now, domain.HashDelivery(note, user))
	fact.Event.DeliveryId = id[:]
	return fact
}

// connectAgain is what a State that is restored by hand is told, in the middle of its replay.
func (d *desk) connectAgain(promo string) {
	d.t.Helper()
	d.category("promo", promo)
	d.do(decide.NodeChanged{Node: "n1", Incarnation: 1})
	d.connect("mona")
}
