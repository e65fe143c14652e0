package bench

import (
	"slices"
	"sync"
	"time"
)

// latencies of one measurement, by the number of what was sent. Time counts from when a record was due,
// not from when it got away, so a stall is charged to whoever stalled (no coordinated omission).
type latencies struct {
	mu      sync.Mutex
	due     []time.Time
	arrived []time.Time
	count   int
	changed chan struct{} // one token: something arrived

	handed *latencies // of the same records, until dispatch could read them; only where somebody looks
}

func newLatencies(n int) *latencies {
	return &latencies{
		due: make([]time.Time, n), arrived: make([]time.Time, n), changed: make(chan struct{}, 1),
		handed: &latencies{due: make([]time.Time, n), arrived: make([]time.Time, n), changed: make(chan struct{}, 1)},
	}
}

func (l *latencies) send(i int, due time.Time) {
	l.mu.Lock()
	l.due[i] = due
	l.mu.Unlock()
	if l.handed != nil {
		l.handed.send(i, due)
	}
}

// arrive notes the first arrival of i.
func (l *latencies) arrive(i int, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i < 0 || i >= len(l.arrived) || !l.arrived[i].IsZero() {
		return
	}
	l.arrived[i] = at
	l.count++
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

// join adds what another one measured, which is over.
func (l *latencies) join(other *latencies) {
	if l.handed != nil {
		l.handed.join(other.handed)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.due, l.arrived, l.count = append(l.due, other.due...), append(l.arrived, other.arrived...), l.count+other.count
}

func (l *latencies) total() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.count
}

// Quantiles of a measurement, in milliseconds.
type Quantiles struct {
	P50  float64 `json:"p50_ms"`
	P99  float64 `json:"p99_ms"`
	P999 float64 `json:"p999_ms"`
	Lost int     `json:"lost"`
}

// quantiles of what was sent from number `from` on; the beginning warms up.
func (l *latencies) quantiles(from int) Quantiles {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []time.Duration
	var q Quantiles
	for i := from; i < len(l.due); i++ {
		switch {
		case l.due[i].IsZero():
		case l.arrived[i].IsZero():
			q.Lost++
		default:
			all = append(all, l.arrived[i].Sub(l.due[i]))
		}
	}
	if len(all) == 0 {
		return q
	}
	slices.Sort(all)
	at := func(p float64) float64 {
		return float64(all[min(int(p*float64(len(all))), len(all)-1)].Microseconds()) / 1000
	}
	q.P50, q.P99, q.P999 = at(0.50), at(0.99), at(0.999)
	return q
}

// median of some figures.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	values = slices.Clone(values)
	slices.Sort(values)
	return values[len(values)/2]
}
