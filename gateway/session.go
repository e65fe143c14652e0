package gateway

import (
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
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

// session is one socket. Frames are queued from any goroutine without blocking; a goroutine writes while
// there is something to write, another reads for as long as the socket lives and frees everything.
type session struct {
	g       *Gateway
	conn    *websocket.Conn // for reading; writes go to net, whole frames at a time
	net     net.Conn
	id      string
	user    string    // empty: refused, lives only to be told why
	auto    bool      // taken by the socket counts as delivered
	expires time.Time // the timekeeper's lock guards it

	refreshing atomic.Bool // a refresh waits for the key set

	heard atomic.Int64 // Unix nanoseconds of the last frame or pong
	alarm alarm        // the timekeeper's

	mu       sync.Mutex
	queue    [queues]fifo
	queued   int // bytes waiting or being written
	writing  bool
	unacked  map[domain.DeliveryHash]*delivery
	recent   recent
	closing  bool
	goodbye  wireFrame // goes out when everything before it did
	parted   bool      // goodbye is written, or can't be
	readDone bool      // the reader has ended: the writer closes the socket
	code     int
	login    login
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

func newSession(g *Gateway, conn *websocket.Conn, grant grant, auto bool) *session {
	expires := grant.until
	if latest := g.cfg.Now().Add(longestSession); expires.After(latest) {
		expires = latest // also keeps nanoseconds within 64 bits
	}
	s := &session{g: g, conn: conn, net: conn.NetConn(), id: randomID(), user: grant.user, login: grant.login, expires: expires, auto: auto}
	s.alarm.index = -1
	s.heard.Store(g.cfg.Now().UnixNano())
	return s
}

// join lets frames come, the welcome first: whoever finds the session in the hub waits for the lock.
// false: the user has too many.
func (s *session) join() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.g.hub.add(s) {
		return false
	}
	s.enqueue(queueControl, welcomeFrame(s.id, s.g.cfg.PingInterval), nil)
	return true
}

// send queues a delivery's frame. false: the session is closed or was too slow, and d was not queued.
func (s *session) send(frame wireFrame, d *delivery) bool {
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		return false
	}
	if s.queued+len(frame) > s.g.cfg.SendBuffer {
		s.mu.Unlock()
		s.close(closeTooSlow, "too slow: the send buffer is full", false)
		return false
	}
	if !s.auto {
		if len(s.unacked) >= s.g.cfg.MaxUnacked {
			s.mu.Unlock()
			s.close(closeTooSlow, "too slow: too many unacknowledged notifications", false)
			return false
		}
		if s.unacked == nil {
			s.unacked = make(map[domain.DeliveryHash]*delivery)
		}
		s.unacked[d.id.Hash()] = d
	}
	s.enqueue(queueHigh+int(d.lane), frame, d)
	s.mu.Unlock()
	return true
}

// control queues a frame of our own, before all lanes.
func (s *session) control(frame wireFrame) {
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		return
	}
	if s.queued+len(frame) > s.g.cfg.SendBuffer {
		s.mu.Unlock()
		s.close(closeTooSlow, "too slow: the send buffer is full", false)
		return
	}
	s.enqueue(queueControl, frame, nil)
	s.mu.Unlock()
}

func (s *session) enqueue(queue int, frame wireFrame, d *delivery) {
	s.queue[queue].push(&outgoing{frame: frame, d: d})
	s.queued += len(frame)
	s.startWriter()
}

func (s *session) startWriter() {
	if !s.writing {
		s.writing = true
		go s.write()
	}
}

// close says goodbye with a code and lets go of the session; what the reader and the writer still do is
// bounded by WriteTimeout and closeLinger. Only the first close counts. flush: what is queued goes out
// before, otherwise it is lost, except for control frames.
func (s *session) close(code int, reason string, flush bool) {
	s.part(code, closeFrame(code, reason), flush)
}

// part ends the session; without a goodbye nothing more is written.
func (s *session) part(code int, goodbye wireFrame, flush bool) {
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		return
	}
	s.closing, s.code, s.goodbye = true, code, goodbye
	var dropped []*delivery
	if !flush {
		dropped = s.dropQueue()
	}
	if goodbye == nil {
		s.parted = true
		s.queue[queueControl] = fifo{}
	} else {
		s.startWriter()
	}
	s.mu.Unlock()
	s.g.metrics.closed(code)
	s.g.forget(s)
	lose(dropped)
}

func (s *session) dropQueue() []*delivery {
	var dropped []*delivery
	for lane := queueHigh; lane < queues; lane++ {
		for o := s.queue[lane].first; o != nil; o = o.next {
			s.queued -= len(o.frame)
			dropped = append(dropped, o.d)
		}
		s.queue[lane] = fifo{}
	}
	return dropped
}

func lose(dropped []*delivery) {
	for _, d := range dropped {
		d.lost(whisperv1.FailureClass_FAILURE_CLASS_UNREACHABLE, "the session closed before its socket took it")
	}
}

// recent remembers what a session acknowledged last, so that a repeated ack is no error and a read is
// told of the right delivery. It keeps up to 128 deliveries, some 40 KiB for a session that got so many.
type recent struct {
	entries []*delivery
	next    int
}

const recentEntries = 128

func (r *recent) add(d *delivery) {
	if len(r.entries) < recentEntries {
		r.entries = append(r.entries, d)
		return
	}
	r.entries[r.next] = d
	r.next = (r.next + 1) % recentEntries
}

func (r *recent) find(hash domain.DeliveryHash) *delivery {
	for i := range r.entries {
		if r.entries[i].id.Hash() == hash {
			return r.entries[i]
		}
	}
	return nil
}
