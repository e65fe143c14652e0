package apns

import (
	"sync"
	"sync/atomic"
	"time"
)

// gate is closed while requests can't succeed: a refused credential or topic, a provider that is down. While it is
// closed, one attempt in each rest period passes as a probe, and its answer opens the gate or keeps it closed. It is safe
// for concurrent use; an open gate costs one atomic read.
type gate struct {
	rest time.Duration

	shut atomic.Bool

	mu      sync.Mutex
	reason  string
	next    time.Time // when the next probe may go
	probing bool
}

// pass says whether an attempt may go on, and whether it is the probe. If it may not, pass returns the reason and the
// time until the next probe.
func (g *gate) pass(now time.Time) (ok, probe bool, reason string, wait time.Duration) {
	if !g.shut.Load() {
		return true, false, "", 0
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.shut.Load() {
		return true, false, "", 0
	}
	if g.probing || now.Before(g.next) {
		return false, false, g.reason, max(g.next.Sub(now), time.Second)
	}
	g.probing = true
	return true, true, "", 0
}

// close closes the gate, or keeps it closed for another rest period. It says whether it was open.
func (g *gate) close(reason string, now time.Time) (was bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.reason, g.next, g.probing = reason, now.Add(g.rest), false
	return !g.shut.Swap(true)
}

// open opens the gate after a probe that succeeded.
func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.probing = false
	g.shut.Store(false)
}

// abandon ends a probe without a result: the next attempt is the probe.
func (g *gate) abandon() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.probing = false
}

// why returns the reason that the gate is closed for, or "".
func (g *gate) why() string {
	if !g.shut.Load() {
		return ""
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.reason
}

// This many failures in a row trip the provider's breaker.
const breakerStreak = 20

// spike distinguishes a burst of refused tokens from the few that there always are: at least spikeMin of them in this
// minute or the one before, and a fifth of all answers. Then most likely we ask the wrong environment, and pruning those
// tokens would remove most users' endpoints.
type spike struct {
	mu            sync.Mutex
	minute        int64
	refused, all  [2]int // this minute, the one before
	suspectsUntil time.Time
}

const (
	spikeMin   = 10
	spikeShare = 0.2
	// After the last sign of a spike nothing is pruned for this long.
	spikeRest = 10 * time.Minute
)

// answered counts one answer. suspect says that this refusal is no reason to prune the token; began says that the spike
// was noticed by this one.
func (s *spike) answered(refused bool, now time.Time) (suspect, began bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch minute := now.Unix() / 60; {
	case minute == s.minute+1:
		s.minute, s.refused, s.all = minute, [2]int{0, s.refused[0]}, [2]int{0, s.all[0]}
	case minute > s.minute+1:
		s.minute, s.refused, s.all = minute, [2]int{}, [2]int{}
	}
	s.all[0]++
	if !refused {
		return false, false
	}
	s.refused[0]++
	n := s.refused[0] + s.refused[1]
	if n >= spikeMin && float64(n) >= spikeShare*float64(s.all[0]+s.all[1]) {
		began = !now.Before(s.suspectsUntil)
		s.suspectsUntil = now.Add(spikeRest)
	}
	return now.Before(s.suspectsUntil), began
}
