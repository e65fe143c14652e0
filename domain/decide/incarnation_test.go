package decide_test

import (
	"fmt"
	"testing"

	"github.com/klivvr/whisper/domain/decide"
)

// TestOnlyItsOwnIncarnationRemovesPresence: an earlier start of a node that has not noticed yet, or whose
// last records come late, says nothing about the sessions of the one that lives.
func TestOnlyItsOwnIncarnationRemovesPresence(t *testing.T) {
	t.Parallel()
	tombstone := func(incarnation uint64) decide.PresenceChanged {
		return decide.PresenceChanged{User: "mona", Node: "n1", Incarnation: incarnation}
	}
	for name, tt := range map[string]struct {
		after decide.Input
		want  string
	}{
		"a tombstone of an earlier start": {tombstone(1), "route pay #1 to n1"},
		"presence of an earlier start":    {here("mona", "n1", "s0", 1), "route pay #1 to n1"},
		"its own tombstone":               {tombstone(2), "deferred away"},
		"a tombstone that says nothing":   {gone("mona", "n1"), "deferred away"},
	} {
		s := decide.NewState(0, decide.DefaultPolicy())
		s.Decide(decide.NodeChanged{Node: "n1", Incarnation: 2}, t0)
		s.Decide(here("mona", "n1", "s1", 2), t0)
		s.Decide(tt.after, t0)
		if out := s.Decide(arrived("pay", "mona", 7, given{}), t0); len(out) == 0 || said(out[0]) != tt.want {
			t.Errorf("%s: %v, want %s", name, out, tt.want)
		}
	}
}

// TestPresenceOfDeadIncarnationsIsForgotten: a node that was killed leaves its presence behind; it must not
// pile up with every start.
func TestPresenceOfDeadIncarnationsIsForgotten(t *testing.T) {
	t.Parallel()
	s := decide.NewState(0, decide.DefaultPolicy())
	s.Decide(decide.NodeChanged{Node: "n1", Incarnation: 1}, t0)
	for i := range 10 {
		s.Decide(here(fmt.Sprint("u", i), "n1", "s", 1), t0)
	}
	s.Decide(here("late", "n1", "s", 2), t0) // read before the heartbeat that makes it count
	s.Decide(decide.NodeChanged{Node: "n1"}, t0)
	if n := s.Stats().Connected; n != 11 {
		t.Errorf("%d users after a silence, want 11: it may only have been slow", n)
	}
	s.Decide(decide.NodeChanged{Node: "n1", Incarnation: 2}, t0)
	s.Decide(here("u0", "n1", "s", 1), t0)
	if n := s.Stats().Connected; n != 1 {
		t.Errorf("%d users after the next start, want 1", n)
	}
}
