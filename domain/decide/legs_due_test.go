package decide_test

import (
	"testing"
	"time"

	"github.com/klivvr/whisper/domain/decide"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// toAll is a delivery of which all the category's channels are to get it at once.
func toAll(acc *whisperv1.DeliveryAccepted) { acc.ChannelsDefault = true }

// TestEachLegSaysSinceWhenItWasDue: the push was due with its request, the socket when its user came back; after a restart,
// too.
func TestEachLegSaysSinceWhenItWasDue(t *testing.T) {
	t.Parallel()
	for name, restart := range map[string]bool{"in one process": false, "over a restart": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDesk(t)
			d.category("c", `{"all_channels":["socket","apns"]}`)
			d.user("mona", `{"endpoints":{"phone":{"channel":"apns","token":"t","app":"a"}}}`)
			d.do(d.delivery("n", "mona", "c", toAll))
			if due := d.due("n"); !due.IsZero() {
				t.Errorf("the push was due at %s, want with its request", due)
			}
			if restart {
				d.restart()
				d.category("c", `{"all_channels":["socket","apns"]}`)
			}
			d.out, d.now = nil, d.now.Add(time.Hour)
			d.connect("mona")
			back := d.now
			for i := 0; len(d.out) == 0 && i < 3; i++ {
				d.pass(time.Second)
			}
			if due := d.due("n"); !due.Equal(back) {
				t.Errorf("the socket was due at %s, want %s: its user was away until then", due.UTC(), back.UTC())
			}
		})
	}
}

// TestAnEndedLegCountsAsHandedOut: a socket took it, and then the user refused sockets, so that leg is gone. After a
// restart a read without a receipt still ends what is left: the user may have it.
func TestAnEndedLegCountsAsHandedOut(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.category("c", `{"all_channels":["socket","apns"]}`)
	d.user("mona", `{"endpoints":{"phone":{"channel":"apns","token":"t","app":"a"}}}`)
	d.connect("mona")
	in := d.delivery("n", "mona", "c", toAll)
	d.do(in)
	fact := func(ev *whisperv1.Event) {
		ev.DeliveryId, ev.NotificationId, ev.UserId, ev.AtUs = in.Event.GetDeliveryId(), "n", "mona", d.now.UnixMicro()
		d.do(decide.FactArrived{Event: ev})
	}
	fact(&whisperv1.Event{Kind: &whisperv1.Event_DeliverySent{DeliverySent: &whisperv1.DeliverySent{
		Attempt: 2, Channel: "socket",
		Node: "n1",
	}}})
	for range 12 { // nobody acknowledges
		d.pass(5 * time.Second)
	}
	d.user("mona", `{"preferences":{"c":{"socket":false}}}`)
	d.restart()
	d.category("c", `{"all_channels":["socket","apns"]}`)
	if held := d.s.Sizes(); held.Parked == 0 {
		t.Fatalf("nothing is left: %+v", held)
	}
	fact(&whisperv1.Event{Kind: &whisperv1.Event_DeliveryRead{DeliveryRead: &whisperv1.DeliveryRead{}}})
	if held := d.s.Sizes(); held.InFlight+held.Parked != 0 {
		t.Errorf("a read from before did not end it: %+v", held)
	}
}

// TestAnUncertainPushIsMadeOnceTheUserAllowsIt: the process died before it made the push, the user refused the
// channel, and dispatch was started again.
func TestAnUncertainPushIsMadeOnceTheUserAllowsIt(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.category("c", `{"all_channels":["socket","apns"]}`)
	d.user("mona", `{"endpoints":{"phone":{"channel":"apns","token":"t","app":"a"}}}`)
	d.do(d.delivery("n", "mona", "c", toAll)) // parked, and the push is on its way
	for _, patch := range []string{`{"preferences":{"c":{"apns":false}}}`, `{"attributes":{"a":"b"}}`} {
		d.restart()
		d.category("c", `{"all_channels":["socket","apns"]}`)
		d.user("mona", patch)
	}
	d.out = nil
	d.user("mona", `{"preferences":{"c":{"apns":null}}}`)
	for _, o := range d.out {
		if _, pushed := o.(decide.PushTo); pushed {
			return
		}
	}
	t.Error("it is not pushed")
}
