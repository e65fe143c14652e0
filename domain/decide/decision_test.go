package decide

import (
	"testing"
	"time"
)

// TestADecisionKeepsNothingOfTheLastOne: what was written may be large, and is not kept alive.
func TestADecisionKeepsNothingOfTheLastOne(t *testing.T) {
	t.Parallel()
	var d decision
	now := time.UnixMilli(5)
	d.begin(now)
	d.busy.note = "pay"
	for range 16*DueSlice + 1 {
		d.put(Reject{})
	}
	if len(d.out) != 16*DueSlice+1 || d.now != now {
		t.Fatalf("%d outputs at %v", len(d.out), d.now)
	}
	d.begin(now)
	if d.out != nil || d.busy != (busy{}) {
		t.Fatalf("room for %d is kept, busy %+v", cap(d.out), d.busy)
	}
	d.put(Unpark{})
	d.begin(now)
	if kept := d.out[:1]; len(d.out) != 0 || kept[0] != nil {
		t.Fatalf("%v is kept", kept)
	}
}
