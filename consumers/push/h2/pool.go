package h2

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/klivvr/whisper/consumers/push/observe"
)

// Config is a pool's.
type Config struct {
	// Base is the server: https://host or https://host:port.
	Base *url.URL
	// TLS may name other roots than the system's; nil is Go's default from TLS 1.2 on.
	TLS *tls.Config
	// Connections bounds the connections, Streams the requests in flight on each: keep below what the server allows, since
	// with more net/http lets some wait for over a minute.
	Connections, Streams int
	// ConnectTimeout bounds one dial.
	ConnectTimeout time.Duration
	Watch          *observe.Watch
	Now            func() time.Time
}

// Pool holds connections to one server. net/http's own pool opens a connection for each request that finds none with a
// free stream: 300 to 500 of them when 1,000 requests meet a server that gives one stream before its first valid request, as
// APNs does. This one opens at most Connections, the next only when the ones before are full, and lets one request
// through a new connection until the server has answered it. Who finds no room waits in line. It is safe for concurrent use.
type Pool struct {
	cfg  Config
	dial func(context.Context) (*http.ClientConn, error)
	now  func() time.Time
	m    *observe.Watch

	mu       sync.Mutex
	conns    []*Conn
	waiting  []*waiter
	dialing  bool
	failures int       // dials in a row
	dialErr  error     // of the last one
	dialNext time.Time // not before, after a failure
	closed   bool

	starved atomic.Bool // a connection was full for its server
}

// New makes a pool. It connects at the first request.
func New(cfg Config) *Pool {
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	secure := &tls.Config{MinVersion: tls.VersionTLS12}
	if cfg.TLS != nil {
		secure = cfg.TLS.Clone() // net/http adds the protocols that it offers, which are not those of other connections
	}
	transport := &http.Transport{
		Proxy:              http.ProxyFromEnvironment,
		Protocols:          protocols,
		DisableCompression: true,
		TLSClientConfig:    secure,
		HTTP2: &http.HTTP2Config{
			// A connection that died unseen (NAT, a power cut) is noticed within 30 s.
			SendPingTimeout: 15 * time.Second,
			PingTimeout:     15 * time.Second,
		},
	}
	addr := cfg.Base.Host
	if cfg.Base.Port() == "" {
		addr = net.JoinHostPort(cfg.Base.Hostname(), "443")
	}
	return &Pool{
		cfg: cfg, now: cfg.Now, m: cfg.Watch,
		dial: func(ctx context.Context) (*http.ClientConn, error) {
			return transport.NewClientConn(ctx, "https", addr)
		},
	}
}

// Conn is one connection; the pool's mutex guards it.
type Conn struct {
	cc       *http.ClientConn
	inFlight int
	most     int  // streams it ever had at once
	warm     bool // a request was answered
	retired  bool // takes no more
}

type waiter struct {
	ready chan struct{} // closed once conn or err is set
	conn  *Conn
	err   error
}

var errPoolClosed = errors.New("the provider is closed")

// acquire reserves a stream. The caller gives it back with release.
func (p *Pool) acquire(ctx context.Context) (*Conn, error) {
	p.mu.Lock()
	if len(p.waiting) == 0 {
		if c := p.pick(); c != nil {
			p.mu.Unlock()
			return c, nil
		}
	}
	if err := p.grow(); err != nil {
		p.mu.Unlock()
		return nil, err
	}
	w := &waiter{ready: make(chan struct{})}
	p.waiting = append(p.waiting, w)
	p.mu.Unlock()
	select {
	case <-w.ready:
		return w.conn, w.err
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.Index(p.waiting, w); i >= 0 {
		p.waiting = slices.Delete(p.waiting, i, i+1)
	} else if w.conn != nil { // it came at the same moment
		w.conn.cc.Release()
		p.leave(w.conn)
	}
	return nil, fmt.Errorf("wait for a stream: %w", ctx.Err())
}

// release gives a stream back after its request ended. answered: the server answered a request that it
// found valid, so the connection is warm.
func (p *Pool) release(c *Conn, answered bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if answered && !c.warm {
		c.warm = true
	}
	if c.cc.Err() != nil {
		p.retire(c)
	}
	p.leave(c)
}

// Discard takes a connection out: it was silent, or the server wants a new one. What is in flight on it may end.
func (p *Pool) Discard(c *Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.retire(c)
	p.serve()
}

// Close closes all connections. Requests in flight end without an answer.
func (p *Pool) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, c := range slices.Clone(p.conns) {
		p.retire(c)
		_ = c.cc.Close() // nobody waits for its answers any more
	}
	p.refuse(errPoolClosed)
}

// The rest expects the mutex to be held.

func (p *Pool) leave(c *Conn) {
	c.inFlight--
	if c.retired && c.inFlight == 0 {
		_ = c.cc.Close() // it is gone already, or idle
	}
	p.serve()
}

// pick reserves a stream of the connection that has the fewest in flight.
func (p *Pool) pick() *Conn {
	for {
		var best *Conn
		for _, c := range p.conns {
			room := c.inFlight < p.cfg.Streams && (c.warm || c.inFlight == 0)
			if room && (best == nil || c.inFlight < best.inFlight) {
				best = c
			}
		}
		if best == nil {
			return nil
		}
		switch p.reserve(best) {
		case reserved:
			best.inFlight++
			best.most = max(best.most, best.cc.InFlight())
			return best
		case full:
			p.starved.Store(true)
			return nil
		case gone:
			p.retire(best)
		}
	}
}

type reservation int8

const (
	reserved reservation = iota
	full
	gone
)

// reserve tells a connection that has as many streams as its server allows from one that takes no more
// (GOAWAY, its end): net/http refuses both alike. One that had more streams before is taken for the
// second, which at worst costs one new connection. The second look is for a stream that ended meanwhile.
func (p *Pool) reserve(c *Conn) reservation {
	for range 2 {
		if c.cc.Reserve() == nil {
			return reserved
		}
		if c.cc.Err() != nil {
			return gone
		}
		if n := c.cc.InFlight(); n > 0 && n >= c.most {
			return full
		}
	}
	return gone
}

// stirred is told by net/http that a stream ended or a connection did. net/http ends a stream a little
// after its answer was read, so release may come too early for who waits. It may be called by Reserve,
// under the mutex, so it must not lock.
func (p *Pool) stirred(*http.ClientConn) {
	if p.starved.CompareAndSwap(true, false) {
		go func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.serve()
		}()
	}
}

func (p *Pool) retire(c *Conn) {
	if c.retired {
		return
	}
	c.retired = true
	p.conns = slices.DeleteFunc(p.conns, func(o *Conn) bool { return o == c })
	p.m.Connections.Dec()
	if c.inFlight == 0 {
		_ = c.cc.Close() // idle
	}
}

// serve hands streams to who waits, in order, and sees to it that they will get one.
func (p *Pool) serve() {
	for len(p.waiting) > 0 {
		c := p.pick()
		if c == nil {
			if err := p.grow(); err != nil {
				p.refuse(err)
			}
			return
		}
		w := p.waiting[0]
		p.waiting = p.waiting[1:]
		w.conn = c
		close(w.ready)
	}
}

func (p *Pool) refuse(err error) {
	for _, w := range p.waiting {
		w.err = err
		close(w.ready)
	}
	p.waiting = nil
}

// grow begins a connection where one more is allowed and useful. The error says that there is none
// and that it is too early to try.
func (p *Pool) grow() error {
	if p.closed {
		return errPoolClosed
	}
	if p.dialing || len(p.conns) >= p.cfg.Connections {
		return nil
	}
	for _, c := range p.conns {
		if !c.warm { // it will give its streams in a moment
			return nil
		}
	}
	if p.now().Before(p.dialNext) {
		if len(p.conns) == 0 {
			return p.dialErr
		}
		return nil
	}
	p.dialing = true
	go p.connect()
	return nil
}

// Between failed dials: providers take rapid connecting for an attack.
const minDialPause, maxDialPause = 500 * time.Millisecond, 30 * time.Second

//
//nolint:contextcheck // a connection is of all who wait for one, so it is not dialled in the context of any
func (p *Pool) connect() {
	ctx, cancel := context.WithTimeout(context.Background(), p.cfg.ConnectTimeout)
	defer cancel()
	cc, err := p.dial(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dialing = false
	if err != nil {
		pause := min(minDialPause<<min(p.failures, 10), maxDialPause)
		p.failures++
		p.dialErr = fmt.Errorf("connect: %w", err)
		p.dialNext = p.now().Add(pause/2 + rand.N(pause/2))
		p.m.DialFailures.Inc()
		if len(p.conns) == 0 {
			p.refuse(p.dialErr)
		}
		return
	}
	if p.closed {
		_ = cc.Close() // nothing was sent on it
		return
	}
	p.failures, p.dialErr, p.dialNext = 0, nil, time.Time{}
	p.m.Dials.Inc()
	p.m.Connections.Inc()
	cc.SetStateHook(p.stirred)
	p.conns = append(p.conns, &Conn{cc: cc})
	p.serve()
}
