// Package pace keeps the requests of one credential under the rate that its provider allows, and away from it while the
// provider asks for that (Retry-After, an exhausted quota).
//
// Buckets are golang.org/x/time/rate's. What is added is a rise over a minute, a freeze, and that nobody waits long: an attempt that
// would have to wait longer than MaxWait is told how long, and dispatch makes it again then. The rate is of this process;
// the operator divides a provider's quota by the processes.
package pace

import (
	"context"
	"net/http"
	"strconv"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Config is one credential's rate.
type Config struct {
	// PerSecond is the rate (0: unlimited). Burst is how many requests may go at once (default: a tenth of a second's).
	PerSecond float64
	Burst     int
	// Ramp is how long the rate takes to rise evenly from a tenth to the whole: at the start, after a freeze, and after no
	// request for as long. 0: the whole at once.
	Ramp time.Duration
	// MaxWait bounds how long an attempt waits for its turn (default 1 s). It holds a place among the attempts in flight
	// meanwhile, which is what slows the reading of the topic down.
	MaxWait time.Duration
	// MaxFreeze bounds what a Retry-After can ask for (default 1 h).
	MaxFreeze time.Duration
	Now       func() time.Time
}

// Pacer paces one credential. It is safe for concurrent use.
type Pacer struct {
	cfg     Config
	limiter *rate.Limiter

	mu     sync.Mutex
	rising time.Time // when the rise began
	last   time.Time // the last request
	frozen time.Time // nothing goes before
}

const (
	rampFrom  = 0.1
	rampSteps = 60
)

// New makes a pacer.
func New(cfg Config) *Pacer {
	if cfg.Burst <= 0 {
		cfg.Burst = max(1, int(cfg.PerSecond/10))
	}
	if cfg.MaxWait <= 0 {
		cfg.MaxWait = time.Second
	}
	if cfg.MaxFreeze <= 0 {
		cfg.MaxFreeze = MaxRetryAfter
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	p := &Pacer{cfg: cfg}
	if cfg.PerSecond > 0 {
		p.limiter = rate.NewLimiter(rate.Limit(cfg.PerSecond), cfg.Burst)
	}
	return p
}

// Wait waits for the attempt's turn and returns 0. If that is further away than MaxWait it returns at once how long it is
// and the attempt must not go; nothing is counted for it then. An error is that of ctx.
func (p *Pacer) Wait(ctx context.Context) (time.Duration, error) {
	turn, refused := p.take(p.cfg.Now())
	if refused > 0 || turn == nil {
		return refused, ctx.Err()
	}
	wait := turn.DelayFrom(p.cfg.Now())
	if wait <= 0 {
		return 0, ctx.Err()
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return p.left(p.cfg.Now()), nil // it may have been frozen meanwhile
	case <-ctx.Done():
		turn.CancelAt(p.cfg.Now())
		return 0, ctx.Err()
	}
}

// take reserves a turn, which is nil where there is no limit.
func (p *Pacer) take(now time.Time) (turn *rate.Reservation, refused time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if wait := p.frozen.Sub(now); wait > 0 {
		return nil, wait
	}
	if p.limiter == nil {
		return nil, 0
	}
	p.rise(now)
	turn = p.limiter.ReserveN(now, 1)
	if wait := turn.DelayFrom(now); wait > p.cfg.MaxWait {
		turn.CancelAt(now)
		return nil, wait
	}
	p.last = now
	return turn, 0
}

// rise sets the rate that holds now.
func (p *Pacer) rise(now time.Time) {
	if p.cfg.Ramp <= 0 {
		return
	}
	if p.rising.IsZero() || now.Sub(p.last) >= p.cfg.Ramp || p.rising.Before(p.frozen) {
		p.rising = now
	}
	// In steps: each change of the limit costs a little, and none is needed after the rise.
	step := min(rampSteps, int(now.Sub(p.rising)*rampSteps/p.cfg.Ramp))
	share := rampFrom + (1-rampFrom)*float64(step)/rampSteps
	if limit := rate.Limit(share * p.cfg.PerSecond); limit != p.limiter.Limit() {
		p.limiter.SetLimitAt(now, limit)
	}
}

// Freeze lets nothing go for so long from now, at most MaxFreeze. A longer freeze that holds already stays.
func (p *Pacer) Freeze(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if until := p.cfg.Now().Add(min(d, p.cfg.MaxFreeze)); until.After(p.frozen) {
		p.frozen = until
	}
}

// Frozen returns how long a freeze still lasts, or 0.
func (p *Pacer) Frozen() time.Duration { return p.left(p.cfg.Now()) }

func (p *Pacer) left(now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return max(0, p.frozen.Sub(now))
}

// MaxRetryAfter is the longest wait that a provider is believed. A longer one is more likely a fault than meant, and would keep
// a notification from its next channel until it has expired.
const MaxRetryAfter = time.Hour

// RetryAfter reads the header: seconds or a date. It is 0 where there is none, it is in the past, or it can't be read, and
// at most [MaxRetryAfter].
func RetryAfter(h http.Header, now time.Time) time.Duration {
	s := h.Get("Retry-After")
	if s == "" {
		return 0
	}
	if n, err := strconv.ParseFloat(s, 64); err == nil {
		if !(n > 0) { // nor NaN
			return 0
		}
		return time.Duration(min(n, MaxRetryAfter.Seconds()) * float64(time.Second))
	}
	if at, err := http.ParseTime(s); err == nil {
		return min(max(0, at.Sub(now)), MaxRetryAfter)
	}
	return 0
}
