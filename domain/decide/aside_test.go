package decide_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/decide"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// meetBug has a bug met and returns what it was about.
func (d *desk) meetBug(do func()) (of decide.Subject, ok bool) {
	d.t.Helper()
	defer func() {
		if recover() == nil {
			d.t.Fatal("no bug was met")
		}
		of, ok = d.s.Busy()
	}()
	do()
	return of, ok
}

// A record that no version writes stands for a bug: whatever is decided about the delivery panics.
func broken(p *whisperv1.Parked, due time.Time) *whisperv1.Parked {
	p = proto.CloneOf(p)
	p.Step, p.Attempt, p.Phase, p.DueMs = -5, 1, whisperv1.Phase_PHASE_BACKOFF, due.UnixMilli()
	return p
}

// setAside restores anew without what met a bug, and says what was told of it.
func (d *desk) setAside(of decide.Subject) (words []string) {
	d.t.Helper()
	d.aside = append(d.aside, of.ID)
	d.restart()
	for _, o := range d.s.Resume(d.now) {
		if fact, ok := o.(decide.Emit); ok {
			words = append(words, fact.Event.GetNotificationId()+" "+fact.Event.GetUserId()+" "+said(o))
		}
		if gone, ok := o.(decide.Unpark); ok {
			delete(d.parked, string(gone.ID[:]))
		}
	}
	return words
}

// TestABugEndsItsDeliveryAlone: what is due, or a profile, meets it; the delivery is named, and ended
// after a restore, and the others go on.
func TestABugEndsItsDeliveryAlone(t *testing.T) {
	t.Parallel()
	for name, meet := range map[string]func(d *desk){
		"time":      func(d *desk) { d.pass(time.Minute) },
		"a profile": func(d *desk) { d.user("mona", `{"locale":"ar"}`) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDesk(t)
			d.user("mona", `{"locale":"en"}`)
			d.send("bad", "mona", "x")
			d.send("good", "mona", "x")
			for key, p := range d.parked {
				if p.GetAccepted().GetNotificationId() == "bad" {
					d.parked[key] = broken(p, d.now.Add(time.Second))
				}
			}
			d.restart()
			of, ok := d.meetBug(func() { meet(d) })
			if !ok || of.Notification != "bad" || of.User != "mona" {
				t.Fatalf("the bug was about %+v, %t", of, ok)
			}
			d.want(d.setAside(of), "bad mona failed internal_error")
			d.connect("mona")
			d.ack("good", "mona")
			d.pass(time.Hour)
			if len(d.parked) > 0 {
				t.Errorf("%d are still parked", len(d.parked))
			}
			if d.send("bad", "mona", "x"); d.routed("bad") {
				t.Error("it is sent after it was ended")
			}
		})
	}
}

// A user of a broadcast who waits for a connection, and the broadcast itself.
func TestABugInABroadcastEndsOnlyThatUsersDelivery(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.user("mona", `{"locale":"en"}`)
	d.user("omar", `{"locale":"en"}`)
	d.cast("news", "x", nil)
	for key, p := range d.parked {
		if p.GetUserId() == "mona" {
			d.parked[key] = broken(p, d.now.Add(time.Second))
		}
	}
	d.restart()
	of, ok := d.meetBug(func() { d.pass(time.Minute) })
	if !ok || of.Notification != "news" || of.User != "mona" {
		t.Fatalf("the bug was about %+v, %t", of, ok)
	}
	d.want(d.setAside(of), "news mona failed internal_error")
	d.connect("mona")
	d.connect("omar")
	if !d.routed("news") {
		t.Error("omar gets nothing")
	}
}

func (d *desk) routed(note string) bool {
	for _, o := range d.out {
		if r, ok := o.(decide.RouteTo); ok && r.Route.GetNotificationId() == note {
			return true
		}
	}
	return false
}

// A broadcast that met a bug is paused: it can be cancelled, and resumed by a version without the bug.
func TestABroadcastThatMetABugCanBeCancelled(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.user("mona", `{"locale":"en"}`)
	d.cast("news", "x", nil)
	var id domain.DeliveryID
	for key, p := range d.parked {
		if p.GetWalk() != nil {
			id = domain.DeliveryID([]byte(key))
		}
	}
	d.setAside(decide.Subject{ID: id, Notification: "news"})
	d.connect("mona")
	if d.routed("news") {
		t.Fatal("it is gone on with")
	}
	d.do(decide.CancelArrived{Source: decide.LaneOffset{Offset: 99}, Event: &whisperv1.Event{NotificationId: "news"}})
	for range 4 {
		d.do(decide.WalkOn{Lane: domain.Low})
	}
	d.aside = nil
	d.restart()
	d.connect("mona")
	if d.routed("news") || len(d.parked) > 0 {
		t.Errorf("after it was cancelled it is sent, or %d are parked", len(d.parked))
	}
}

// What comes after a decision (writing, committing) is not about its delivery any more.
func TestNothingIsBusyAfterADecision(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.connect("mona")
	d.send("a", "mona", "x")
	if of, ok := d.s.Busy(); ok {
		t.Errorf("%+v is blamed for what comes after its decision", of)
	}
}
