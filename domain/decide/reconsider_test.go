package decide_test

import (
	"slices"
	"testing"
	"time"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/decide"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// phone registers one.
func (d *desk) phone(user string) []string {
	d.t.Helper()
	d.n++
	in := endpoint(user, "phone")
	in.At, in.Offset = d.now, d.n
	return d.do(in)
}

// TestAPhoneThatRegistersLateGetsTheBroadcastThatWaits: who is away waits compactly, and is considered like any delivery.
func TestAPhoneThatRegistersLateGetsTheBroadcastThatWaits(t *testing.T) {
	t.Parallel()
	walk := decide.WalkOn{Lane: domain.Low}
	for _, paused := range []bool{false, true} {
		for _, restart := range []bool{false, true} {
			d := newDesk(t)
			d.user("mona", `{"locale":"en"}`)
			d.user("omar", `{"locale":"en"}`)
			d.category("some", `{}`)
			d.want(d.cast("news", "some", func(b *whisperv1.BroadcastAccepted) {
				b.Accepted.Channels = []string{domain.ChannelSocket, domain.ChannelPush}
			}), "news deferred away", "news deferred away")
			if paused {
				d.want(d.steer("pause", "news"))
			}
			got := d.phone("mona")
			if paused {
				d.want(got)
				if restart {
					d.restart()
					d.category("some", `{}`)
				}
				got = append(d.steer("resume", "news"), slices.DeleteFunc(d.do(walk), aboutWalk)...)
			}
			d.want(got, "push news #1 to phone")
			if restart && !paused { // the patch is handed out again, and nothing was written of what followed from it
				for id, p := range d.parked {
					if p.GetUserId() == "mona" {
						p.Reset()
						p.Broadcast, p.UserId, p.Phase = d.castID("news"), "mona", whisperv1.Phase_PHASE_AWAY
						d.parked[id] = p
					}
				}
				d.restart()
				d.category("some", `{}`)
				in := endpoint("mona", "phone")
				in.At, in.Offset = d.now, d.n
				d.want(d.do(in), "claim phone", "push news #1 to phone")
			}
		}
	}
}

func (d *desk) castID(note string) []byte {
	for id, p := range d.parked {
		if p.GetWalk().GetAccepted().GetNotificationId() == note {
			return []byte(id)
		}
	}
	d.t.Fatalf("%s is not parked", note)
	return nil
}

// TestAUserWhoMovesIsWalkedByTheNewClock: what waits for nine in the morning there waits for nine in the morning here.
func TestAUserWhoMovesIsWalkedByTheNewClock(t *testing.T) {
	t.Parallel()
	d := newDesk(t) // 10:00 UTC
	d.category("some", `{}`)
	d.user("mona", `{"timezone":"UTC"}`)
	d.connect("mona")
	d.want(d.cast("news", "some", func(b *whisperv1.BroadcastAccepted) { b.SendAtLocal = "09:00" }), "news delivery_scheduled")
	d.n++
	got := d.do(decide.ProfilePatched{User: "mona", Patch: []byte(`{"timezone":"America/Los_Angeles"}`), At: d.now, Offset: d.n})
	d.want(got, "news delivery_scheduled")
	d.pass(7*time.Hour - time.Second)
	d.want(slices.DeleteFunc(d.do(decide.WalkOn{Lane: domain.Low}), aboutWalk))
	d.pass(time.Second) // 17:00 UTC
	if d.do(decide.WalkOn{Lane: domain.Low}); d.sent("news") != 1 {
		t.Errorf("sent %d times at nine", d.sent("news"))
	}
}
