package gateway

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

// timekeeper rings sessions when something is due: a ping, its answer, the token's end, a write that
// waits, a goodbye that lingers. It is a wheel: a ring of slots, one a grain of time; what is due further
// than a turn away stays in its slot and is passed over. Setting and removing cost the same for any number
// of sessions, 32 bytes each and no timer.
type timekeeper struct {
	g     *Gateway
	grain int64 // nanoseconds

	mu    sync.Mutex
	at    int64 // the grain up to which it has rung
	slots [wheelSlots]alarm
}

const wheelSlots = 512 // two minutes of grains, longer than pings are apart

// alarm is a session's place in the wheel, in a ring with the slot's own; the timekeeper's lock guards it.
type alarm struct {
	next, prev *alarm
	due        int64
	s          *session
	removed    bool
}

func (a *alarm) unlink() {
	if a.next != nil {
		a.next.prev, a.prev.next = a.prev, a.next
		a.next, a.prev = nil, nil
	}
}

func newTimekeeper(g *Gateway) *timekeeper {
	// How late something may ring: at most a quarter of a second, and a tick.
	grain := min(250*time.Millisecond, g.cfg.PongTimeout/10, g.cfg.WriteTimeout/10, g.cfg.PingInterval/10)
	k := &timekeeper{g: g, grain: int64(max(grain, time.Millisecond))}
	k.at = g.now() / k.grain
	for i := range k.slots {
		k.slots[i].next, k.slots[i].prev = &k.slots[i], &k.slots[i]
	}
	return k
}

// firstPing is somewhere within the interval, so that sessions that came together are not pinged together.
func (k *timekeeper) firstPing() int64 { return rand.Int64N(int64(k.g.cfg.PingInterval)) }

// set replaces what the session waits for; 0: nothing. After remove it does nothing.
func (k *timekeeper) set(s *session, due int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	a := &s.alarm
	a.unlink()
	if due == 0 || a.removed {
		return
	}
	// What is late goes into the next slot that is looked at.
	slot := &k.slots[max(due/k.grain, k.at+1)%wheelSlots]
	a.s, a.due = s, due
	a.next, a.prev = slot, slot.prev
	slot.prev.next, slot.prev = a, a
}

// remove is idempotent, and for good.
func (k *timekeeper) remove(s *session) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s.alarm.unlink()
	s.alarm.removed = true
}

// each calls f with every session that waits for something, which all do until they are freed.
func (k *timekeeper) each(f func(*session)) {
	var all []*session
	k.mu.Lock()
	for i := range k.slots {
		for a := k.slots[i].next; a != &k.slots[i]; a = a.next {
			all = append(all, a.s)
		}
	}
	k.mu.Unlock()
	for _, s := range all {
		f(s)
	}
}

func (k *timekeeper) run(ctx context.Context) error {
	ticker := time.NewTicker(time.Duration(k.grain))
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			k.tick(k.g.now())
		}
	}
}

// tick rings everybody who is due. It makes up for ticks that did not come.
func (k *timekeeper) tick(now int64) {
	drift := k.g.drift()
	for _, s := range k.due(now) {
		s.ring(now, drift)
	}
}

func (k *timekeeper) due(now int64) (due []*session) {
	k.mu.Lock()
	defer k.mu.Unlock()
	until := now / k.grain
	for slot := max(k.at, until-wheelSlots+1); slot <= until; slot++ {
		first := &k.slots[slot%wheelSlots]
		for a := first.next; a != first; {
			next := a.next
			if a.due <= now {
				a.unlink()
				due = append(due, a.s)
			}
			a = next
		}
	}
	k.at = max(k.at, until) // looked at once more by the next tick, for what is due within it
	return due
}

// ring does what is due.
func (s *session) ring(now, drift int64) {
	var act func()
	s.mu.Lock()
	switch {
	case s.phase == freed:
	case s.deadline != 0 && s.deadline <= now:
		if s.writer == blocked && !s.link.attentive(s.deadline) {
			s.deadline = now + int64(s.g.cfg.WriteTimeout) // it may take more; it is us who did not look
			break
		}
		s.deadline = 0
		act = s.overdue
	case s.phase != open:
	case s.expires-drift <= now:
		act = func() { s.fail(refused(errTokenExpired)) }
	case s.restsUntil != 0 && s.restsUntil <= now:
		s.restsUntil = 0
		act = s.proceed
	case s.pingDue > now:
	case s.pinged == 0:
		s.pinged, s.pingDue = now, now+int64(s.g.cfg.PongTimeout)
		s.recent.age()
		act = func() { s.control(pingFrame) }
	case s.heard.Load() >= s.pinged:
		s.pingDue, s.pinged = s.pinged+int64(s.g.cfg.PingInterval), 0
	case s.restsUntil != 0 || !s.link.attentive(s.pingDue):
		s.pingDue = now + int64(s.g.cfg.PongTimeout) // it is us who did not listen
	default:
		act = s.silent
	}
	s.rearm()
	s.mu.Unlock()
	if act != nil {
		act()
	}
}

// silent: no answer to a ping.
func (s *session) silent() {
	s.part(closeGone, nil, false)
	s.cut()
}

// overdue: the socket took nothing for WriteTimeout, or the peer of a closed session does not hang up.
func (s *session) overdue() {
	s.mu.Lock()
	first, lost := s.giveUp(closeTooSlow)
	s.mu.Unlock()
	s.left(first, closeTooSlow, lost)
	s.part(closeTooSlow, nil, false)
	s.cut()
}
