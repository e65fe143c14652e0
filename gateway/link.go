package gateway

import (
	"net"
	"sync"
	"time"
)

// link is a session's connection, as far as the session needs it. Where descriptors can be polled it is a
// bare descriptor; otherwise, and for TLS, whose layer may hold bytes back, a net.Conn with a goroutine.
type link interface {
	// start lets the session have what comes in.
	start()
	// direct: write never waits, so that any goroutine may do it.
	direct() bool
	// write hands over bytes. Fewer than all of them without an error: a direct link's socket takes no more
	// for now; the session is told when it does.
	write(b []byte) (n int, err error)
	// hurry bounds a write that waits, since the peer has gone.
	hurry()
	// hangUp ends our half; the reader goes on.
	hangUp()
	// cut ends both halves, so that the reader meets the end.
	cut()
	// close frees the descriptor. The reader has ended, and nobody writes.
	close()
	// attentive: whatever the socket had at that time was looked at, so that silence is the client's.
	attentive(at int64) bool
	// poll asks to be told when the socket takes more. Under the session's lock, as pause and resume.
	poll()
	// pause lets the reader read nothing until resume, which has it go on with what the session holds. The end of
	// the connection is noticed all the same, at the latest when it is cut.
	pause()
	resume()
}

// stream is the link with a goroutine that reads and, while there is something to write, one that writes.
type stream struct {
	net.Conn
	s       *session
	timeout time.Duration
	round   round

	mu      sync.Mutex
	hasty   bool
	severed bool
	resting chan struct{} // closed by resume; nil: the reader reads
}

func (l *stream) start() { go l.read() }

func (l *stream) read() {
	buf := make([]byte, 512) // an acknowledgement; more comes in pieces
	for {
		n, err := l.Read(buf)
		if n > 0 {
			l.round.begin(l.s.g.now())
			l.s.received(buf[:n])
			for l.rested() {
				l.s.received(nil)
			}
			l.round.idle()
		}
		if err != nil {
			l.s.ended()
			return
		}
	}
}

func (l *stream) direct() bool { return false }

func (l *stream) write(b []byte) (int, error) {
	l.mu.Lock()
	if !l.hasty {
		_ = l.SetWriteDeadline(time.Now().Add(l.timeout)) // fails only on a closed socket, and so will Write
	}
	l.mu.Unlock()
	return l.Write(b)
}

func (l *stream) hurry() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hasty = true
	_ = l.SetWriteDeadline(time.Now().Add(closeLinger))
}

// hangUp of TLS writes, and may wait for that.
func (l *stream) hangUp() {
	if half, ok := l.Conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite() // whatever fails here, cut comes after closeLinger
	}
}

func (l *stream) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hasty, l.severed = true, true
	_ = l.SetDeadline(time.Unix(1, 0))
	l.wake()
}

func (l *stream) pause() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.severed && l.resting == nil {
		l.resting = make(chan struct{})
	}
}

func (l *stream) resume() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wake()
}

func (l *stream) wake() {
	if l.resting != nil {
		close(l.resting)
		l.resting = nil
	}
}

// rested waits for the end of a pause; false: there was none.
func (l *stream) rested() bool {
	l.mu.Lock()
	resting := l.resting
	l.mu.Unlock()
	if resting == nil {
		return false
	}
	<-resting
	return true
}

func (l *stream) close()                  { _ = l.Close() }
func (l *stream) attentive(at int64) bool { return l.round.covers(at) }
func (l *stream) poll()                   {} // its writes wait by themselves
