// Package simulator is an Apple push service for tests, `whisper dev` and benchmarks: HTTP/2 over TLS
// with APNs's checks, answers and habits, and a memory of what it was sent. Devices do not exist: what
// it accepts, it has delivered.
//
// It speaks HTTP/2 frames itself, because net/http's server can't do what clients of APNs must survive:
// one stream before the first valid request, GOAWAY at will, refused streams, silence.
//
// It differs from Apple: any token of letters, digits, `-` and `_` is a device; a token is valid for
// every topic; nothing is stored, collapsed or expired; a background push whose payload is none is refused, where Apple
// takes it and drops it. Without configured keys signatures are not checked.
package simulator

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/klivvr/whisper/consumers/push/localca"
	"github.com/klivvr/whisper/consumers/push/standin"
)

// Config says how the simulator behaves.
type Config struct {
	// Addr to listen on (default 127.0.0.1:0: a free port).
	Addr string
	// MaxConcurrentStreams of a connection (default 1,000, as APNs); one before its first valid request.
	MaxConcurrentStreams uint32
	// KeyID, TeamID and Key, where they are set, are what a provider token must have been made with.
	KeyID, TeamID string
	Key           *ecdsa.PublicKey
	// Topics that may be pushed to; empty: all.
	Topics []string
	// Hosts are further names and addresses that clients know it by, for its certificate.
	Hosts []string
	// CAFile, where it is set, gets the certificate that clients must trust, in PEM.
	CAFile string
	// KeyFile, where it is set, gets a signing key for clients, as Apple's .p8 is; one that is there
	// already is kept. Key is then its public half.
	KeyFile string
	// Latency of every answer (default 0). An [Answer] may add to it.
	Latency time.Duration
	// Remember is how many of the last accepted pushes are kept (default 1,000).
	Remember int
	Logger   *slog.Logger
	Now      func() time.Time
}

// Received is one push that was accepted.
type Received struct {
	At         time.Time
	Token      string
	Topic      string
	ApnsID     string
	CollapseID string
	PushType   string
	Priority   int
	Expiration int64 // Unix seconds; 0: none was given, or "try once"
	Payload    []byte
}

// Counts are totals since the start.
type Counts struct {
	Connections int64
	Open        int64
	Accepted    int64
	Refused     map[string]int64 // by reason
	Unanswered  int64            // faults
	MaxStreams  int64            // most at once on one connection
}

// Simulator is a running one.
type Simulator struct {
	cfg      Config
	log      *slog.Logger
	now      func() time.Time
	listener net.Listener
	ca       []byte
	roots    *x509.CertPool
	auth     authenticator
	serving  sync.WaitGroup

	mu       sync.Mutex
	closed   bool
	conns    map[*conn]struct{}
	programs standin.ByToken[Answer]
	counts   Counts
	kept     *standin.Record[Received]
}

// Start listens and serves until Close; ctx bounds only the beginning.
func Start(ctx context.Context, cfg Config) (*Simulator, error) {
	if cfg.Addr == "" {
		cfg.Addr = "127.0.0.1:0"
	}
	if cfg.MaxConcurrentStreams == 0 {
		cfg.MaxConcurrentStreams = 1000
	}
	if cfg.Remember == 0 {
		cfg.Remember = 1000
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	host, _, err := net.SplitHostPort(cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("apns simulator: its address: %w", err)
	}
	pair, ca, err := localca.New("APNs simulator", append(cfg.Hosts, host), cfg.Now())
	if err != nil {
		return nil, err
	}
	if cfg.KeyFile != "" {
		if cfg.Key, err = keyFile(cfg.KeyFile); err != nil {
			return nil, err
		}
	}
	if cfg.CAFile != "" {
		if err := os.WriteFile(cfg.CAFile, ca, 0o600); err != nil {
			return nil, fmt.Errorf("apns simulator: keep its certificate: %w", err)
		}
	}
	s := &Simulator{
		cfg: cfg, log: cfg.Logger, now: cfg.Now, ca: ca, roots: x509.NewCertPool(),
		conns: map[*conn]struct{}{}, programs: standin.ByToken[Answer]{}, kept: standin.NewRecord[Received](cfg.Remember),
		counts: Counts{Refused: map[string]int64{}},
		auth:   authenticator{keyID: cfg.KeyID, teamID: cfg.TeamID, key: cfg.Key},
	}
	s.roots.AppendCertsFromPEM(ca)
	var lc net.ListenConfig
	s.listener, err = lc.Listen(ctx, "tcp", cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("apns simulator: %w", err)
	}
	s.serving.Go(func() {
		s.accept(&tls.Config{
			Certificates: []tls.Certificate{pair}, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS12,
		})
	})
	return s, nil
}

// Run starts a simulator as a process of its own: it serves until ctx ends.
func Run(ctx context.Context, cfg Config) error {
	s, err := Start(ctx, cfg)
	if err != nil {
		return err
	}
	defer s.Close()
	s.log.Info("apns simulator listening", "url", s.URL(), "ca_file", cfg.CAFile)
	defer s.Watch(func(r Received) {
		s.log.Info("push received", "topic", r.Topic, "apns_id", r.ApnsID, "priority", r.Priority, "bytes", len(r.Payload))
	})()
	<-ctx.Done()
	return nil
}

// URL is what a provider is given as its base URL.
func (s *Simulator) URL() string { return "https://" + s.Addr() }

// Addr is the address it listens on.
func (s *Simulator) Addr() string { return s.listener.Addr().String() }

// RootCAs are what a client must trust.
func (s *Simulator) RootCAs() *x509.CertPool { return s.roots }

// CAPEM is the same as text.
func (s *Simulator) CAPEM() []byte { return s.ca }

// Close cuts all connections and waits for what serves them.
func (s *Simulator) Close() {
	_ = s.listener.Close() // a second Close finds it closed
	s.mu.Lock()
	s.closed = true
	for c := range s.conns {
		c.cut()
	}
	s.mu.Unlock()
	s.serving.Wait()
}

// Watch calls f with each accepted push, in order, from the connection's goroutine: f must not block,
// nor call the simulator. The returned function ends it.
func (s *Simulator) Watch(f func(Received)) (cancel func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := s.kept.Watch(f)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.kept.Unwatch(id)
	}
}

// Received are the last accepted pushes, oldest first.
func (s *Simulator) Received() []Received {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kept.All()
}

// Counts are the totals of now.
func (s *Simulator) Counts() Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.counts
	c.Open = int64(len(s.conns))
	c.Refused = make(map[string]int64, len(s.counts.Refused))
	for reason, n := range s.counts.Refused {
		c.Refused[reason] = n
	}
	return c
}

// Disconnect sends GOAWAY on every connection: what is in flight is answered, then they end.
func (s *Simulator) Disconnect() {
	s.mu.Lock()
	conns := slices.Collect(maps.Keys(s.conns))
	s.mu.Unlock() // a connection takes its own mutex first
	for _, c := range conns {
		c.goAway()
	}
}

func (s *Simulator) accept(config *tls.Config) {
	for {
		nc, err := s.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			s.log.Warn("accept a connection", "error", err)
			return
		}
		c := newConn(s, tls.Server(nc, config))
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			_ = nc.Close() // it came too late
			return
		}
		s.conns[c] = struct{}{}
		s.counts.Connections++
		s.serving.Go(c.serve)
		s.mu.Unlock()
	}
}

func (s *Simulator) gone(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	s.counts.MaxStreams = max(s.counts.MaxStreams, int64(c.most))
}

func (s *Simulator) accepted(r Received) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts.Accepted++
	s.kept.Add(r)
}

func (s *Simulator) refused(reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts.Refused[reason]++
}

func (s *Simulator) unanswered() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts.Unanswered++
}
