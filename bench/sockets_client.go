package bench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/klivvr/whisper/gateway"
)

// SocketsClientConfig is the configuration of the load client's process.
type SocketsClientConfig struct {
	Addr  string
	Users int
	// Ack is auto, or one (an acknowledgement a notification), or none (the floor's clients).
	Ack string
	// Concurrency of the connects.
	Concurrency int
	// Source is the first address that is connected from, 127.0.0.Source; clients beside each other need
	// addresses of their own.
	Source int
}

// RunSocketsClient connects users, counts what they get and acknowledges it, until its input ends. It knows
// as much of WebSocket as the bytes that it meets here.
func RunSocketsClient(ctx context.Context, cfg SocketsClientConfig, in io.Reader, out io.Writer) error {
	l := &load{cfg: cfg}
	defer l.close()
	first := helperReply{}
	if err := l.connect(ctx); err != nil {
		first.Error = err.Error()
	}
	first.Connected = len(l.conns)
	return serveHelper(in, out, first, func(helperRequest) helperReply {
		return helperReply{Frames: l.frames.Load(), Closed: l.closed.Load(), Pings: l.pings.Load()}
	})
}

type load struct {
	cfg                   SocketsClientConfig
	frames, closed, pings atomic.Int64

	mu    sync.Mutex
	conns []net.Conn
}

// sourcePorts is how many connections one address of 127.0.0.0/8 makes: ports are a few 10,000 each.
const sourcePorts = 10_000

func (l *load) connect(ctx context.Context) error {
	tokens := make([]string, l.cfg.Users) // beforehand, since signing is not what is measured
	now := time.Now()
	for i := range tokens {
		var err error
		if tokens[i], err = gateway.SignToken([]byte(benchSecret), userName(i), 24*time.Hour, now); err != nil {
			return err
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(max(1, l.cfg.Concurrency))
	for i := range l.cfg.Users {
		g.Go(func() error { return l.open(ctx, i, tokens[i]) })
	}
	if err := g.Wait(); err != nil {
		return fmt.Errorf("connect %d users: %w", l.cfg.Users, err)
	}
	return nil
}

func (l *load) open(ctx context.Context, i int, token string) error {
	conn, err := dialFrom(ctx, l.cfg.Addr, l.cfg.Source, i)
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.conns = append(l.conns, conn)
	l.mu.Unlock()
	query := ""
	if l.cfg.Ack == "auto" {
		query = "?ack=auto"
	}
	if err := handshake(conn, l.cfg.Addr, query, token); err != nil {
		return err
	}
	r := bufio.NewReaderSize(conn, 2048)
	if err := welcomed(r); err != nil {
		return err
	}
	go l.read(conn, r)
	return nil
}

// dialFrom connects the i-th of many, each few thousand from an address of their own; source is the last byte of the
// first one.
func dialFrom(ctx context.Context, addr string, source, i int) (net.Conn, error) {
	from := &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(source+i/sourcePorts))}
	return (&net.Dialer{LocalAddr: from, KeepAlive: -1}).DialContext(ctx, "tcp", addr)
}

func handshake(conn net.Conn, addr, query, token string) error {
	_, err := fmt.Fprintf(conn, "GET /v1/socket%s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nAuthorization: Bearer %s\r\n\r\n", query, addr, token)
	return err
}

// refusal is an answer other than an upgrade.
type refusal struct {
	status     string
	retryAfter time.Duration // 0: not said
}

func (r *refusal) Error() string { return "answered " + r.status }

// welcomed reads up to the end of the first frame.
func welcomed(r *bufio.Reader) error {
	status, err := r.ReadString('\n')
	if err != nil {
		return err
	}
	no := &refusal{status: strings.TrimSpace(status)}
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return err
		}
		if line == "\r\n" {
			break
		}
		if after, ok := strings.CutPrefix(line, "Retry-After: "); ok {
			seconds, _ := strconv.Atoi(strings.TrimSpace(after)) // 0, not said, where it is a date
			no.retryAfter = time.Duration(seconds) * time.Second
		}
	}
	if !strings.Contains(no.status, " 101 ") {
		return no
	}
	op, b, err := nextFrame(r)
	if err == nil && (op != opText || !bytes.Contains(b, []byte("welcome"))) {
		err = fmt.Errorf("the first frame is %q", b)
	}
	return err
}

const (
	opText  = 0x1
	opClose = 0x8
	opPing  = 0x9
)

// nextFrame's bytes are valid until the next call.
func nextFrame(r *bufio.Reader) (op byte, payload []byte, err error) {
	head, err := r.Peek(2)
	if err != nil {
		return 0, nil, err
	}
	op = head[0] & 0x0f
	size, skip := int(head[1]), 2
	switch size {
	case 127:
		return 0, nil, errors.New("a frame of over 64 KiB")
	case 126:
		if head, err = r.Peek(4); err != nil {
			return 0, nil, err
		}
		size, skip = int(binary.BigEndian.Uint16(head[2:])), 4
	}
	_, _ = r.Discard(skip)
	if payload, err = r.Peek(size); err != nil {
		return 0, nil, err
	}
	_, _ = r.Discard(size)
	return op, payload, nil
}

// idAt is where the id stands in every frame of the benchmark.
const idAt = len(`{"type":"notification","id":"`)

func (l *load) read(conn net.Conn, r *bufio.Reader) {
	defer l.closed.Add(1)
	var answer []byte
	for {
		op, payload, err := nextFrame(r)
		if err != nil || op == opClose {
			return
		}
		answer = answer[:0]
		switch {
		case op == opPing:
			l.pings.Add(1)
			answer = maskedFrame(answer, 0xA, payload)
		case l.cfg.Ack == "one" && len(payload) > idAt:
			id := payload[idAt:]
			id = id[:max(0, bytes.IndexByte(id, '"'))]
			answer = maskedFrame(answer, opText, fmt.Appendf(nil, `{"type":"ack","ids":["%s"]}`, id))
		}
		if op == opText {
			l.frames.Add(1)
		}
		if len(answer) > 0 {
			if _, err := conn.Write(answer); err != nil {
				return
			}
		}
	}
}

// maskedFrame uses the mask 0, which changes nothing: masking is not what is measured.
func maskedFrame(b []byte, op byte, payload []byte) []byte {
	if len(payload) < 126 {
		b = append(b, 0x80|op, 0x80|byte(len(payload)))
	} else {
		b = append(b, 0x80|op, 0x80|126, byte(len(payload)>>8), byte(len(payload)))
	}
	return append(append(b, 0, 0, 0, 0), payload...)
}

func (l *load) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.conns {
		hangUp(c)
	}
}

// hangUp resets the connection: thousands of ports must not wait for their time.
func hangUp(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}
