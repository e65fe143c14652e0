package requests

import (
	"context"
	"runtime"
	"testing"

	"github.com/klivvr/whisper/domain"
)

func TestTurnsGoToTheMostUrgentLane(t *testing.T) {
	t.Parallel()
	turns := NewTurns(1)
	if !turns.take(t.Context(), domain.Low) {
		t.Fatal("no turn, and nobody has one")
	}
	got := make(chan string)
	wait := func(ctx context.Context, name string, lane domain.Lane, before int) {
		go func() {
			if turns.take(ctx, lane) {
				got <- name
			} else {
				got <- name + " gave up"
			}
		}()
		for waiting := before; waiting <= before; {
			runtime.Gosched()
			turns.mu.Lock()
			waiting = len(turns.waiting[lane])
			turns.mu.Unlock()
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	wait(t.Context(), "low 1", domain.Low, 0)
	wait(ctx, "low 2", domain.Low, 1)
	wait(t.Context(), "low 3", domain.Low, 2)
	wait(t.Context(), "normal", domain.Normal, 0)
	cancel()
	if name := <-got; name != "low 2 gave up" {
		t.Errorf("%s, but low 2 should have given up", name)
	}
	for _, want := range []string{"normal", "low 1", "low 3"} {
		turns.give()
		if name := <-got; name != want {
			t.Errorf("the turn went to %s, not to %s", name, want)
		}
	}
	turns.give()
	if turns.free != 1 {
		t.Errorf("%d turns are free at the end, there is 1", turns.free)
	}
}

// TestNoLaneWaitsForEver: while the normal lane always has work, the low one is slow and does not stand still.
func TestNoLaneWaitsForEver(t *testing.T) {
	t.Parallel()
	turns := NewTurns(1)
	if !turns.take(t.Context(), domain.Normal) {
		t.Fatal("no turn, and nobody has one")
	}
	low := make(chan struct{})
	turns.waiting[domain.Low] = append(turns.waiting[domain.Low], low)
	given := 0
	for waits := true; waits; given++ {
		normal := make(chan struct{})
		turns.waiting[domain.Normal] = append(turns.waiting[domain.Normal], normal)
		turns.give()
		select {
		case <-low:
			waits = false
		case <-normal:
		}
	}
	if given != leastShare {
		t.Errorf("the low lane has waited for %d turns, want %d", given, leastShare)
	}
}
