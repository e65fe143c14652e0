// Package link is a network that tests can make bad: a TCP proxy on loopback before one address, with a delay, a rate,
// losses, silence and cuts. It needs no rights and no module of the kernel, and is one link alone, where a queueing
// discipline of the kernel's loopback is all of them.
package link

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// Weather is what a link does to what goes over it, each way. The zero value is a good network.
type Weather struct {
	// Delay and, at random up to as much more, Jitter: when what was sent arrives.
	Delay, Jitter time.Duration
	// Rate in bytes a second over a connection; 0 is any.
	Rate int
	// Loss is how likely it is for up to 16 KiB to be lost. TCP sends them again, after Resend and then twice as long each
	// time, and what follows waits.
	Loss float64
	// Silent: nothing arrives, and no connection is refused or ends. What was sent meanwhile arrives afterwards.
	Silent bool
}

// Resend is what TCP on Linux waits at least before it sends again what was not acknowledged.
const Resend = 200 * time.Millisecond

const packet = 16 << 10

// Link leads to one address.
type Link struct {
	l      net.Listener
	target string

	mu      sync.Mutex
	weather Weather
	changed chan struct{} // closed at the next change
	conns   map[net.Conn]bool
	closed  bool
}

// New listens on a free port of loopback and leads to target, which need not answer yet.
func New(target string) (*Link, error) {
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	l := &Link{l: listener, target: target, changed: make(chan struct{}), conns: map[net.Conn]bool{}}
	go l.accept()
	return l, nil
}

// Addr is where the link begins.
func (l *Link) Addr() string { return l.l.Addr().String() }

// Set changes the weather, also for connections that are there.
func (l *Link) Set(w Weather) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.weather = w
	close(l.changed)
	l.changed = make(chan struct{})
}

// Cut ends all connections with a reset; new ones are taken.
func (l *Link) Cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		reset(c)
	}
}

// Close ends the link and its connections.
func (l *Link) Close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	_ = l.l.Close()
	l.Set(Weather{})
	l.Cut()
}

func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}

func (l *Link) accept() {
	for {
		c, err := l.l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			go l.carry(c)
		}
	}
}

func (l *Link) carry(near net.Conn) {
	if !l.add(near) {
		return
	}
	defer l.remove(near)
	far, err := new(net.Dialer).DialContext(context.Background(), "tcp", l.target)
	if err != nil {
		reset(near) // as a port does on which nobody listens
		return
	}
	if !l.add(far) {
		return
	}
	defer l.remove(far)
	var both sync.WaitGroup
	both.Go(func() { l.pipe(far, near) })
	both.Go(func() { l.pipe(near, far) })
	both.Wait()
}

func (l *Link) add(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		reset(c)
		return false
	}
	l.conns[c] = true
	return true
}

func (l *Link) remove(c net.Conn) {
	l.mu.Lock()
	delete(l.conns, c)
	l.mu.Unlock()
	_ = c.Close()
}

func (l *Link) now() (Weather, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.weather, l.changed
}

// sent is on its way; an empty one is the end.
type sent struct {
	b  []byte
	at time.Time
}

// pipe is one way of a connection: what is read is on its way for a while, in order, as much as a window holds.
func (l *Link) pipe(to, from net.Conn) {
	way := make(chan sent, 64)
	go func() {
		defer close(way)
		for {
			b := make([]byte, packet)
			n, err := from.Read(b)
			if n > 0 {
				way <- sent{b[:n], time.Now()}
			}
			if err != nil {
				if !errors.Is(err, io.EOF) {
					reset(to) // one side's reset is the other's
				}
				return
			}
		}
	}()
	for s := range way {
		l.hold(s)
		if _, err := to.Write(s.b); err != nil {
			reset(from) // ends the reader
			for range way {
				continue
			}
			return
		}
	}
	if tcp, ok := to.(*net.TCPConn); ok {
		_ = tcp.CloseWrite()
	}
}

// hold returns when what was sent arrives.
func (l *Link) hold(s sent) {
	w, _ := l.now()
	at := s.at.Add(w.Delay)
	if w.Jitter > 0 {
		at = at.Add(rand.N(w.Jitter))
	}
	late := time.Until(at)
	if w.Rate > 0 {
		late = max(0, late) + time.Duration(len(s.b))*time.Second/time.Duration(w.Rate)
	}
	for again := Resend; w.Loss > 0 && rand.Float64() < w.Loss; again *= 2 {
		late = max(0, late) + again
	}
	for {
		w, changed := l.now()
		var arrived <-chan time.Time
		switch {
		case w.Silent:
		case late <= 0 || w == Weather{}:
			return
		default:
			arrived = time.After(late)
		}
		select {
		case <-arrived:
			late = 0
		case <-changed:
		}
	}
}
