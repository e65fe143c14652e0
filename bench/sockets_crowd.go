package bench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/klivvr/whisper/gateway"
)

// CrowdConfig is the configuration of a crowd's process.
type CrowdConfig struct {
	// Nodes' addresses. User i begins at node i modulo their number, or where Home names it, at that one.
	Nodes []string
	Home  int // 0: spread
	// Users are Prefix-0 and so on; Secret signs their tokens.
	Users  int
	Prefix string
	Secret string
	// Concurrency bounds the connections that are being made at a time.
	Concurrency int
	// MinBackoff and MaxBackoff bound the wait before a user reconnects.
	MinBackoff, MaxBackoff time.Duration
}

// Crowd is many users with one light connection each. They behave like the Go client: they reconnect with full jitter,
// honour Retry-After and reconnect frames, acknowledge everything, and count duplicates apart. A user whose node is gone
// tries the next one. It expects ids that end in the microsecond of their request, like load-17-1795392000000000.
//
// A user costs a goroutine and 1 KiB to read into, and 8 bytes for each notification.
type Crowd struct {
	cfg   CrowdConfig
	users []*crowdUser
	gate  chan struct{}
	done  sync.WaitGroup

	connected, arrived, twice, refused, asked, lost atomic.Int64
	latencies                                       crowdLatencies
}

type crowdUser struct {
	c     *Crowd
	i     int
	token string
	home  int
	seen  map[uint64]struct{}
}

// CrowdCounts are what a crowd has seen since its start.
type CrowdCounts struct {
	Connected int64 `json:"connected"` // now
	Arrived   int64 `json:"arrived"`   // notifications, each once a user
	Twice     int64 `json:"twice"`     // that came again
	Refused   int64 `json:"refused"`   // 503s
	Asked     int64 `json:"asked"`     // reconnect frames
	Lost      int64 `json:"lost"`      // connections that ended without having been asked to leave
	// Of a notification's first arrival, from its request, in milliseconds.
	P50 float64 `json:"p50_ms"`
	P99 float64 `json:"p99_ms"`
	Max float64 `json:"max_ms"`
}

// RunCrowd connects users until its input ends. It answers each object of its input with CrowdCounts.
func RunCrowd(ctx context.Context, cfg CrowdConfig, in io.Reader, out io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	c := &Crowd{cfg: cfg, gate: make(chan struct{}, cfg.Concurrency)}
	now := time.Now()
	for i := range cfg.Users {
		u := &crowdUser{c: c, i: i, home: i % len(cfg.Nodes), seen: map[uint64]struct{}{}}
		if cfg.Home > 0 {
			u.home = cfg.Home - 1
		}
		var err error
		if u.token, err = gateway.SignToken([]byte(cfg.Secret), fmt.Sprintf("%s-%d", cfg.Prefix, i), 24*time.Hour, now); err != nil {
			cancel()
			return err
		}
		c.users = append(c.users, u)
	}
	for _, u := range c.users {
		c.done.Go(func() { u.run(ctx) })
	}
	err := serveLines(in, out, c.counts)
	cancel()
	c.done.Wait()
	return err
}

func (c *Crowd) counts(struct{}) CrowdCounts {
	p50, p99, highest := c.latencies.quantiles()
	return CrowdCounts{
		Connected: c.connected.Load(), Arrived: c.arrived.Load(), Twice: c.twice.Load(), Refused: c.refused.Load(),
		Asked: c.asked.Load(), Lost: c.lost.Load(), P50: p50, P99: p99, Max: highest,
	}
}

func (u *crowdUser) run(ctx context.Context) {
	failures := 0
	for ctx.Err() == nil {
		conn, r, wait := u.connect(ctx)
		if conn == nil {
			failures++
			pause(ctx, max(wait, u.backoff(failures)))
			continue
		}
		failures = 0
		u.c.connected.Add(1)
		asked := u.stay(ctx, conn, r)
		u.c.connected.Add(-1)
		if !asked && ctx.Err() == nil {
			u.c.lost.Add(1)
			pause(ctx, u.backoff(0))
		}
	}
}

func (u *crowdUser) backoff(failures int) time.Duration {
	return rand.N(min(u.c.cfg.MaxBackoff, u.c.cfg.MinBackoff<<min(failures, 10)) + 1)
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// connect tries the home node and then the others. nil: all refuse; wait is what a server asked for.
func (u *crowdUser) connect(ctx context.Context) (_ net.Conn, _ *bufio.Reader, wait time.Duration) {
	select {
	case u.c.gate <- struct{}{}:
		defer func() { <-u.c.gate }()
	case <-ctx.Done():
		return nil, nil, 0
	}
	for i := range u.c.cfg.Nodes {
		conn, r, after, err := u.open(ctx, u.c.cfg.Nodes[(u.home+i)%len(u.c.cfg.Nodes)])
		if err == nil {
			return conn, r, 0
		}
		wait = max(wait, after)
		if after > 0 {
			break // it is there and asks to wait, so it is waited for
		}
	}
	return nil, nil, wait
}

// handshakeTimeout bounds the wait for the welcome.
const handshakeTimeout = 10 * time.Second

func (u *crowdUser) open(ctx context.Context, addr string) (_ net.Conn, _ *bufio.Reader, after time.Duration, err error) {
	conn, err := dialFrom(ctx, addr, 2, u.i)
	if err != nil {
		return nil, nil, 0, err
	}
	defer func() {
		if err != nil {
			hangUp(conn)
		}
	}()
	if err := conn.SetDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return nil, nil, 0, err
	}
	if err := handshake(conn, addr, "", u.token); err != nil {
		return nil, nil, 0, err
	}
	r := bufio.NewReaderSize(conn, 1024)
	if err := welcomed(r); err != nil {
		var no *refusal
		if errors.As(err, &no) && no.retryAfter > 0 {
			u.c.refused.Add(1)
			after = no.retryAfter + rand.N(no.retryAfter/4+1)
		}
		return nil, nil, after, err
	}
	return conn, r, 0, conn.SetDeadline(time.Time{})
}

// stay takes what comes until the connection ends. asked: because the server wanted it, which is no failure.
func (u *crowdUser) stay(ctx context.Context, conn net.Conn, r *bufio.Reader) (asked bool) {
	defer context.AfterFunc(ctx, func() { hangUp(conn) })()
	var move *time.Timer
	defer func() {
		if move != nil {
			move.Stop()
		}
		hangUp(conn)
	}()
	var answer []byte
	for {
		op, payload, err := nextFrame(r)
		if err != nil || op == opClose {
			return asked
		}
		answer = answer[:0]
		switch {
		case op == opPing:
			answer = maskedFrame(answer, 0xA, payload)
		case bytes.HasPrefix(payload, []byte(`{"type":"notification","id":"`)):
			id := payload[idAt:]
			id = id[:max(0, bytes.IndexByte(id, '"'))]
			u.take(id)
			answer = maskedFrame(answer, opText, fmt.Appendf(nil, `{"type":"ack","ids":["%s"]}`, id))
		case !asked && bytes.HasPrefix(payload, []byte(`{"type":"reconnect"`)):
			asked = true
			u.c.asked.Add(1)
			_, ms, _ := bytes.Cut(payload, []byte(`"after_ms":`))
			after, _ := strconv.Atoi(string(bytes.TrimRight(ms, "}"))) // nothing to read: at once
			move = time.AfterFunc(time.Duration(after)*time.Millisecond, func() { goodbye(conn) })
		}
		if len(answer) > 0 {
			if _, err := conn.Write(answer); err != nil {
				return asked
			}
		}
	}
}

// goodbye ends a connection so that what is under way in both directions still arrives.
func goodbye(conn net.Conn) {
	_ = conn.SetReadDeadline(time.Now().Add(time.Second))
	_, _ = conn.Write(maskedFrame(nil, opClose, []byte{1001 >> 8, 1001 & 0xff}))
}

// take counts a notification; of one that comes again only that it did.
func (u *crowdUser) take(id []byte) {
	now := time.Now()
	hash := fnv64(id)
	if _, again := u.seen[hash]; again {
		u.c.twice.Add(1)
		return
	}
	u.seen[hash] = struct{}{}
	u.c.arrived.Add(1)
	if at, err := strconv.ParseInt(string(id[bytes.LastIndexByte(id, '-')+1:]), 10, 64); err == nil {
		u.c.latencies.add(now.Sub(time.UnixMicro(at)))
	}
}

func fnv64(b []byte) uint64 {
	h := uint64(14695981039346656037)
	for _, c := range b {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return h
}

// crowdLatencies are kept in tenths of milliseconds: 4 bytes each.
type crowdLatencies struct {
	mu  sync.Mutex
	all []uint32
}

func (l *crowdLatencies) add(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, uint32(max(0, d)/(100*time.Microsecond)))
}

func (l *crowdLatencies) quantiles() (p50, p99, highest float64) {
	l.mu.Lock()
	sorted := slices.Clone(l.all)
	l.mu.Unlock()
	if len(sorted) == 0 {
		return 0, 0, 0
	}
	slices.Sort(sorted)
	at := func(q float64) float64 { return float64(sorted[int(q*float64(len(sorted)-1))]) / 10 }
	return at(0.5), at(0.99), at(1)
}
