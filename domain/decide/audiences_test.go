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

// durable is a partition whose process may end: what it wrote is all that the next one has.
type durable struct {
	s        *decide.State
	parked   map[domain.DeliveryID]*whisperv1.Parked
	profiles map[string][]byte
	seen     []decide.SeenDelivery
	told     []string // users to whom a retraction was sent
}

func newDurable() *durable {
	d := &durable{
		s: decide.NewState(0, decide.DefaultPolicy()), parked: map[domain.DeliveryID]*whisperv1.Parked{},
		profiles: map[string][]byte{},
	}
	d.s.ReplayDone()
	return d
}

func (d *durable) do(now int, in decide.Input) { d.keep(d.s.Decide(in, at(now))) }

func (d *durable) keep(outputs []decide.Output) {
	for _, o := range outputs {
		switch o := o.(type) {
		case decide.Park:
			d.parked[o.ID] = proto.CloneOf(o.Parked)
		case decide.ParkAfter:
			d.parked[o.ID] = proto.CloneOf(o.Parked)
		case decide.Advanced:
			d.parked[o.CursorID] = proto.CloneOf(o.Cursor)
		case decide.Unpark:
			delete(d.parked, o.ID)
		case decide.Finished:
			for _, id := range append([]domain.DeliveryID{o.Broadcast, o.CursorID}, o.FirstIDs...) {
				delete(d.parked, id)
			}
		case decide.PutUser:
			if d.profiles[o.User] = nil; o.Profile != nil {
				d.profiles[o.User], _ = proto.Marshal(o.Profile)
			}
		case decide.Settle:
			if o.Seen != nil {
				d.seen = append(d.seen, *o.Seen)
			}
		case decide.Remember:
			d.seen = append(d.seen, o.Seen)
		case decide.RouteTo:
			if o.Route.GetRetract() {
				d.told = append(d.told, o.Route.GetUsers()...)
			}
		case decide.Count, decide.Deliver, decide.Emit, decide.Notice, decide.PushTo, decide.PutClaim, decide.PutPresence, decide.Recall, decide.Reject,
			decide.Releasing, decide.SliceTaken, decide.Steered, decide.TokenMoved, decide.Uncount:
		}
	}
}

func (d *durable) restart(now int) {
	d.s = decide.NewState(0, decide.DefaultPolicy())
	for user, profile := range d.profiles {
		d.s.RestoreUser(user, profile)
	}
	d.s.RestoreSeen(d.seen...)
	for _, p := range d.parked {
		d.s.RestoreParked(proto.CloneOf(p))
	}
	d.keep(d.s.Resume(at(now)))
	d.s.ReplayDone()
	d.do(now, n1)
}

// tells is who is told when all of them connect.
func (d *durable) tells(now int, session string) []string {
	d.told = nil
	for _, user := range []string{"ann", "bob", "cay", "dan", "eve"} {
		d.do(now, here(user, "n1", session, 1))
	}
	return d.told
}

func (d *durable) meant() (n int) {
	for _, p := range d.parked {
		if p.GetMeant() != nil {
			n++
		}
	}
	return n
}

// TestARetractionIsSentOnlyToTheAudience: bob is outside the segment, dan came later and eve has no profile.
// Cay left the segment after the broadcast, and may have it.
func TestARetractionIsSentOnlyToTheAudience(t *testing.T) {
	t.Parallel()
	en := `user.locale == "en"`
	tests := map[string]struct {
		segment string
		runs    bool // it is taken back before its end
		want    []string
		kept    bool
	}{
		"after its end":                      {segment: en, want: []string{"ann", "cay"}, kept: true},
		"while it runs":                      {segment: en, runs: true, want: []string{"ann", "cay"}, kept: true},
		"for everyone":                       {want: []string{"ann", "bob", "cay", "dan", "eve"}},
		"a token may be gone without a word": {segment: en + ` || "apns" in user.endpoints`, want: []string{"ann", "bob", "cay", "dan", "eve"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDurable()
			patch := func(now int, user, patch string, offset int64) {
				d.do(now, decide.ProfilePatched{User: user, Patch: []byte(patch), At: at(now), Offset: offset})
			}
			patch(0, "ann", `{"locale":"en"}`, 1)
			patch(0, "bob", `{"locale":"ar"}`, 2)
			patch(0, "cay", `{"locale":"en"}`, 3)
			d.do(0, n1)
			for _, user := range []string{"ann", "bob", "cay"} {
				d.do(0, here(user, "n1", "first", 1))
			}
			d.do(0, broadcast("news", test.segment))
			d.do(0, decide.WalkOn{Lane: domain.Low})
			if !test.runs {
				d.do(0, decide.WalkOn{Lane: domain.Low})
				for _, user := range []string{"ann", "bob", "cay"} {
					d.do(1, delivered("news", user, 1))
				}
				if d.s.Stats().Broadcasts != 0 {
					t.Fatal("the broadcast is not over")
				}
			}
			patch(2, "cay", `{"locale":"ar"}`, 4)
			patch(2, "dan", `{"locale":"en"}`, 5)
			d.do(3, steer("retract", "news"))
			connected := slices.DeleteFunc(slices.Clone(test.want), func(user string) bool { return user == "dan" || user == "eve" })
			if slices.Sort(d.told); !slices.Equal(d.told, connected) {
				t.Errorf("connected, %q were told; want %q", d.told, connected)
			}
			if got := d.tells(4, "second"); !slices.Equal(got, test.want) {
				t.Errorf("who connects then: %q were told; want %q", got, test.want)
			}
			d.restart(5)
			if got := d.tells(6, "third"); !slices.Equal(got, test.want) {
				t.Errorf("after a restart: %q were told; want %q", got, test.want)
			}
			if kept := d.meant() == 1; kept != test.kept {
				t.Errorf("%d records of whom it was for", d.meant())
			}
			d.do(int((50 * time.Hour).Seconds()), decide.TimePassed{})
			d.do(int((50 * time.Hour).Seconds()), decide.TimePassed{})
			if d.meant() != 0 {
				t.Error("its record outlives the window")
			}
		})
	}
}
