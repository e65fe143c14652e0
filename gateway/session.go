package gateway

import (
	"sync"
	"sync/atomic"
	"time"
	"unique"
)

// The send queue of a session: control frames (welcome, errors, pings) before the lanes.
const (
	queueControl = iota
	queueHigh    // + the lane's number
	_
	_
	queues
)

// closeLinger is how long a closed session waits for the peer to read the close frame and hang up.
const closeLinger = time.Second

// longestSession bounds a session whose token never really expires.
const longestSession = 365 * 24 * time.Hour

// session is one socket. Frames are queued from any goroutine without blocking; what is queued is written
// by the flusher, or by a goroutine where writes may wait. 448 bytes at rest.
type session struct {
	g       *Gateway
	link    link
	id      string
	user    string // empty: refused, lives only to be told why
	address address
	client  unique.Handle[string] // what the client calls itself

	heard atomic.Int64 // the last frame or pong, by Gateway.now as all times but the token's
	alarm alarm        // the timekeeper's
	// The flusher's: the session has a place among those that are not urgent.
	inTurn bool

	refreshing atomic.Bool // a refresh waits for the key set

	// The reader's own.
	in     frameReader
	frames meter
	ids    meter

	mu         sync.Mutex
	login      login
	expires    int64 // of the token, in Unix nanoseconds
	pinged     int64 // when the ping went out that waits for its pong; 0: none
	pingDue    int64
	deadline   int64 // when the socket is cut, or a blocked write given up; 0: never
	restsUntil int64 // nothing is read until then: it has used its share; 0: it has not
	queue      [queues]fifo
	queued     int // bytes waiting or being written
	unacked    unacked
	recent     recent
	stuck      *stuck // a write that the socket took a part of
	goodbye    wireFrame
	code       int32
	since      int32 // seconds of the gateway's life
	writer     writing
	urgent     bool // waits among the urgent
	auto       bool // taken by the socket counts as delivered, where the route lets it
	phase      phase
	readDone   bool // the reader has ended
	deafened   bool // the peer has said goodbye
}

// outgoing is a queued frame; d is nil for control frames.
type outgoing struct {
	next  *outgoing
	frame wireFrame
	d     *delivery
}

// fifo is a queue that costs nothing while it is empty.
type fifo struct{ first, last *outgoing }

func (q *fifo) push(o *outgoing) {
	if q.last == nil {
		q.first = o
	} else {
		q.last.next = o
	}
	q.last = o
}

func (q *fifo) pop() *outgoing {
	o := q.first
	if q.first = o.next; q.first == nil {
		q.last = nil
	}
	return o
}

func newSession(g *Gateway, grant grant, auto bool) *session {
	now := g.now()
	s := &session{g: g, id: randomID(), user: grant.user, login: grant.login, expires: lastOf(grant.until, g.cfg.Now()), auto: auto}
	s.in.limit = int32(g.cfg.MaxFrame)
	s.heard.Store(now)
	s.owe(now, g.strangers.debt(grant.user, now))
	s.since = int32((now - g.began.UnixNano()) / int64(time.Second)) // for 68 years
	s.pingDue = now + g.timekeeper.firstPing()
	return s
}

// join lets frames come, after what is in first: whoever finds the session in the hub waits for the lock.
// The caller must flush, and close the session that made room for this one, if there is one.
func (s *session) join(first wireFrame) (displaced *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	displaced = s.g.hub.add(s)
	s.writer, s.urgent = waiting, true // for the caller
	s.push(queueControl, first, nil)
	s.rearm()
	return displaced
}

// send queues a delivery's frame. false: the session is closed or was too slow, and d was not queued.
func (s *session) send(frame wireFrame, d *delivery) bool {
	s.mu.Lock()
	if s.phase != open {
		s.mu.Unlock()
		return false
	}
	if s.full(frame) {
		s.mu.Unlock()
		s.close(closeTooSlow, "too slow: the send buffer is full", false)
		return false
	}
	switch {
	case s.auto && d.explicit:
		s.recent.await(d)
	case !s.auto:
		if s.unacked.len() >= s.g.cfg.MaxUnacked {
			s.mu.Unlock()
			s.close(closeTooSlow, "too slow: too many unacknowledged notifications", false)
			return false
		}
		s.unacked.add(d)
	}
	s.enqueue(queueHigh+int(d.facts.Lane), frame, d)
	s.mu.Unlock()
	return true
}

// control queues a frame of our own, before all lanes.
func (s *session) control(frame wireFrame) {
	s.mu.Lock()
	if s.phase != open {
		s.mu.Unlock()
		return
	}
	if s.full(frame) {
		s.mu.Unlock()
		s.close(closeTooSlow, "too slow: the send buffer is full", false)
		return
	}
	s.enqueue(queueControl, frame, nil)
	s.mu.Unlock()
}

// full: the frame has no room. One that is larger than the buffer goes alone, or it could never be sent.
func (s *session) full(frame wireFrame) bool {
	return s.queued > 0 && s.queued+len(frame) > s.g.cfg.SendBuffer
}

func (s *session) push(queue int, frame wireFrame, d *delivery) {
	s.queue[queue].push(&outgoing{frame: frame, d: d})
	s.queued += len(frame)
}

func (s *session) enqueue(queue int, frame wireFrame, d *delivery) {
	s.push(queue, frame, d)
	s.startWriter(queue <= queueHigh)
}

// startWriter gets what is queued written. An alert moves a session that waits its turn to the front.
func (s *session) startWriter(urgent bool) {
	switch {
	case s.writer == idle:
		s.writer = waiting
	case s.writer == waiting && urgent && !s.urgent && s.link.direct():
	default:
		return
	}
	s.urgent = urgent
	if s.link.direct() {
		s.g.flusher.ready(s, urgent)
		return
	}
	go func() {
		box := outboxes.Get().(*outbox)
		s.flush(box)
		outboxes.Put(box)
	}()
}

// rearm tells the timekeeper when to look at the session next; under the lock.
func (s *session) rearm() {
	due := s.deadline
	if s.phase == open {
		due = earliest(due, min(s.expires-s.g.drift(), s.pingDue))
		if s.restsUntil != 0 {
			due = min(due, s.restsUntil)
		}
	}
	s.g.timekeeper.set(s, due)
}

func earliest(a, b int64) int64 {
	if a == 0 || b < a {
		return b
	}
	return a
}
