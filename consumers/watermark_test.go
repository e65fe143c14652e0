package consumers

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestWatermark: whatever the order in which records are done, gaps between offsets or not, what may be
// committed is one past the last record before which all are done; and nothing is held that is settled.
func TestWatermark(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		p := &Partition{}
		p.next.Store(-1)
		w := NewWatermark(p)
		offset := rapid.Int64Range(0, 1<<40).Draw(t, "first")
		most := rapid.Int64Range(1, 5).Draw(t, "gap")
		var taken, open []int64
		done := func(i int) {
			w.Done(open[i])
			open = slices.Delete(open, i, i+1)
		}
		t.Repeat(map[string]func(*rapid.T){
			"take": func(t *rapid.T) {
				for range rapid.IntRange(1, 400).Draw(t, "n") {
					w.Take(offset)
					taken, open = append(taken, offset), append(open, offset)
					offset += 1 + (offset*7)%most
				}
			},
			"done in order": func(t *rapid.T) {
				for range min(len(open), rapid.IntRange(1, 400).Draw(t, "n")) {
					done(0)
				}
			},
			"done out of order": func(t *rapid.T) {
				for range min(len(open), rapid.IntRange(1, 50).Draw(t, "n")) {
					done(rapid.IntRange(0, len(open)-1).Draw(t, "i"))
				}
			},
			"told twice": func(t *rapid.T) {
				if len(taken) > 0 {
					if i := rapid.IntRange(0, len(taken)-1).Draw(t, "i"); !slices.Contains(open, taken[i]) {
						w.Done(taken[i])
					}
				}
			},
			"never taken": func(*rapid.T) { w.Done(offset + 1) },
			"": func(t *rapid.T) {
				want, held := int64(-1), 0
				switch {
				case len(open) > 0: // the slowest
					i := slices.Index(taken, open[0])
					held = len(taken) - i
					if i > 0 {
						want = taken[i-1] + 1
					}
				case len(taken) > 0:
					want = taken[len(taken)-1] + 1
				}
				if got := p.next.Load(); got != want {
					t.Fatalf("%d may be committed, want %d", got, want)
				}
				if got := w.InFlight(); got != held {
					t.Fatalf("%d are in flight, want %d", got, held)
				}
			},
		})
	})
}
