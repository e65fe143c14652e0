package decide_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/category"
	"github.com/klivvr/whisper/domain/decide"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// TestParkedDeliveriesComeBackAsTheyWere: what Park wrote restores to a state that goes on.
func TestParkedDeliveriesComeBackAsTheyWere(t *testing.T) {
	t.Parallel()
	before := decide.NewState(0, decide.DefaultPolicy())
	var parked *whisperv1.Parked
	in := arrived("pay", "mona", 7, given{})
	in.Trace = decide.Trace{Parent: "00-a-b-01", State: "x=y"}
	for _, o := range before.Decide(in, t0) {
		if p, ok := o.(decide.Park); ok {
			parked = proto.CloneOf(p.Parked)
		}
	}
	after := decide.NewState(0, decide.DefaultPolicy())
	after.RestoreParked(parked)
	after.Decide(decide.NodeChanged{Node: "n1", Incarnation: 1}, t0)
	out := after.Decide(here("mona", "n1", "s1", 1), t0)
	if len(out) != 1 {
		t.Fatalf("got %v", out)
	}
	route, ok := out[0].(decide.RouteTo)
	if !ok || route.Trace != in.Trace || route.Route.GetAttempt() != 1 {
		t.Fatalf("got %#v", out[0])
	}
	// And it is still told as a duplicate.
	if out := after.Decide(arrived("pay", "mona", 9, given{}), t0); said(out[0]) != "duplicate_dropped" {
		t.Fatalf("got %v", said(out[0]))
	}
}

// restarted is a state as after a restart that lost everything but what is given.
func restarted(t *testing.T, facts ...decide.FactArrived) *decide.State {
	t.Helper()
	s := decide.NewState(0, decide.DefaultPolicy())
	for _, f := range facts {
		s.Decide(f, at(1))
	}
	s.Decide(decide.NodeChanged{Node: "n1", Incarnation: 1}, at(1))
	s.Decide(here("mona", "n1", "s1", 1), at(1))
	return s
}

// TestAReplayedDeliveryIsSentWithItsContent: a socket took it before a restart and the user connects anew
// before acknowledging. What comes again must say the same; an empty frame would also make the client drop
// the full one.
func TestAReplayedDeliveryIsSentWithItsContent(t *testing.T) {
	t.Parallel()
	s := restarted(t, socketSent("pay", "mona", 1))
	if out := s.Decide(arrived("pay", "mona", 7, given{}), at(2)); len(out) != 0 {
		t.Fatalf("a socket has it: %v", out)
	}
	out := s.Decide(here("mona", "n1", "s2", 1), at(3))
	if len(out) != 1 {
		t.Fatalf("a new session: %v", out)
	}
	if frame := string(out[0].(decide.RouteTo).Route.GetFrame()); !strings.Contains(frame, `"body":"B"`) {
		t.Errorf("sent again without its content: %s", frame)
	}
}

// TestAReplayedDeliveryStandsAtTheSocket, also where the socket is not the first channel: the time to
// acknowledge counts, and a new session gets it.
func TestAReplayedDeliveryStandsAtTheSocket(t *testing.T) {
	t.Parallel()
	for _, in := range []decide.Input{here("mona", "n1", "s2", 1), decide.TimePassed{}} {
		s := restarted(t, socketSent("pay", "mona", 1))
		s.Decide(arrived("pay", "mona", 7, given{channels: []string{"push", "socket"}}), at(2))
		out := s.Decide(in, at(12))
		if len(out) == 0 {
			t.Fatalf("%T: nothing follows", in)
		}
		if got := said(out[0]); got != "route pay #2 to n1/s2" && got != "deferred unacknowledged" {
			t.Errorf("%T: %s", in, got)
		}
	}
}

// TestADeliveryThatOutlivesTheWindowIsStillKnown: scheduled for longer than ids are remembered and asked for
// again meanwhile, it is one delivery all the same.
func TestADeliveryThatOutlivesTheWindowIsStillKnown(t *testing.T) {
	t.Parallel()
	s := decide.NewState(0, decide.DefaultPolicy())
	s.Decide(decide.NodeChanged{Node: "n1", Incarnation: 1}, t0)
	s.Decide(here("mona", "n1", "s1", 1), t0)
	days := func(n int) time.Time { return t0.Add(time.Duration(n) * 24 * time.Hour) }
	s.Decide(arrived("pay", "mona", 7, given{sendAt: days(3), ttl: 4 * 24 * time.Hour}), t0)
	s.Decide(decide.TimePassed{}, days(2))
	var got []string
	for _, o := range s.Decide(arrived("pay", "mona", 8, given{}), days(2)) {
		got = append(got, said(o))
	}
	if want := []string{"duplicate_dropped", "settle 8"}; !slices.Equal(got, want) {
		t.Errorf("asked again: %q, want %q", got, want)
	}
	var routes []string
	for _, o := range s.Decide(decide.TimePassed{}, days(3)) {
		routes = append(routes, said(o))
	}
	if want := []string{"route pay #1 to n1"}; !slices.Equal(routes, want) {
		t.Errorf("its time has come: %q, want %q", routes, want)
	}
}

// TestAnswersToAParkedDeliveryOutliveARestart: facts about a parked delivery are let go once they are
// folded, so what they told must be in its record.
func TestAnswersToAParkedDeliveryOutliveARestart(t *testing.T) {
	t.Parallel()
	drop := whisperv1.FailureClass_FAILURE_CLASS_DROP
	s := decide.NewState(0, decide.DefaultPolicy())
	s.Decide(endpoint("mona", "ipad", "phone"), t0)
	s.Decide(arrived("pay", "mona", 7, given{}), t0)
	var parked *whisperv1.Parked
	keep := func(out []decide.Output) {
		for _, o := range out {
			if p, ok := o.(decide.Park); ok {
				parked = proto.CloneOf(p.Parked)
			}
		}
	}
	keep(s.Decide(decide.TimePassed{}, at(30)))
	keep(s.Decide(pushFailed("pay", "mona", "ipad", 1, drop), at(31)))

	s = decide.NewState(0, decide.DefaultPolicy())
	s.RestoreParked(parked)
	out := s.Decide(pushFailed("pay", "mona", "phone", 2, drop), at(32))
	if len(out) == 0 || said(out[0]) != "deferred away" {
		t.Errorf("after the last answer: %v", out)
	}
}

func TestARestartKnowsWhatEndedLate(t *testing.T) {
	t.Parallel()
	s := decide.NewState(0, decide.DefaultPolicy())
	seen := func(n string, ended time.Time) decide.SeenDelivery {
		d := decide.SeenDelivery{Hash: domain.HashDelivery(n, "mona"), Request: 1, AcceptedMs: at(0).UnixMilli()}
		if !ended.IsZero() {
			d.EndedMs = ended.UnixMilli()
		}
		return d
	}
	s.RestoreSeen(seen("early", time.Time{}), seen("late", time.Time{}), seen("late", at(200_000)), seen("late", at(200_001)))
	s.ReplayDone()
	s.Decide(n1, at(1))
	// From the second retraction on the command itself is one of the window's.
	for _, step := range []struct {
		at     int
		told   bool // that it was taken back
		window int
	}{{1, true, 2}, {100_000, true, 0}, {286_401, true, 0}, {286_402, false, 1}} {
		s.Decide(decide.TimePassed{}, at(step.at))
		got := s.Stats().Seen
		s.Decide(steer("retract", "late"), at(step.at))
		told := s.Decide(here("mona", "n1", fmt.Sprint(step.at), 1), at(step.at))
		if got != step.window || len(told) > 0 != step.told {
			t.Errorf("after %d s %d are duplicates, want %d; told %t", step.at, got, step.window, len(told) > 0)
		}
	}
}

// TestAReplayedDeliveryGoesByItsCategory: it was in flight when the partition moved, so only the facts tell of it. Its
// category still says that no phone gets it.
func TestAReplayedDeliveryGoesByItsCategory(t *testing.T) {
	t.Parallel()
	chat, err := category.Parse("default", []byte(`{"channels":["socket"]}`))
	if err != nil {
		t.Fatal(err)
	}
	s := decide.NewState(0, decide.DefaultPolicy())
	s.Decide(decide.CategoryChanged{Name: "default", Category: chat}, at(1))
	s.Decide(endpoint("mona", "phone"), at(1))
	s.Decide(socketSent("pay", "mona", 1), at(1))
	s.Decide(decide.NodeChanged{Node: "n1", Incarnation: 1}, at(1))
	s.Decide(here("mona", "n1", "s1", 1), at(1))
	in := arrived("pay", "mona", 7, given{})
	in.Event.GetDeliveryAccepted().ChannelsDefault = true
	s.Decide(in, at(2))
	s.ReplayDone()
	if out := s.Decide(decide.TimePassed{}, at(20)); len(out) == 0 || said(out[0]) != "deferred unacknowledged" {
		t.Errorf("nobody acknowledged: %v", out)
	}
}
