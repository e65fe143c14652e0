package requests

import (
	"context"
	"runtime"
	"slices"
	"sync"

	"github.com/klivvr/whisper/domain"
)

// leastShare: one turn in so many goes to the least urgent lane that waits, so that a long backlog of a more urgent one
// slows it down and does not stop it.
const leastShare = 8

// Turns share processors out among the partitions of the lanes that are not urgent, a slice at a time and the more
// urgent lane first. Without them the partitions of a backlog would all be runnable at once, and an alert's goroutine
// would wait for each of them.
type Turns struct {
	mu      sync.Mutex
	free    int
	given   uint // turns handed on
	waiting [len(domain.Lanes)][]chan struct{}
}

// NewTurns has n turns at a time.
func NewTurns(n int) *Turns { return &Turns{free: n} }

// Processors is how many partitions of less urgent lanes are worked on at once: half of what there is, so that an alert
// finds a processor at once.
func Processors() int { return max(1, runtime.GOMAXPROCS(0)/2) }

// Worker is one for a partition of the lane.
func (t *Turns) Worker(lane domain.Lane) Worker {
	w := Worker{turns: t, lane: lane}
	if lane == domain.High {
		w.turns = nil
	}
	return w
}

// take waits for a turn; false when ctx ended before.
func (t *Turns) take(ctx context.Context, lane domain.Lane) bool {
	t.mu.Lock()
	if t.free > 0 {
		t.free--
		t.mu.Unlock()
		return true
	}
	mine := make(chan struct{})
	t.waiting[lane] = append(t.waiting[lane], mine)
	t.mu.Unlock()
	select {
	case <-mine:
		return true
	case <-ctx.Done():
	}
	t.mu.Lock()
	at := slices.Index(t.waiting[lane], mine)
	if at >= 0 {
		t.waiting[lane] = slices.Delete(t.waiting[lane], at, at+1)
	}
	t.mu.Unlock()
	if at < 0 { // it was given meanwhile
		t.give()
	}
	return false
}

// give ends a turn. The next one is that of whoever waits longest in the most urgent lane, or, one time in leastShare, in
// the least urgent.
func (t *Turns) give() {
	t.mu.Lock()
	defer t.mu.Unlock()
	lanes := []int{0, 1, 2}
	if t.given++; t.given%leastShare == 0 {
		slices.Reverse(lanes)
	}
	for _, lane := range lanes {
		if w := t.waiting[lane]; len(w) > 0 {
			next := w[0]
			t.waiting[lane] = slices.Delete(w, 0, 1)
			close(next)
			return
		}
	}
	t.free++
}

// sliceBytes is how much a partition does in a turn: a millisecond or less. Whatever a record's size, it counts as
// recordWork at least.
const (
	sliceBytes = 256 << 10
	recordWork = 4 << 10
)

// Worker is a partition's part in the [Turns]. It belongs to the partition's goroutine. Of the high lane it takes no
// turns and only lets others go first now and then.
type Worker struct {
	turns *Turns // nil: needs none
	lane  domain.Lane
	has   bool
	done  int // bytes in this turn
}

// Begin waits for a turn; false when ctx ended before.
func (w *Worker) Begin(ctx context.Context) bool {
	if w.turns != nil && !w.has {
		w.has = w.turns.take(ctx, w.lane)
		return w.has
	}
	return true
}

// End gives a turn back.
func (w *Worker) End() {
	if w.has {
		w.has = false
		w.turns.give()
	}
	w.done = 0
}

// Did counts work, and lets others have their turn after a slice of it; false when ctx ended while it waited.
func (w *Worker) Did(ctx context.Context, bytes int) bool {
	if w.done += max(bytes, recordWork); w.done < sliceBytes {
		return true
	}
	w.End()
	runtime.Gosched()
	return w.Begin(ctx)
}

// Apart does what may wait for something else without a turn.
func (w *Worker) Apart(ctx context.Context, wait func()) {
	had := w.has
	w.End()
	if had {
		defer w.Begin(ctx)
	}
	wait()
}
