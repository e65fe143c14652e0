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

// waits are those of what was sent from number `from` on, the shortest first, and what those that are lost have waited until now.
func (l *latencies) waits(from int, now time.Time) (arrived, lost []time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := from; i < len(l.due); i++ {
		switch {
		case l.due[i].IsZero():
		case l.arrived[i].IsZero():
			lost = append(lost, now.Sub(l.due[i]))
		default:
			arrived = append(arrived, l.arrived[i].Sub(l.due[i]))
		}
	}
	slices.Sort(arrived)
	return arrived, lost
}

// quantiles of what was sent from number `from` on; the beginning warms up.
func (l *latencies) quantiles(from int) Quantiles {
	all, lost := l.waits(from, time.Now())
	q := Quantiles{Lost: len(lost)}
	if len(all) == 0 {
		return q
	}
	at := func(p float64) float64 { return milliseconds(all[min(int(p*float64(len(all))), len(all)-1)]) }
	q.P50, q.P99, q.P999 = at(0.50), at(0.99), at(0.999)
	return q
}

// longestGap is the longest time in which nothing arrived; it goes on until now where something is lost.
func (l *latencies) longestGap(now time.Time) (gap time.Duration) {
	l.mu.Lock()
	arrived := slices.DeleteFunc(slices.Clone(l.arrived), time.Time.IsZero)
	l.mu.Unlock()
	if len(arrived) < len(l.arrived) {
		arrived = append(arrived, now)
	}
	slices.SortFunc(arrived, time.Time.Compare)
	for i := 1; i < len(arrived); i++ {
		gap = max(gap, arrived[i].Sub(arrived[i-1]))
	}
	return gap
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// median of some figures.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	values = slices.Clone(values)
	slices.Sort(values)
	return values[len(values)/2]
}
