package decide_test

import (
	"fmt"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/decide"
	"github.com/klivvr/whisper/domain/request"
	"github.com/klivvr/whisper/domain/whisperv1"
)

func toConnected(segment string) decide.BroadcastArrived {
	return with(broadcast("news", ""), func(b *whisperv1.BroadcastAccepted) {
		b.Connected, b.Segment, b.ConnectedSegment = true, request.Connected, segment
	})
}

// TestABroadcastToThoseWhoAreConnected: who has a socket when it begins is its audience, with or without a profile, whoever
// comes and goes afterwards, and after a restart to which nobody is connected any more.
func TestABroadcastToThoseWhoAreConnected(t *testing.T) {
	t.Parallel()
	policy := decide.DefaultPolicy()
	policy.Slice = 8 // one user a slice of the first pass
	profile, err := proto.Marshal(&whisperv1.Profile{Locale: "en", CreatedOffset: 1})
	if err != nil {
		t.Fatal(err)
	}
	for _, segment := range []string{"", "user.locale == 'en'"} {
		t.Run(segment, func(t *testing.T) {
			t.Parallel()
			timers := map[domain.DeliveryID]*whisperv1.Parked{}
			var routed, waiting []string
			var last *whisperv1.BroadcastProgressed
			write := func(outputs []decide.Output) {
				for _, o := range outputs {
					switch o := o.(type) {
					case decide.Park:
						timers[o.ID] = proto.CloneOf(o.Parked)
					case decide.Advanced:
						timers[o.CursorID] = proto.CloneOf(o.Cursor)
					case decide.Unpark:
						delete(timers, o.ID)
					case decide.RouteTo:
						routed = append(routed, append(o.Route.GetUsers(), o.User)...)
					case decide.Emit:
						if o.Event.GetDeliveryDeferred() != nil {
							waiting = append(waiting, o.Event.GetUserId())
						}
						if p := o.Event.GetBroadcastProgressed(); p != nil {
							last = p
						}
					case decide.Count, decide.Deliver, decide.Finished, decide.Notice, decide.ParkAfter, decide.PushTo, decide.PutClaim, decide.PutPresence, decide.PutUser,
						decide.Recall, decide.Reject, decide.Releasing, decide.Remember, decide.Settle, decide.SliceTaken, decide.Steered, decide.TokenMoved, decide.Uncount:
					}
				}
				routed = slices.DeleteFunc(routed, func(user string) bool { return user == "" })
			}
			start := func() *decide.State {
				s := decide.NewState(0, policy)
				for _, user := range []string{"ann", "bob", "eve"} {
					s.RestoreUser(user, profile)
				}
				return s
			}
			walk := func(s *decide.State) {
				write(s.Decide(decide.WalkOn{Lane: domain.Low}, at(0)))
			}

			s := start()
			s.ReplayDone()
			s.Decide(n1, at(0))
			for _, user := range []string{"ann", "eve", "guest-1", "guest-2"} { // bob is away
				s.Decide(here(user, "n1", "s", 1), at(0))
			}
			write(s.Decide(toConnected(segment), at(0)))
			walk(s)
			if !slices.Equal(routed, []string{"ann"}) || last.GetAudience() != 4 {
				t.Fatalf("%v have it of %v", routed, last)
			}
			write(s.Decide(delivered("news", "ann", 1), at(0)))
			s.Decide(here("bob", "n1", "s", 1), at(0)) // too late
			write(s.Decide(gone("eve", "n1"), at(0)))
			walk(s)
			if !slices.Equal(routed, []string{"ann"}) || !slices.Equal(waiting, []string{"eve"}) {
				t.Fatalf("%v have it, %v wait", routed, waiting)
			}

			s = start()
			for id, p := range timers {
				s.RestoreParked(proto.CloneOf(p))
				if first := p.GetWalkFirst(); first != nil && len(first.GetBroadcast()) > 0 {
					t.Errorf("%v would be dropped by a version that does not know such broadcasts", id)
				}
			}
			write(s.Resume(at(0)))
			s.ReplayDone()
			s.Decide(n1, at(0))
			s.Decide(here("guest-3", "n1", "s", 1), at(0))
			for range 4 {
				walk(s)
			}
			meant := []string{"eve"}
			if segment == "" {
				meant = append(meant, "guest-1", "guest-2")
			}
			if !slices.Equal(waiting, meant) || !slices.Equal(routed, []string{"ann"}) {
				t.Fatalf("after the restart %v wait and %v have it, want %v", waiting, routed, meant)
			}
			for _, user := range []string{"bob", "eve", "guest-1", "guest-2"} {
				write(s.Decide(here(user, "n1", "t", 1), at(1)))
				write(s.Decide(delivered("news", user, 1), at(1)))
			}
			if want := append([]string{"ann"}, meant...); !slices.Equal(routed, want) {
				t.Errorf("%v have it, want %v", routed, want)
			}
			if !last.GetSettled() || last.GetWalked() != 4 || last.GetMatched() != int64(len(meant)+1) {
				t.Errorf("it ends as %v", last)
			}
		})
	}
}

// TestNobodyIsConnected: such a broadcast ends at once, and is never for everyone.
func TestNobodyIsConnected(t *testing.T) {
	t.Parallel()
	s := decide.NewState(0, decide.DefaultPolicy())
	s.ReplayDone()
	for i := range 3 {
		s.Decide(decide.ProfilePatched{User: fmt.Sprint("u", i), Patch: []byte(`{"locale":"en"}`), At: t0, Offset: int64(i)}, at(0))
	}
	s.Decide(toConnected(""), at(0))
	for _, o := range s.Decide(decide.WalkOn{Lane: domain.Low}, at(0)) {
		if e, is := o.(decide.Emit); is && (e.Event.GetUserId() != "" || e.Event.GetBroadcastProgressed().GetAudience() != 0) {
			t.Errorf("it says %v", e.Event)
		}
	}
	if _, due := s.WalkDue(domain.Low); due || s.Progress(domain.NewDeliveryID(at(0), domain.HashDelivery("news", ""))) != nil {
		t.Error("it goes on")
	}
}
