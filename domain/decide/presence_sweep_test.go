package decide_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/klivvr/whisper/domain/decide"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// What nodes left that never come back ends, for their incarnation; of everybody else nothing is touched.
func TestASweepRemovesPresenceOfNodesThatNeverReturn(t *testing.T) {
	t.Parallel()
	old := func(user, node string, incarnation uint64, at time.Time) decide.PresenceChanged {
		return decide.PresenceChanged{User: user, Node: node, Presence: &whisperv1.Presence{
			UserId: user, Node: node, Incarnation: incarnation, Sessions: 1, LatestSession: "s", AtUs: at.UnixMicro(),
		}}
	}
	s := decide.NewState(0, decide.DefaultPolicy())
	s.Decide(decide.NodeChanged{Node: "lives", Incarnation: 7}, t0)
	long := t0.Add(-2 * time.Hour)
	for _, in := range []decide.PresenceChanged{
		old("mona", "pod-1", 1, long), old("mona", "pod-2", 2, long), old("mona", "lives", 7, long),
		old("omar", "pod-1", 1, long), old("omar", "fresh", 9, t0), old("lina", "silent", 3, long),
	} {
		s.Decide(in, t0)
	}
	sweep := decide.NodesSwept{Kept: map[string]bool{"silent": true}, Before: t0.Add(-time.Hour)}
	var got []string
	for _, o := range s.Decide(sweep, t0) {
		p := o.(decide.PutPresence)
		if p.Presence != nil {
			t.Errorf("%s on %s is written, not ended", p.User, p.Node)
		}
		got = append(got, fmt.Sprintf("%s %s %d", p.User, p.Node, p.Incarnation))
	}
	if want := []string{"mona pod-1 1", "mona pod-2 2", "omar pod-1 1"}; !slices.Equal(got, want) {
		t.Errorf("ended %v, want %v", got, want)
	}
	if out := s.Decide(sweep, t0); len(out) != 0 {
		t.Errorf("once more: %v", out)
	}
	if n := s.Stats().Connected; n != 3 {
		t.Errorf("%d users are left, want mona, omar and lina", n)
	}
}

// Whatever order the records of a user on a node come in, what the log's last record says is what the state holds,
// once what was decided about them is written, too.
func TestALateTombstoneOfAnEarlierIncarnationLoses(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := decide.NewState(0, decide.DefaultPolicy())
		var log []decide.PresenceChanged
		highest, at := uint64(0), t0
		for range rapid.IntRange(1, 12).Draw(t, "records") {
			at = at.Add(time.Millisecond)
			incarnation := rapid.Uint64Range(1, 4).Draw(t, "incarnation")
			if rapid.Bool().Draw(t, "ends") {
				log = append(log, decide.PresenceChanged{User: "mona", Node: "n1", Incarnation: min(incarnation, max(highest, 1))})
				continue
			}
			highest = max(highest, incarnation) // a later start's presence, never an earlier one's
			log = append(log, decide.PresenceChanged{User: "mona", Node: "n1", Incarnation: highest, Presence: &whisperv1.Presence{
				UserId: "mona", Node: "n1", Incarnation: highest, Sessions: 1, LatestSession: "s", AtUs: at.UnixMicro(),
			}})
		}
		for i := 0; i < len(log); i++ {
			for _, o := range s.Decide(log[i], at) {
				if p, ok := o.(decide.PutPresence); ok {
					log = append(log, decide.PresenceChanged(p))
				}
			}
			if len(log) > 1000 {
				t.Fatal("it writes without end")
			}
		}
		compacted := decide.NewState(0, decide.DefaultPolicy())
		compacted.Decide(log[len(log)-1], at)
		if compacted.Stats().Connected < s.Stats().Connected {
			t.Fatalf("the state holds mona, what compaction leaves does not: %v", log)
		}
	})
}
