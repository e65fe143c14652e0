package decide_test

import (
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/decide"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// restartWith makes the State anew of what it wrote, and lets it read facts that are not let go.
func (d *desk) restartWith(facts []*whisperv1.Event) {
	d.t.Helper()
	d.s = decide.NewState(0, decide.DefaultPolicy())
	for user, profile := range d.users {
		d.s.RestoreUser(user, profile)
	}
	for _, p := range d.parked {
		d.s.RestoreParked(proto.CloneOf(p))
	}
	for _, ev := range facts {
		d.do(decide.FactArrived{Event: proto.CloneOf(ev)})
	}
	d.s.ReplayDone()
	d.do(decide.NodeChanged{Node: "n1", Incarnation: 1})
	d.category("some", `{}`)
}

// walkDue walks until nothing is due.
func (d *desk) walkDue() {
	d.t.Helper()
	for n := 0; ; n++ {
		if due, ok := d.s.WalkDue(domain.Low); !ok || due.After(d.now) {
			return
		}
		if n > 10_000 {
			d.t.Fatal("the walk is due without end")
		}
		d.do(decide.WalkOn{Lane: domain.Low})
	}
}

// TestAPauseDoesNotHoldTheFacts: a restart in the middle of a broadcast reads facts about users to whom it comes again.
// While it is paused the facts are let go all the same, and a later restart without them sends nobody anything twice.
func TestAPauseDoesNotHoldTheFacts(t *testing.T) {
	t.Parallel()
	for _, rate := range []float64{0, 1000} {
		d := newDesk(t)
		d.cursors = true
		d.category("some", `{}`)
		const users = 40
		user := func(i int) string { return fmt.Sprintf("u%02d", i) }
		connect := func() {
			for i := range users {
				d.connect(user(i))
			}
		}
		for i := range users {
			d.user(user(i), `{"locale":"en"}`)
		}
		connect()
		cast := broadcast("news", "")
		id := domain.NewDeliveryID(d.now, domain.HashDelivery("news", ""))
		cast.Event.DeliveryId = id[:]
		cast.Event.GetBroadcastAccepted().Rate = rate
		acc := cast.Event.GetBroadcastAccepted().GetAccepted()
		acc.Category, acc.AcceptedAtMs, acc.ExpiresAtMs = "some", d.now.UnixMilli(), d.now.AddDate(0, 0, 3).UnixMilli()
		d.do(cast)
		sent := map[string]int{}
		count := func() {
			for _, o := range d.out {
				if r, ok := o.(decide.RouteTo); ok {
					for _, user := range append(r.Route.GetUsers(), o.(decide.RouteTo).User) {
						if user != "" {
							sent[user]++
						}
					}
				}
			}
			d.out = nil
		}
		for n := 0; n < 3 && len(sent) == 0; n++ { // until a slice is on its way, and nobody has answered
			d.pass(50_000_000)
			d.do(decide.WalkOn{Lane: domain.Low})
			count()
		}
		first := len(sent)
		if first == 0 || first == users {
			t.Fatalf("a slice sent to %d of %d", first, users)
		}
		d.steer("pause", "news")
		// The process dies before it hears of their answers. Of the slice's second user nothing was written.
		var facts []*whisperv1.Event
		for i := range first {
			if i == 1 {
				sent[user(i)] = 0
				continue
			}
			facts = append(facts, about("news", user(i), &whisperv1.Event{
				Kind: &whisperv1.Event_DeliveryDelivered{DeliveryDelivered: &whisperv1.DeliveryDelivered{Attempt: 1, Channel: "socket"}},
			}).Event)
			of := domain.NewDeliveryID(id.Time(), domain.HashDelivery("news", user(i)))
			facts[len(facts)-1].DeliveryId = of[:]
		}
		d.restartWith(facts)
		connect()
		if !d.s.ReplayHeld() {
			t.Fatal("the facts aren't kept for the walk")
		}
		for range 3 {
			d.pass(50_000_000)
			d.walkDue()
		}
		if d.s.ReplayHeld() {
			t.Error("the pause holds the facts")
		}
		if count(); len(sent) != first || sent[user(1)] != 0 {
			t.Errorf("a broadcast that is paused was begun with: %v", sent)
		}
		d.restartWith(nil) // retention has removed the facts
		connect()
		d.pass(0)
		d.walkDue()
		if count(); len(sent) != first || sent[user(1)] != 0 {
			t.Errorf("a broadcast that is paused was begun with: %v", sent)
		}
		d.steer("resume", "news")
		for range 20 {
			d.pass(100_000_000)
			d.walkDue()
		}
		count()
		for i := range users {
			if sent[user(i)] != 1 {
				t.Errorf("rate %v: %s was sent it %d times", rate, user(i), sent[user(i)])
			}
		}
	}
}
