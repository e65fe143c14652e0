package gate

import (
	"sync/atomic"
	"time"
)

// Breaker is a gate that failures in a row close: a provider that answers nothing, or 5xx. While it is closed each
// failed probe keeps it closed, and a probe that is answered opens it. A breaker that tells its owner nothing
// trips after Streak failures.
type Breaker struct {
	*Gate
	trip   int32
	streak atomic.Int32
}

// Streak is how many failures in a row trip a breaker unless it is told otherwise. A few are always there.
const Streak = 20

// NewBreaker makes an open breaker that trips after so many failures in a row (0: Streak).
func NewBreaker(trip int, cfg Config) *Breaker {
	if trip <= 0 {
		trip = Streak
	}
	return &Breaker{Gate: New(cfg), trip: int32(min(trip, 1<<30))}
}

// Failed counts a failure.
func (b *Breaker) Failed(reason string, now time.Time) {
	if b.streak.Add(1) >= b.trip {
		b.Close(reason, now)
	}
}

// Answered ends the streak: the provider answered, whatever it said. It opens nothing; the passage of a probe does.
func (b *Breaker) Answered() {
	if b.streak.Load() != 0 {
		b.streak.Store(0)
	}
}

// Failures is how many there were in a row.
func (b *Breaker) Failures() int { return int(b.streak.Load()) }
