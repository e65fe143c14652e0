package gateway

import (
	"time"

	"github.com/klivvr/whisper/domain/whisperv1"
)

// close says goodbye with a code and lets go of the session; what the reader and the writer still do is
// bounded by WriteTimeout and closeLinger. Only the first close counts. flush: what is queued goes out
// before, otherwise it is lost, except for control frames.
func (s *session) close(code int, reason string, flush bool) {
	s.part(code, closeFrame(code, reason), flush)
}

// part ends the session; without a goodbye nothing more is written.
func (s *session) part(code int, goodbye wireFrame, flush bool) {
	in := closed
	if goodbye == nil {
		in = dropped
	}
	s.mu.Lock()
	first, lost := s.leave(in, code, goodbye, flush)
	s.mu.Unlock()
	s.left(first, code, lost)
}

// leave is the only way out of open; under the lock. first: this was the input that led out, and the caller has to
// call left once it has let go of the lock, with what is lost.
func (s *session) leave(in input, code int, goodbye wireFrame, flush bool) (first bool, lost []*delivery) {
	first = s.phase == open
	s.move(in)
	if !first {
		return false, nil
	}
	s.code, s.goodbye = int32(code), goodbye
	if !flush {
		lost = s.dropQueue()
	}
	if goodbye == nil {
		s.queue[queueControl] = fifo{}
	} else {
		s.startWriter(true)
	}
	if s.writer != blocked || s.deadline == 0 {
		s.deadline = s.from(s.g.cfg.WriteTimeout)
	}
	s.rearm()
	return true, lost
}

// left is what follows from leave without the lock.
func (s *session) left(first bool, code int, lost []*delivery) {
	if first {
		s.g.metrics.closed(code)
		if s.user != "" {
			s.g.hub.remove(s)
		}
	}
	lose(lost)
}

func (s *session) from(d time.Duration) int64 { return s.g.now() + int64(d) }

// handBack returns to dispatch what the session was sent and has not acknowledged, when no more
// acknowledgement can come. Only a node that goes away does so: otherwise the presence tells as much.
func (s *session) handBack() {
	if s.g.state.Load() < draining {
		return
	}
	s.mu.Lock()
	left := s.unacked
	s.unacked = unacked{}
	s.mu.Unlock()
	for d := range left.all() {
		d.handedBack()
	}
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

// hangUp ends our half after the goodbye; the peer has a moment for its own. It is read on meanwhile: closing
// over bytes that nobody read would reset the connection, goodbye and all.
// Only the writer does it, at work, so that nobody frees the link meanwhile.
func (s *session) hangUp() {
	s.link.hangUp() // may wait, with TLS
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deadline = s.from(closeLinger)
	s.rearm()
}

// cut ends the socket: its reader meets the end, and the session is freed.
func (s *session) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.phase != freed {
		s.link.cut()
	}
}

// ended is the reader's last word. The writer frees the session if it is still at work.
func (s *session) ended() {
	s.part(closeGone, nil, false)
	s.mu.Lock()
	s.readDone = true
	_, lost := s.giveUp(closeGone)
	free := s.canFree()
	if !free {
		s.link.hurry()
	}
	s.mu.Unlock()
	lose(lost)
	s.handBack()
	if free {
		s.free()
	}
}

// giveUp drops a write that the socket took a part of and will take no more of; under the lock. Where nothing is
// blocked it does nothing. first and lost are those of leave.
func (s *session) giveUp(code int) (first bool, lost []*delivery) {
	if s.writer != blocked {
		return false, nil
	}
	if s.stuck != nil {
		lost = s.stuck.taken
		s.stuck = nil
	}
	lost = append(lost, s.dropQueue()...)
	s.writer = idle
	s.g.blocked.Add(-1)
	first, _ = s.leave(gaveUp, code, nil, false)
	return first, lost
}

// canFree says so once; under the lock.
func (s *session) canFree() bool {
	return s.readDone && s.writer == idle && s.move(released)
}

func (s *session) free() {
	s.g.timekeeper.remove(s)
	s.link.close()
	s.g.release(s.address)
}
