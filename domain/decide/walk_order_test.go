package decide_test

import (
	"fmt"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/decide"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// TestTheFirstPassOutlivesARestart: more are connected than one record of the first pass takes; dispatch dies when
// some of them have it and its cursor says so. The next one, to which nobody is connected, goes on with the rest of the
// same first pass, and comes to the others after it, to each once.
func TestTheFirstPassOutlivesARestart(t *testing.T) {
	t.Parallel()
	const users, connected = 6000, 5000
	policy := decide.DefaultPolicy()
	policy.Slice = 1000
	profile, err := proto.Marshal(&whisperv1.Profile{Locale: "en"})
	if err != nil {
		t.Fatal(err)
	}
	start := func() *decide.State {
		s := decide.NewState(0, policy)
		for i := range users {
			s.RestoreUser(fmt.Sprintf("user-%04d", i), profile)
		}
		return s
	}
	timers := map[domain.DeliveryID]*whisperv1.Parked{}
	var routed, deferred []string
	write := func(outputs []decide.Output) {
		for _, o := range outputs {
			switch o := o.(type) {
			case decide.Park:
				timers[o.ID] = proto.CloneOf(o.Parked)
			case decide.ParkAfter:
				timers[o.ID] = proto.CloneOf(o.Parked)
			case decide.Advanced:
				timers[o.CursorID] = proto.CloneOf(o.Cursor)
			case decide.Unpark:
				delete(timers, o.ID)
			case decide.Finished:
				for _, id := range append(o.FirstIDs, o.Broadcast, o.CursorID) {
					delete(timers, id)
				}
			case decide.RouteTo:
				routed = append(routed, o.Route.GetUsers()...)
			case decide.Emit:
				if o.Event.GetDeliveryDeferred() != nil {
					deferred = append(deferred, o.Event.GetUserId())
				}
			case decide.Count, decide.Uncount, decide.Deliver, decide.Notice, decide.PushTo, decide.PutPresence, decide.PutUser, decide.PutClaim, decide.TokenMoved, decide.Releasing, decide.Reject,
				decide.Recall, decide.Remember, decide.Settle, decide.SliceTaken, decide.Steered:
			}
		}
	}

	s := start()
	s.ReplayDone()
	s.Decide(n1, at(0))
	for i := range connected { // the last in the order of ids, and some who have no profile
		s.Decide(here(fmt.Sprintf("user-%04d", users-1-i), "n1", "s", 1), at(0))
		s.Decide(here(fmt.Sprintf("guest-%04d", i), "n1", "s", 1), at(0))
	}
	write(s.Decide(broadcast("news", ""), at(0)))
	for range 16 {
		write(s.Decide(decide.WalkOn{Lane: domain.Low}, at(0)))
	}
	if len(routed) != 2000 || routed[0] != "user-1000" || len(deferred) > 0 {
		t.Fatalf("%d are sent to and %d away after half of the first pass", len(routed), len(deferred))
	}
	for _, user := range routed {
		write(s.Decide(delivered("news", user, 1), at(1)))
	}

	var first []*whisperv1.Parked
	s = start()
	for _, p := range timers {
		if p.GetWalkFirst() != nil {
			first = append(first, p)
		}
		s.RestoreParked(p)
	}
	write(s.Resume(at(2)))
	s.ReplayDone()
	for due, ok := s.WalkDue(domain.Low); ok && !due.After(at(2)); due, ok = s.WalkDue(domain.Low) {
		write(s.Decide(decide.WalkOn{Lane: domain.Low}, at(2)))
	}
	if deferred[0] != "user-3000" || deferred[3000] != "user-0000" {
		t.Errorf("it went on with %s, and with %s after the first pass", deferred[0], deferred[3000])
	}
	all := slices.Concat(routed, deferred)
	slices.Sort(all)
	if n := len(slices.Compact(slices.Clone(all))); len(all) != users || n != users {
		t.Errorf("%d were met, %d of them different, of %d", len(all), n, users)
	}
	for _, o := range s.Decide(decide.TimePassed{}, at(4000)) {
		write([]decide.Output{o})
	}
	for range 100 {
		write(s.Decide(decide.WalkOn{Lane: domain.Low}, at(4000)))
	}
	if len(timers) > 0 {
		t.Errorf("%d records stay", len(timers))
	}

	for _, p := range first { // the process died before it had removed them, too
		timers[domain.NewDeliveryID(at(0), domain.HashDelivery("news", fmt.Sprint("\x01first", p.GetWalkFirst().GetNumber())))] = p
	}
	s = start()
	for _, p := range timers {
		s.RestoreParked(p)
	}
	write(s.Resume(at(4001)))
	if len(first) != 2 || len(timers) > 0 {
		t.Errorf("%d of %d records of the first pass stay", len(timers), len(first))
	}
}

// TestTwoBroadcastsShare: of two in a lane each has every second slice.
func TestTwoBroadcastsShare(t *testing.T) {
	t.Parallel()
	s := decide.NewState(0, decide.DefaultPolicy())
	s.ReplayDone()
	s.Decide(n1, at(0))
	for i := range 10 * decide.WalkSlice {
		s.Decide(decide.ProfilePatched{User: fmt.Sprintf("user-%04d", i), Patch: []byte(`{"locale":"en"}`), At: t0, Offset: int64(i)}, at(0))
	}
	for i, note := range []string{"one", "two"} {
		in := broadcast(note, "")
		in.Source.Offset, in.Event.GetBroadcastAccepted().GetAccepted().GetRequest().Offset = int64(i), int64(i)
		s.Decide(in, at(0))
	}
	met := map[string]int{}
	for turn := 1; turn <= 16; turn++ {
		for _, o := range s.Decide(decide.WalkOn{Lane: domain.Low}, at(0)) {
			if e, ok := o.(decide.Emit); ok && e.Event.GetDeliveryDeferred() != nil {
				met[e.Event.GetNotificationId()]++
			}
		}
		if gap := met["one"] - met["two"]; gap < -decide.WalkSlice || gap > decide.WalkSlice {
			t.Fatalf("after %d turns %v were met", turn, met)
		}
	}
	if met["one"] != 8*decide.WalkSlice || met["two"] != 8*decide.WalkSlice {
		t.Errorf("%v were met", met)
	}
}

// TestSlicesAreWideWhereNoAlertWaits: with alerts about, a slice has few sockets, since each is written to at once.
func TestSlicesAreWideWhereNoAlertWaits(t *testing.T) {
	t.Parallel()
	for wide, want := range map[bool]int{false: 16, true: decide.WalkSlice} {
		s := decide.NewState(0, decide.DefaultPolicy())
		s.ReplayDone()
		s.Decide(n1, at(0))
		for i := range 2 * decide.WalkSlice {
			user := fmt.Sprintf("user-%04d", i)
			s.Decide(decide.ProfilePatched{User: user, Patch: []byte(`{"locale":"en"}`), At: t0, Offset: int64(i)}, at(0))
			s.Decide(here(user, "n1", "s", 1), at(0))
		}
		s.Decide(broadcast("news", ""), at(0))
		for slice := range 2 {
			got := 0
			for _, o := range s.Decide(decide.WalkOn{Lane: domain.Low, Wide: wide}, at(0)) {
				if r, is := o.(decide.RouteTo); is {
					got += len(r.Route.GetUsers())
				}
			}
			if got != want {
				t.Errorf("wide: %v; slice %d is sent to %d, want %d", wide, slice, got, want)
			}
		}
	}
}
