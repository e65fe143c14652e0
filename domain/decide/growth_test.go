package decide_test

import (
	"fmt"
	"runtime"
	"slices"
	"testing"

	"github.com/klivvr/whisper/domain/category"
	"github.com/klivvr/whisper/domain/decide"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// allocated is how many bytes run takes, whatever is given back meanwhile: a look at a list of all that are held costs such a list.
func allocated(run func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	run()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// TestTroubleCostsInProportion: four times as many deliveries of one user take four times as much, and never more of one decision than
// a slice.
func TestTroubleCostsInProportion(t *testing.T) { //nolint:paralleltest // it counts everybody's allocations
	const few = 2_000
	for name, run := range map[string]func(w *trouble, n int) func(){
		"quiet hours end": func(w *trouble, n int) func() {
			w.atNight("mona", n)
			w.now = morning
			return func() { w.passAll() }
		},
		"quiet hours end, and a newer one comes": func(w *trouble, n int) func() {
			w.atNight("mona", n)
			w.now, w.most, w.routes = morning, 0, -1
			return func() { w.send("new", "mona"); w.passAll() }
		},
		"the user connects": func(w *trouble, n int) func() {
			for range n {
				w.send(w.note(), "mona")
			}
			return func() { w.do(here("mona", "n1", "s", 1)); w.passAll() }
		},
	} {
		cost := func(n int) uint64 {
			w := newTrouble(t)
			begin := run(w, n)
			w.most = 0
			bytes := allocated(begin)
			if w.routes != n {
				t.Errorf("%s: %d of %d went out", name, w.routes, n)
			}
			if w.most > 2*256 {
				t.Errorf("%s: %d outputs of one decision", name, w.most)
			}
			return bytes
		}
		if one, four := cost(few), cost(4*few); four > 6*one {
			t.Errorf("%s: %d bytes for %d, %d for %d", name, one, few, four, 4*few)
		}
	}
}

// TestTheReadyQueueKeepsALaneInOrder: what quiet hours held goes before what comes while it is let out, slice by slice.
func TestTheReadyQueueKeepsALaneInOrder(t *testing.T) {
	t.Parallel()
	const held = 1_000
	w := newTrouble(t)
	w.atNight("mona", held)
	w.now = morning
	for i := range 10 {
		w.send(fmt.Sprint("new", i), "mona")
		w.do(decide.TimePassed{})
	}
	w.passAll()
	if len(w.order) != held+10 {
		t.Fatalf("%d went out", len(w.order))
	}
	for i, note := range w.order {
		if want := fmt.Sprint("n", i); i < held && note != want {
			t.Fatalf("%s went out at place %d", note, i)
		}
		if want := fmt.Sprint("new", i-held); i >= held && note != want {
			t.Fatalf("%s went out at place %d", note, i)
		}
	}
}

// TestTheReadyQueueIsServedBetweenOtherRecords: an alert for another user goes out at once, whatever waits for its turn.
func TestTheReadyQueueIsServedBetweenOtherRecords(t *testing.T) {
	t.Parallel()
	w := newTrouble(t)
	w.do(here("omar", "n1", "s", 1))
	w.atNight("mona", 1_000)
	w.now = morning
	w.send("new", "mona")
	w.send("alert", "omar")
	if len(w.order) != 1 || w.order[0] != "alert" {
		t.Fatalf("%v went out", w.order)
	}
	if due, any := w.s.NextDue(); !any || due.After(w.now) {
		t.Fatal("nobody looks at those who wait for their turn")
	}
}

// TestAnAlertReachesASleepingUserAtOnce: what passes quiet hours does not wait for what they hold, however much that is.
func TestAnAlertReachesASleepingUserAtOnce(t *testing.T) {
	t.Parallel()
	w := newTrouble(t)
	c, err := category.Parse("chat", []byte(`{"quiet_hours":"pass"}`))
	if err != nil {
		t.Fatal(err)
	}
	w.do(decide.CategoryChanged{Name: "chat", Category: c})
	w.atNight("mona", 1_000)
	w.category = "chat"
	w.send("alert", "mona")
	if len(w.order) != 1 || w.order[0] != "alert" {
		t.Fatalf("%v went out", w.order)
	}
}

// TestARestartInTheMiddleOfARelease: who still waits for a turn gets it from the process after.
func TestARestartInTheMiddleOfARelease(t *testing.T) {
	t.Parallel()
	const held = 1_000
	w := newTrouble(t)
	w.parked = map[string]*whisperv1.Parked{}
	w.atNight("mona", held)
	w.now = morning
	w.send("new", "mona") // its offset is not let go
	w.do(decide.TimePassed{})
	before := len(w.order)
	w.s = decide.NewState(0, decide.DefaultPolicy())
	for _, key := range slices.Sorted(mapsKeys(w.parked)) {
		w.s.RestoreParked(w.parked[key])
	}
	w.s.ReplayDone()
	w.do(decide.NodeChanged{Node: "n1", Incarnation: 1})
	w.do(here("mona", "n1", "s", 1))
	w.took(w.s.Resume(w.now))
	w.order = w.order[:before]
	w.send("new", "mona")
	w.passAll()
	if got := w.order[before:]; len(got) != held+1 || got[held] != "new" {
		t.Fatalf("%d went out after the restart, the last one %s", len(got), got[len(got)-1])
	}
}
