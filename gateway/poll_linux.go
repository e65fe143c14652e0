package gateway

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
)

// poller reads the sockets of many sessions with one goroutine and one buffer, by an epoll of its own. At
// rest a connection is a descriptor and a place in a table: no goroutine, no buffer, nothing of net.
//
// The epoll's own descriptor is polled by Go's runtime, so no thread waits in a system call. Readiness is
// by level: what one pass does not read, the next one finds.
type poller struct {
	file *os.File
	raw  syscall.RawConn // of file: it lets nobody use the descriptor's number after close
	now  func() int64

	mu    sync.Mutex
	slots []*polled
	free  []int32

	closing atomic.Bool
	round   round

	events [256]syscall.EpollEvent
	batch  []ready
	buf    []byte
}

type ready struct {
	l      *polled
	events uint32
}

// polled is a link that is only a descriptor.
type polled struct {
	p    *poller
	s    *session
	fd   int
	slot int32
	rest atomic.Bool // paused
}

// readShare is what one session has read in a pass. The kernel has those with more take turns.
const readShare = 8 << 10

func newPoller(now func() int64) (*poller, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make an epoll: %w", err)
	}
	if err := syscall.SetNonblock(fd, true); err != nil { // so that the runtime polls it
		_ = syscall.Close(fd)
		return nil, fmt.Errorf("make an epoll: %w", err)
	}
	p := &poller{file: os.NewFile(uintptr(fd), "epoll"), now: now, buf: make([]byte, readShare)}
	if p.raw, err = p.file.SyscallConn(); err != nil {
		_ = p.file.Close()
		return nil, fmt.Errorf("make an epoll: %w", err)
	}
	return p, nil
}

// run hands over what comes in until close.
func (p *poller) run() error {
	var failed error
	err := p.raw.Read(func(fd uintptr) bool {
		for {
			n, err := syscall.EpollWait(int(fd), p.events[:], 0)
			switch {
			case errors.Is(err, syscall.EINTR):
				continue
			case err != nil:
				failed = err
				return true
			case n <= 0:
				p.round.idle()
				return false
			}
			places := p.pass(p.events[:n])
			p.round.passed(n, n < len(p.events), places)
		}
	})
	if err = errors.Join(err, failed); err != nil && !p.closing.Load() {
		return fmt.Errorf("poll sockets: %w", err)
	}
	return nil
}

// close ends run; it returns when the pass under way is over.
func (p *poller) close() {
	p.closing.Store(true)
	_ = p.file.Close()
}

// pass handles some events and returns how many places there are. Only here, and where nothing was polled
// yet, is a place given back, so that an event is always of the session that has it.
func (p *poller) pass(events []syscall.EpollEvent) (places int) {
	p.round.begin(p.now())
	p.batch = p.batch[:0]
	p.mu.Lock()
	places = len(p.slots)
	for i := range events {
		if l := p.slots[events[i].Fd]; l != nil {
			p.batch = append(p.batch, ready{l, events[i].Events})
		}
	}
	p.mu.Unlock()
	for _, r := range p.batch {
		if r.events&syscall.EPOLLOUT != 0 {
			r.l.s.writable()
			if r.l.settle() {
				r.l.s.received(nil) // what it held while it rested
			}
		}
		switch {
		case r.events&^syscall.EPOLLOUT == 0:
		case !r.l.rest.Load():
			p.read(r.l)
		case r.events&(syscall.EPOLLHUP|syscall.EPOLLERR) != 0:
			r.l.leave() // nobody is there any more, or we have cut it
			r.l.s.ended()
		}
	}
	clear(p.batch)
	return places
}

func (p *poller) read(l *polled) {
	for {
		n, err := syscall.Read(l.fd, p.buf)
		switch {
		case n > 0:
			l.s.received(p.buf[:n])
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.EAGAIN):
		default:
			l.leave()
			l.s.ended()
		}
		return
	}
}

// adopt takes the descriptor out of a connection, which is closed: Go's runtime would wake up for each
// packet as well.
func (p *poller) adopt(s *session, conn net.Conn) (link, error) {
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("take over a socket: %w", err)
	}
	fd := -1
	ctlErr := raw.Control(func(old uintptr) {
		var no syscall.Errno
		var got uintptr
		if got, _, no = syscall.RawSyscall(syscall.SYS_FCNTL, old, syscall.F_DUPFD_CLOEXEC, 0); no != 0 {
			err = no
			return
		}
		fd = int(got)
	})
	_ = conn.Close()
	if err = errors.Join(ctlErr, err); err != nil {
		return nil, fmt.Errorf("take over a socket: %w", err)
	}
	return &polled{p: p, s: s, fd: fd}, nil
}

func pollable(conn net.Conn) bool {
	_, ok := conn.(*net.TCPConn)
	return ok
}

func (l *polled) start() {
	p := l.p
	p.mu.Lock()
	if n := len(p.free); n > 0 {
		l.slot, p.free = p.free[n-1], p.free[:n-1]
		p.slots[l.slot] = l
	} else {
		l.slot = int32(len(p.slots))
		p.slots = append(p.slots, l)
	}
	p.mu.Unlock()
	if l.control(syscall.EPOLL_CTL_ADD, syscall.EPOLLIN) != nil {
		l.leave()
		l.s.ended()
	}
}

// leave: nothing more is read. The descriptor must not be polled after it, or its end would be told
// without end.
func (l *polled) leave() {
	_ = l.control(syscall.EPOLL_CTL_DEL, 0) // not there: start could not add it
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	l.p.slots[l.slot] = nil
	l.p.free = append(l.p.free, l.slot)
}

func (l *polled) watch(events uint32) { _ = l.control(syscall.EPOLL_CTL_MOD, events) }

func (l *polled) control(op int, events uint32) (err error) {
	closed := l.p.raw.Control(func(fd uintptr) {
		err = syscall.EpollCtl(int(fd), op, l.fd, &syscall.EpollEvent{Events: events, Fd: l.slot})
	})
	return errors.Join(closed, err)
}

func (l *polled) direct() bool { return true }

func (l *polled) write(b []byte) (written int, err error) {
	for len(b) > 0 {
		n, err := syscall.Write(l.fd, b)
		switch {
		case n > 0:
			written += n
			b = b[n:]
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.EAGAIN):
			return written, nil
		default:
			return written, fmt.Errorf("write to a socket: %w", err)
		}
	}
	return written, nil
}

// wanted is what is watched for now; under the session's lock. Of a session that rests nothing is read; the end of
// both halves is told all the same.
func (l *polled) wanted() (events uint32) {
	if !l.rest.Load() {
		events = syscall.EPOLLIN
	}
	if l.s.writer == blocked {
		events |= syscall.EPOLLOUT
	}
	return events
}

// settle watches for room no longer, unless the session waits for some. It says whether the session reads.
func (l *polled) settle() bool {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	l.watch(l.wanted())
	return !l.rest.Load()
}

func (l *polled) poll() { l.watch(l.wanted()) }

func (l *polled) pause() {
	l.rest.Store(true)
	l.watch(l.wanted())
}

// resume has the poller, which alone may read, told that there is room to write, as there mostly is: so it goes on
// at once with what the session holds.
func (l *polled) resume() {
	l.rest.Store(false)
	l.watch(syscall.EPOLLIN | syscall.EPOLLOUT)
}

func (l *polled) hurry()  {}
func (l *polled) hangUp() { _ = syscall.Shutdown(l.fd, syscall.SHUT_WR) }
func (l *polled) cut()    { _ = syscall.Shutdown(l.fd, syscall.SHUT_RDWR) }
func (l *polled) close()  { _ = syscall.Close(l.fd) }

func (l *polled) attentive(at int64) bool { return l.p.round.covers(at) }
