package gateway

import (
	"slices"
	"sync"

	"github.com/klivvr/whisper/domain/whisperv1"
)

// maxWrite is about how much goes out in one write: a socket's default buffer takes it without waiting,
// and it is what a high-lane frame may have to wait for.
const maxWrite = 16 << 10

// maxTurn is how many writes a session gets until it is another one's turn.
const maxTurn = 4

// outbox is what one write is made of; it lives only while something is written.
type outbox struct {
	buf   []byte
	bytes []byte // of buf, or a single frame as it is
	taken []*delivery
	late  []*delivery // expired while they waited
	count int
	last  bool
}

var outboxes = sync.Pool{New: func() any { return newOutbox() }}

func newOutbox() *outbox { return &outbox{buf: make([]byte, 0, maxWrite)} }

// stuck is a write that the socket took only a part of.
type stuck struct {
	bytes []byte
	taken []*delivery
	count int
	whole int
	last  bool
}

// flush writes what is queued. Frames that gathered go out in one write, control first, then lane by lane.
func (s *session) flush(box *outbox) {
	s.mu.Lock()
	if s.writer != waiting { // was written meanwhile
		s.mu.Unlock()
		return
	}
	s.writer, s.urgent = active, false
	s.mu.Unlock()
	defer box.reset()
	for turn := 0; s.gather(box, turn); turn++ {
		if turn > 0 && !s.link.direct() && s.late(box) {
			s.writeFailed(box)
			return
		}
		n, err := s.link.write(box.bytes)
		switch {
		case err != nil:
			s.writeFailed(box)
			return
		case n < len(box.bytes):
			s.block(box, n)
			return
		}
		s.wrote(box)
	}
}

func (b *outbox) reset() {
	clear(b.taken)
	clear(b.late)
	b.buf, b.bytes, b.taken, b.late, b.count, b.last = b.buf[:0], nil, b.taken[:0], b.late[:0], 0, false
	if cap(b.buf) > 4*maxWrite { // one huge frame must not stay
		b.buf = make([]byte, 0, maxWrite)
	}
}

// gather takes what goes into the next write; false: the writer is to end.
func (s *session) gather(box *outbox, turn int) bool {
	box.reset()
	nowMS := s.g.cfg.Now().UnixMilli()
	s.mu.Lock()
	if turn >= maxTurn && s.link.direct() && s.queued > 0 {
		s.writer = waiting
		s.g.flusher.ready(s, false)
		s.mu.Unlock()
		return false
	}
	if s.stuck != nil {
		s.resume(box)
	} else {
		s.fill(box, nowMS)
	}
	free := false
	if len(box.bytes) == 0 {
		s.writer = idle
		free = s.canFree()
	}
	s.mu.Unlock()
	for _, d := range box.late {
		d.lost(whisperv1.FailureClass_FAILURE_CLASS_EXPIRED, "expired before the socket took it")
	}
	if free {
		s.free()
	}
	return len(box.bytes) > 0
}

func (s *session) fill(box *outbox, nowMS int64) {
	for lane := range s.queue {
		q := &s.queue[lane]
		for q.first != nil && (len(box.bytes) == 0 || len(box.bytes)+len(q.first.frame) <= maxWrite) {
			s.take(box, q.pop(), nowMS)
		}
		if q.first != nil {
			break // full; a later lane must not overtake
		}
	}
	if len(box.bytes) == 0 && s.phase == closing {
		box.bytes, box.last = s.goodbye, true
		s.move(goodbyeTaken)
	}
}

func (s *session) take(box *outbox, o *outgoing, nowMS int64) {
	if o.d != nil {
		if o.d.expiresMS > 0 && o.d.expiresMS <= nowMS {
			s.queued -= len(o.frame)
			s.unacked.remove(o.d)
			if s.auto {
				s.recent.drop(o.d)
			}
			box.late = append(box.late, o.d)
			return
		}
		box.taken = append(box.taken, o.d)
	}
	switch box.count++; box.count {
	case 1:
		box.bytes = o.frame // nothing is copied where it is alone
		return
	case 2:
		box.buf = append(box.buf[:0], box.bytes...)
	}
	box.buf = append(box.buf, o.frame...)
	box.bytes = box.buf
}

// catchUp is how many WriteTimeouts a delivery may wait for a socket that takes a little now and then: what
// waits holds back the commits of the whole node.
const catchUp = 3

func (s *session) late(box *outbox) bool {
	return len(box.taken) > 0 && s.g.cfg.Now().UnixMicro()-box.taken[0].takenUS >= catchUp*s.g.cfg.WriteTimeout.Microseconds()
}

// block keeps the rest until the socket takes more.
func (s *session) block(box *outbox, n int) {
	s.mu.Lock()
	s.stuck = &stuck{
		bytes: append([]byte(nil), box.bytes[n:]...), taken: append([]*delivery(nil), box.taken...),
		count: box.count, whole: len(box.bytes), last: box.last,
	}
	s.writer = blocked
	s.g.blocked.Add(1)
	if s.readDone || s.late(box) { // nobody is there who will take it, or not in time
		code := tooSlowOrGone(s.readDone)
		first, lost := s.giveUp(code)
		free := s.canFree()
		s.mu.Unlock()
		s.abandoned(first, code, lost, free)
		return
	}
	if s.phase == open || s.deadline == 0 {
		s.deadline = s.from(s.g.cfg.WriteTimeout)
		s.rearm()
	}
	s.link.poll()
	s.mu.Unlock()
}

// resume goes on with what block kept.
func (s *session) resume(box *outbox) {
	k := s.stuck
	s.stuck = nil
	box.bytes, box.count, box.last = k.bytes, k.count, k.last
	box.taken = append(box.taken, k.taken...)
	s.queued -= k.whole - len(k.bytes) // wrote takes off the rest
	if k.last {
		s.queued += k.whole - len(k.bytes) // a goodbye was never counted
	}
	if s.phase == open {
		s.deadline = 0
		s.rearm()
	}
}

// writable: the socket takes more.
func (s *session) writable() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.writer == blocked {
		s.writer = waiting
		s.g.blocked.Add(-1)
		s.g.flusher.ready(s, s.queue[queueControl].first != nil || s.queue[queueHigh].first != nil)
	}
}

func (s *session) wrote(box *outbox) {
	if !box.last {
		s.mu.Lock()
		s.queued -= len(box.bytes)
		s.mu.Unlock()
	}
	m := s.g.metrics
	m.writes.Inc()
	m.framesOut.Add(box.count)
	m.bytesOut.Add(len(box.bytes))
	for _, d := range box.taken {
		d.taken(s.auto)
	}
	if box.last {
		s.hangUp()
	}
}

// writeFailed: the peer is gone, or took nothing for WriteTimeout. A part of a frame may be out, so
// nothing can be said any more. What was in the write counts as not taken; it may come twice.
func (s *session) writeFailed(box *outbox) {
	s.mu.Lock()
	s.writer = idle
	lost := append(slices.Clone(box.taken), s.dropQueue()...)
	code := tooSlowOrGone(s.readDone || s.link.direct()) // a direct write never waits: it fails because the peer is gone
	first, _ := s.leave(gaveUp, code, nil, false)
	free := s.canFree()
	s.mu.Unlock()
	s.abandoned(first, code, lost, free)
}

func tooSlowOrGone(gone bool) int {
	if gone {
		return closeGone
	}
	return closeTooSlow
}

// abandoned is what follows, without the lock, when a session's socket takes nothing more.
func (s *session) abandoned(first bool, code int, lost []*delivery, free bool) {
	s.left(first, code, nil)
	s.cut()
	lose(lost)
	if free {
		s.free()
	}
}
