package gateway

import (
	"sync"
	"time"

	"github.com/klivvr/whisper/domain/whisperv1"
)

// maxWrite is about how much goes out in one write: a socket's default buffer takes it without waiting,
// and it is what a high-lane frame may have to wait for.
const maxWrite = 16 << 10

// outbox is what one write is made of; it lives only while something is written.
type outbox struct {
	bytes []byte
	taken []*delivery
	late  []*delivery // expired while they waited
	count int
	last  bool
}

var outboxes = sync.Pool{New: func() any { return &outbox{bytes: make([]byte, 0, maxWrite)} }}

// write is the session's writer: it runs while there is something to write. Frames that gathered go out
// in one write, control first, then lane by lane.
func (s *session) write() {
	box := outboxes.Get().(*outbox)
	for s.gather(box) {
		_, err := s.net.Write(box.bytes)
		if err != nil {
			s.writeFailed(box)
			break
		}
		s.wrote(box)
		if box.last {
			s.hangUp()
		}
	}
	box.reset()
	outboxes.Put(box)
}

func (b *outbox) reset() {
	clear(b.taken)
	clear(b.late)
	b.bytes, b.taken, b.late, b.count, b.last = b.bytes[:0], b.taken[:0], b.late[:0], 0, false
	if cap(b.bytes) > 4*maxWrite { // one huge frame must not stay in the pool
		b.bytes = make([]byte, 0, maxWrite)
	}
}

// gather takes what goes into the next write; false: nothing is left and the writer is to end.
func (s *session) gather(box *outbox) bool {
	box.reset()
	now := s.g.cfg.Now()
	s.mu.Lock()
	for lane := range s.queue {
		q := &s.queue[lane]
		for q.first != nil && (len(box.bytes) == 0 || len(box.bytes)+len(q.first.frame) <= maxWrite) {
			s.take(box, q.pop(), now.UnixMilli())
		}
		if q.first != nil {
			break // full; a later lane must not overtake
		}
	}
	if len(box.bytes) == 0 && s.goodbye != nil && !s.parted {
		box.bytes, box.last, s.parted = append(box.bytes, s.goodbye...), true, true
	}
	some := len(box.bytes) > 0
	if some {
		// Under the lock, so that the shorter deadline of a peer that hung up is not undone.
		if !s.readDone {
			_ = s.net.SetWriteDeadline(time.Now().Add(s.g.cfg.WriteTimeout)) // fails only on a closed socket, and so will Write
		}
	} else {
		s.writing = false
	}
	closeNow := !some && s.readDone
	s.mu.Unlock()
	for _, d := range box.late {
		d.lost(whisperv1.FailureClass_FAILURE_CLASS_EXPIRED, "expired before the socket took it")
	}
	if closeNow {
		_ = s.net.Close()
	}
	return some
}

func (s *session) take(box *outbox, o *outgoing, nowMS int64) {
	if o.d != nil {
		if o.d.expiresMS > 0 && o.d.expiresMS <= nowMS {
			s.queued -= len(o.frame)
			if hash := o.d.id.Hash(); s.unacked[hash] == o.d {
				delete(s.unacked, hash)
			}
			box.late = append(box.late, o.d)
			return
		}
		box.taken = append(box.taken, o.d)
	}
	box.count++
	box.bytes = append(box.bytes, o.frame...)
}

func (s *session) wrote(box *outbox) {
	s.mu.Lock()
	if !box.last {
		s.queued -= len(box.bytes)
	}
	s.mu.Unlock()
	m := s.g.metrics
	m.writes.Inc()
	m.framesOut.Add(box.count)
	m.bytesOut.Add(len(box.bytes))
	for _, d := range box.taken {
		d.taken(s.auto)
	}
}

// writeFailed: the peer is gone, or took nothing for WriteTimeout. A part of a frame may be out, so
// nothing can be said any more. What was in the write counts as not taken; it may come twice.
func (s *session) writeFailed(box *outbox) {
	s.mu.Lock()
	s.writing, s.parted = false, true
	dropped := s.dropQueue()
	gone := s.readDone
	s.mu.Unlock()
	code := closeTooSlow
	if gone {
		code = closeGone
	}
	s.part(code, nil, false)
	_ = s.net.Close() // ends the reader
	lose(box.taken)
	lose(dropped)
}

// hangUp ends our half after the goodbye; the reader waits a moment for the peer's half.
func (s *session) hangUp() {
	_ = s.net.SetReadDeadline(time.Now().Add(closeLinger))
	if half, ok := s.net.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite() // whatever fails here, the reader's deadline ends it
	}
}
