package gateway

import (
	"sync"
	"time"
)

// A price is how long one piece of work uses up the allowance of whoever asks for it. What is limited is work,
// not how it is wrapped: a frame, each id in it, a token.
type price = time.Duration

const (
	// priceBadToken of a token that nobody we trust signed; priceOldToken of one that has expired or was revoked:
	// its bearer was let in once, and learns by it that a new one is due.
	priceBadToken = 500 * time.Millisecond
	priceOldToken = 50 * time.Millisecond
	tokenRoom     = 30 * time.Second

	// priceID of an id that tells nothing new, or none of this session's; priceStranger of one that was not sent to
	// the session and is told as a fact all the same. idRoom is 256 of those at once, and then 5 a second. A user has
	// as much as all the sessions that they may have at once (priceStrangerOfUser).
	priceID       = 2 * time.Millisecond
	priceStranger = 200 * time.Millisecond
	idRoom        = maxIDs * priceStranger

	// priceLogLine of a line in the log about refusals for one reason: one at a time.
	priceLogLine = 10 * time.Second
)

// meter bounds the work of one client, without a timer: when all that it had done would be paid for, had it come
// evenly (Unix nanoseconds). As much as fits a room may come at once.
type meter int64

// allow takes a piece of work, or says that there is no room for it.
func (m *meter) allow(now int64, p price, room time.Duration) bool {
	if m.debt(now, room) > 0 {
		return false
	}
	m.charge(now, p)
	return true
}

// charge notes work that was done, also more than there was room for.
func (m *meter) charge(now int64, p price) { *m = meter(max(int64(*m), now) + int64(p)) }

// debt is how long it takes until there is room again; at most 0: there is.
func (m *meter) debt(now int64, room time.Duration) time.Duration {
	return time.Duration(max(int64(*m), now)-now) - room
}

// limiter has a meter for each key. One costs some 60 bytes until its work is paid for. Two things are limited so: bad
// tokens of an address, which are paid before there is a session; and the reads of a user that tell of what no session of
// theirs was sent, since whoever connects anew has a session whose own meter is empty.
type limiter[K comparable] struct {
	room time.Duration

	mu     sync.Mutex
	meters map[K]meter
	swept  int64
}

// maxMeters bounds the memory; who comes above it shares one meter.
const maxMeters = 100_000

func newLimiter[K comparable](room time.Duration) *limiter[K] {
	return &limiter[K]{room: room, meters: map[K]meter{}}
}

// allow takes a piece of work of one of them, or says that there is no room for it.
func (l *limiter[K]) allow(of K, now int64, p price) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	of = l.known(of, now)
	m := l.meters[of]
	ok := m.allow(now, p, l.room)
	l.meters[of] = m
	return ok
}

// charge notes work that was done, and says how long it takes until there is room again.
func (l *limiter[K]) charge(of K, now int64, p price) (debt time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	of = l.known(of, now)
	m := l.meters[of]
	m.charge(now, p)
	l.meters[of] = m
	return m.debt(now, l.room)
}

// debt is how long it takes until there is room; at most 0: there is.
func (l *limiter[K]) debt(of K, now int64) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	m := l.meters[of]
	return m.debt(now, l.room)
}

// known is the key whose meter counts; under the lock.
func (l *limiter[K]) known(of K, now int64) K {
	passed := now - l.swept
	if passed > int64(l.room) || len(l.meters) > maxMeters/2 && passed > int64(time.Second) {
		l.sweep(now)
	}
	if _, known := l.meters[of]; !known && len(l.meters) >= maxMeters {
		var shared K
		return shared
	}
	return of
}

// sweep forgets what is paid for.
func (l *limiter[K]) sweep(now int64) {
	l.swept = now
	for k, m := range l.meters {
		if int64(m) <= now {
			delete(l.meters, k)
		}
	}
}
