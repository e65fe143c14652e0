package gateway

import (
	"runtime"
	"sync"
)

// flusher writes what waits for sockets that can be written to without waiting. Few goroutines serve all
// sessions: those with an alert or a control frame first, then the others in the order in which they
// came. While a session waits its turn, its frames gather and leave in one write.
type flusher struct {
	mu      sync.Mutex
	arrived *sync.Cond
	urgent  turn
	other   turn
	idle    int
	stopped bool
}

// turn is a queue of sessions, in two slices so that neither is copied: one is filled, one emptied.
type turn struct {
	in, out []*session
	head    int
}

func (t *turn) push(s *session) { t.in = append(t.in, s) }

// take moves at most n to into.
func (t *turn) take(into []*session, n int) []*session {
	if t.head == len(t.out) {
		t.in, t.out, t.head = t.out[:0], t.in, 0
	}
	n = min(n, len(t.out)-t.head)
	into = append(into, t.out[t.head:t.head+n]...)
	clear(t.out[t.head : t.head+n])
	t.head += n
	return into
}

func newFlusher() *flusher {
	f := &flusher{}
	f.arrived = sync.NewCond(&f.mu)
	return f
}

func (f *flusher) ready(s *session, urgent bool) {
	f.mu.Lock()
	switch {
	case urgent:
		f.urgent.push(s)
	case !s.inTurn: // else it has a place that an alert overtook, and moves up to it
		s.inTurn = true
		f.other.push(s)
	}
	wake := f.idle > 0
	f.mu.Unlock()
	if wake {
		f.arrived.Signal()
	}
}

// flushSlice is how many sessions one goroutine takes at a time; an alert that comes meanwhile is taken
// by another one, or after them.
const flushSlice = 16

func (f *flusher) run() {
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(f.work)
	}
	workers.Wait()
}

func (f *flusher) work() {
	box := newOutbox()
	batch := make([]*session, 0, flushSlice)
	for {
		if batch = f.next(batch[:0]); len(batch) == 0 {
			return
		}
		for _, s := range batch {
			s.flush(box)
		}
		clear(batch)
	}
}

// next waits for sessions; none: stopped.
func (f *flusher) next(into []*session) []*session {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		into = f.take(into, flushSlice)
		if len(into) > 0 || f.stopped {
			return into
		}
		f.idle++
		f.arrived.Wait()
		f.idle--
	}
}

// take is next without waiting; under the lock.
func (f *flusher) take(into []*session, n int) []*session {
	if into = f.urgent.take(into, n); len(into) > 0 {
		return into
	}
	into = f.other.take(into, n)
	for _, s := range into {
		s.inTurn = false
	}
	return into
}

// stop ends run once everything that waits is written.
func (f *flusher) stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stopped = true
	f.arrived.Broadcast()
}
