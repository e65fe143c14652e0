// Package gate holds attempts back while they can't succeed. A [Gate] is closed by a verdict (a refused credential), a
// [Breaker] by failures in a row, and a [Spike] tells when refused endpoints are our own fault. [Enter] asks several gates at
// once.
//
// It knows no provider and no Kafka, never waits, logs nothing and starts nothing: times come from the caller, and
// changes of state are told to functions of the owner. State is in memory: after a restart every gate is open, so one attempt
// finds out again.
package gate

import (
	"sync"
	"sync/atomic"
	"time"
)

// Config is what a gate is made of.
type Config struct {
	// Rest is how long a closed gate lets nothing pass before one attempt probes.
	Rest time.Duration
	// OnClose is called once when an open gate closes, OnOpen once when it opens. They must return soon; either may be nil.
	OnClose func(reason string)
	OnOpen  func()
}

// Gate is closed while requests can't succeed. While it is closed, one attempt in each rest period passes as a probe, and
// its answer opens the gate or keeps it closed. It is safe for concurrent use; an open gate costs one atomic read.
type Gate struct {
	cfg  Config
	shut atomic.Bool

	mu      sync.Mutex
	reason  string
	next    time.Time // when the next probe may go
	probing bool
}

// New makes an open gate.
func New(cfg Config) *Gate { return &Gate{cfg: cfg} }

// pass says whether an attempt may go on, and whether it is the probe. If it may not, pass returns the reason and the
// time until the next probe.
func (g *Gate) pass(now time.Time) (ok, probe bool, reason string, wait time.Duration) {
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

// Close closes the gate, or keeps it closed, for a rest period from now.
func (g *Gate) Close(reason string, now time.Time) { g.CloseFor(reason, now, g.cfg.Rest) }

// CloseFor is Close with a rest of its own, as a Retry-After names it.
func (g *Gate) CloseFor(reason string, now time.Time, rest time.Duration) {
	g.mu.Lock()
	g.reason, g.next, g.probing = reason, now.Add(rest), false
	was := g.shut.Swap(true)
	g.mu.Unlock()
	if !was && g.cfg.OnClose != nil {
		g.cfg.OnClose(reason)
	}
}

// open opens the gate after a probe that succeeded.
func (g *Gate) open() {
	g.mu.Lock()
	g.probing = false
	was := g.shut.Swap(false)
	g.mu.Unlock()
	if was && g.cfg.OnOpen != nil {
		g.cfg.OnOpen()
	}
}

// abandon ends a probe without a result: the next attempt is the probe.
func (g *Gate) abandon() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.probing = false
}

// Why returns the reason that the gate is closed for, or "".
func (g *Gate) Why() string {
	if !g.shut.Load() {
		return ""
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.reason
}

// maxGates bounds the gates that one attempt passes.
const maxGates = 4

// Passage records the gates at which an attempt is the probe. Answered, AnsweredAt or Abandon must end it: a gate waits for its
// probe for ever. The zero Passage is at none.
type Passage struct {
	probes [maxGates]*Gate
	n      int
}

// Refusal is why an attempt may not go on.
type Refusal struct {
	// Gate is the place of the closed gate among those that were asked.
	Gate   int
	Reason string
	// Wait is the time until the next probe, at least a second.
	Wait time.Duration
}

// Enter asks the gates in order; those that are nil are open. If one is closed, the attempt is a probe of none.
func Enter(now time.Time, gates ...*Gate) (taken Passage, refused Refusal, ok bool) {
	for i, g := range gates {
		if g == nil {
			continue
		}
		ok, probe, reason, wait := g.pass(now)
		if !ok {
			taken.Abandon()
			return Passage{}, Refusal{Gate: i, Reason: reason, Wait: wait}, false
		}
		if probe {
			taken.probes[taken.n] = g
			taken.n++
		}
	}
	return taken, Refusal{}, true
}

// Answered opens the gates that the attempt probed: the provider took what they hold back.
func (p *Passage) Answered() {
	for _, g := range p.probes[:p.n] {
		g.open()
	}
	p.n = 0
}

// AnsweredAt opens g if the attempt probed it, and ends its other probes without a result.
func (p *Passage) AnsweredAt(g *Gate) {
	for _, probed := range p.probes[:p.n] {
		if probed == g {
			probed.open()
		} else {
			probed.abandon()
		}
	}
	p.n = 0
}

// Abandon ends the probes without a result: the next attempt probes.
func (p *Passage) Abandon() {
	for _, g := range p.probes[:p.n] {
		g.abandon()
	}
	p.n = 0
}
