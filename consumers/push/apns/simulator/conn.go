package simulator

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// conn is one HTTP/2 connection of a client: one goroutine reads, answers are written by it or, where
// they are late, by timers, under the mutex.
type conn struct {
	s  *Simulator
	nc *tls.Conn
	br *bufio.Reader
	fr *http2.Framer

	mu      sync.Mutex
	bw      *bufio.Writer
	encoded bytes.Buffer
	encoder *hpack.Encoder
	streams map[uint32]*request
	limit   int // streams at once
	last    uint32
	most    int
	leaving bool
	trusted bool // a valid request came
	timers  map[*time.Timer]struct{}
}

// window is how much a client may send ahead; pushes are small, so it never waits.
const window = 1 << 20

func newConn(s *Simulator, nc *tls.Conn) *conn {
	c := &conn{
		s: s, nc: nc, br: bufio.NewReaderSize(nc, 32<<10), bw: bufio.NewWriterSize(nc, 32<<10),
		streams: map[uint32]*request{}, limit: 1, timers: map[*time.Timer]struct{}{},
	}
	c.encoder = hpack.NewEncoder(&c.encoded)
	c.fr = http2.NewFramer(c.bw, c.br)
	c.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.fr.SetReuseFrames()
	return c
}

// cut ends the connection without a word.
func (c *conn) cut() { _ = c.nc.NetConn().Close() }

func (c *conn) serve() {
	defer c.s.gone(c)
	defer c.end()
	if err := c.handshake(); err != nil {
		c.s.log.Debug("apns simulator handshake", "error", err)
		return
	}
	for {
		f, err := c.fr.ReadFrame()
		if err != nil {
			var stream http2.StreamError
			if errors.As(err, &stream) {
				c.locked(func() { _ = c.fr.WriteRSTStream(stream.StreamID, stream.Code) })
				continue
			}
			if !errors.Is(err, io.EOF) {
				c.s.log.Debug("apns simulator connection ended", "error", err)
			}
			return
		}
		if !c.frame(f) {
			return
		}
	}
}

func (c *conn) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leaving = true
	for t := range c.timers {
		t.Stop()
	}
	c.timers = nil
	c.cut()
}

func (c *conn) handshake() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := c.nc.HandshakeContext(ctx); err != nil {
		return err
	}
	if c.nc.ConnectionState().NegotiatedProtocol != "h2" {
		return errors.New("the client does not speak HTTP/2")
	}
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(c.br, preface); err != nil {
		return err
	}
	if string(preface) != http2.ClientPreface {
		return errors.New("not an HTTP/2 preface")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return errors.Join(
		c.fr.WriteSettings(
			http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1},
			http2.Setting{ID: http2.SettingInitialWindowSize, Val: window},
			http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: 8000},
		),
		c.fr.WriteWindowUpdate(0, window),
		c.bw.Flush(),
	)
}

// frame deals with one frame; false ends the connection. What is written goes out once everything
// that has arrived was read.
func (c *conn) frame(f http2.Frame) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch f := f.(type) {
	case *http2.MetaHeadersFrame:
		c.headers(f)
	case *http2.DataFrame:
		c.data(f)
	case *http2.RSTStreamFrame:
		delete(c.streams, f.StreamID)
	case *http2.SettingsFrame:
		if !f.IsAck() {
			_ = c.fr.WriteSettingsAck() // Flush tells
		}
	case *http2.PingFrame:
		if !f.IsAck() {
			_ = c.fr.WritePing(true, f.Data)
		}
	}
	if c.br.Buffered() == 0 {
		if c.bw.Flush() != nil {
			return false
		}
	}
	return true
}

func (c *conn) headers(f *http2.MetaHeadersFrame) {
	id := f.StreamID
	if c.leaving || len(c.streams) >= c.limit {
		_ = c.fr.WriteRSTStream(id, http2.ErrCodeRefusedStream)
		return
	}
	r := &request{method: f.PseudoValue("method"), path: f.PseudoValue("path"), headers: make(map[string]string, 8)}
	for _, h := range f.RegularFields() {
		if _, twice := r.headers[h.Name]; twice && (len(h.Name) > 5 && h.Name[:5] == "apns-" || h.Name == "authorization") {
			r.repeated = true
		}
		r.headers[h.Name] = h.Value
	}
	c.last = id
	c.streams[id] = r
	c.most = max(c.most, len(c.streams))
	if f.StreamEnded() {
		c.complete(id, r)
	}
}

// maxBody is past every limit, so that what is longer need not be kept.
const maxBody = 8 << 10

func (c *conn) data(f *http2.DataFrame) {
	n := uint32(f.Length)
	if n > 0 {
		_ = c.fr.WriteWindowUpdate(0, n)
	}
	r := c.streams[f.StreamID]
	if r == nil {
		return // it was refused
	}
	if len(r.body)+len(f.Data()) > maxBody {
		r.tooLong = true
	} else {
		r.body = append(r.body, f.Data()...)
	}
	if f.StreamEnded() {
		c.complete(f.StreamID, r)
	} else if n > 0 {
		_ = c.fr.WriteWindowUpdate(f.StreamID, n)
	}
}

// complete judges a request that has all arrived, and answers or sees to it that it is answered.
func (c *conn) complete(id uint32, r *request) {
	status, reason, got := c.s.check(r)
	a := Answer{Status: status, Reason: reason}
	if status == 200 {
		// The connection is trusted from the first request that would have been taken.
		if !c.trusted {
			c.trusted, c.limit = true, int(c.s.cfg.MaxConcurrentStreams)
			_ = c.fr.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: c.s.cfg.MaxConcurrentStreams})
		}
		if p, ok := c.s.programmed(got.Token); ok {
			a = p
			if a.Status == 0 {
				a.Status = 200
			}
		}
	}
	if delay := a.Delay + c.s.cfg.Latency; delay > 0 {
		c.later(delay, func() { c.give(id, r, a, got) })
		return
	}
	c.give(id, r, a, got)
}

func (c *conn) later(delay time.Duration, f func()) {
	var t *time.Timer
	t = time.AfterFunc(delay, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.timers == nil {
			return
		}
		delete(c.timers, t)
		f()
		_ = c.bw.Flush() // a dead connection ends its reader too
	})
	c.timers[t] = struct{}{}
}

// give answers a stream, or does what its fault says. A client may have given up meanwhile.
func (c *conn) give(id uint32, r *request, a Answer, got Received) {
	if _, waits := c.streams[id]; !waits {
		c.s.unanswered()
		return
	}
	switch a.Fault {
	case Silent:
		c.s.unanswered()
		return
	case Cut:
		c.s.unanswered()
		c.cut()
		return
	case Refuse, Reset:
		c.s.unanswered()
		code := http2.ErrCodeRefusedStream
		if a.Fault == Reset {
			code = http2.ErrCodeInternal
		}
		delete(c.streams, id)
		_ = c.fr.WriteRSTStream(id, code)
		return
	case GoAwayBefore:
		c.s.unanswered()
		delete(c.streams, id)
		c.leave(max(id, 2) - 2)
		return
	case Answered, GoAwayAfter:
	}
	delete(c.streams, id)
	c.write(id, r, a)
	if a.Status == 200 {
		c.s.accepted(got)
	} else {
		c.s.refused(a.Reason)
	}
	if a.Fault == GoAwayAfter {
		c.leave(c.last)
	}
}

// linger is how long a client has to close after a GOAWAY; what it sends meanwhile is refused unread.
const linger = time.Second

// leave says GOAWAY; streams after last were not looked at.
func (c *conn) leave(last uint32) {
	if !c.leaving {
		c.leaving = true
		c.later(linger, c.part)
	}
	_ = c.fr.WriteGoAway(last, http2.ErrCodeNo, []byte(`{"reason":"Shutdown"}`))
	for id := range c.streams {
		if id > last {
			delete(c.streams, id)
		}
	}
}

// part ends the connection once everything that was taken is answered.
func (c *conn) part() {
	if len(c.streams) == 0 {
		c.cut()
		return
	}
	c.later(linger, c.part)
}

func (c *conn) goAway() {
	c.locked(func() {
		if c.timers != nil { // it has not ended meanwhile
			c.leave(c.last)
		}
	})
}

func (c *conn) locked(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
	_ = c.bw.Flush() // a dead connection ends its reader too
}

// write sends status, apns-id and, for a refusal, APNs's JSON.
func (c *conn) write(id uint32, r *request, a Answer) {
	apnsID := r.headers["apns-id"]
	if apnsID == "" {
		apnsID = uuid.NewString()
	}
	body := a.Body
	if body == nil && a.Status != 200 {
		refusal := struct {
			Reason    string `json:"reason"`
			Timestamp int64  `json:"timestamp,omitempty"`
		}{Reason: a.Reason}
		if a.Status == 410 {
			at := a.Timestamp
			if at.IsZero() {
				at = c.s.now()
			}
			refusal.Timestamp = at.UnixMilli()
		}
		body, _ = json.Marshal(refusal) // two plain fields
	}
	c.encoded.Reset()
	field := func(name, value string) { _ = c.encoder.WriteField(hpack.HeaderField{Name: name, Value: value}) }
	field(":status", strconv.Itoa(a.Status))
	field("apns-id", apnsID)
	if a.RetryAfter != "" {
		field("retry-after", a.RetryAfter)
	}
	_ = c.fr.WriteHeaders(http2.HeadersFrameParam{
		StreamID: id, BlockFragment: c.encoded.Bytes(), EndStream: len(body) == 0, EndHeaders: true,
	})
	if len(body) > 0 {
		_ = c.fr.WriteData(id, true, body)
	}
}
