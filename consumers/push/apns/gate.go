package apns

import (
	"sync"
	"sync/atomic"
	"time"
)

// gate is shut when asking can't succeed: a refused credential or topic, a provider that is down.
// While it is shut, one attempt per rest goes through as a probe, and its answer opens the gate or
// keeps it shut. Safe for concurrent use; an open gate costs one atomic read.
type gate struct {
	rest time.Duration

	shut atomic.Bool

	mu      sync.Mutex
	reason  string
	next    time.Time // when the next probe may go
	probing bool
}

// pass says whether an attempt may go on, and whether it is the probe; otherwise why not and how long
// until the next probe.
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

// close shuts the gate, or keeps it shut for another rest; it says whether it was open.
func (g *gate) close(reason string, now time.Time) (was bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.reason, g.next, g.probing = reason, now.Add(g.rest), false
	return !g.shut.Swap(true)
}

// open is for the probe that was answered well.
func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.probing = false
	g.shut.Store(false)
}

// abandon is for a probe that found nothing out: the next attempt is the probe.
func (g *gate) abandon() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.probing = false
}

// why is the reason that the gate is shut for, or "".
func (g *gate) why() string {
	if !g.shut.Load() {
		return ""
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.reason
}

// A streak of failures that trips the provider's breaker.
const breakerStreak = 20

// spike tells many refused tokens in a short time from the few that a healthy base always has: at
// least spikeMin of them in a minute or the one before, and a fifth of all answers. Then we most likely
// ask the wrong environment, and forgetting those tokens would empty the base.
type spike struct {
	mu            sync.Mutex
	minute        int64
	refused, all  [2]int // this minute, the one before
	suspectsUntil time.Time
}

const (
	spikeMin   = 10
	spikeShare = 0.2
	// After the last sign of a spike nothing is forgotten for this long.
	spikeRest = 10 * time.Minute
)

// answered counts one answer. suspect: this refusal is no reason to forget the token; began: it is
// the one that told.
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
