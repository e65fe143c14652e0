package gateway

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"pgregory.net/rapid"
)

// Connections that say nothing keep nobody out: each good client takes the place of the oldest of them, which is
// told so.
func TestSilentConnectionsKeepNobodyOut(t *testing.T) {
	t.Parallel()
	n := setup(t, func(c *Config, _ *fakeBroker) { c.HandshakeTimeout = time.Hour })
	n.handshakes.limit.Store(10)
	var silent []*rawConn
	for range 10 {
		silent = append(silent, dialRaw(t, n.Addr().String()))
	}
	eventually(t, "all to be accepted", func() bool { return n.handshakes.open.Load() == 10 })
	for i := range 15 {
		n.connect(fmt.Sprint("good-", i))
	}
	resp, err := http.ReadResponse(silent[0].r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" || !resp.Close {
		t.Errorf("the oldest was told %d, Retry-After %q", resp.StatusCode, resp.Header.Get("Retry-After"))
	}
	resp.Body.Close()
	if got := n.handshakes.open.Load(); got > 10 {
		t.Errorf("%d handshakes in a room of 10", got)
	}
	if n.metrics.handshakes.Get() == 0 {
		t.Error("nobody was counted")
	}
	eventually(t, "no session to count as a handshake", func() bool { return n.handshakes.open.Load() < 10 })
}

// A request that is begun and never whole is as silent as none.
func TestASlowRequestIsSilent(t *testing.T) {
	t.Parallel()
	n := setup(t, func(c *Config, _ *fakeBroker) { c.HandshakeTimeout = time.Hour })
	n.handshakes.limit.Store(3)
	for range 5 {
		dialRaw(t, n.Addr().String()).send([]byte("GET /v1/socket HTTP/1.1\r\nHost: "))
		n.connect("mona")
	}
}

// Whatever is no upgrade is answered and ends its connection, so that it holds no place.
func TestARequestWithoutAnUpgradeEndsItsConnection(t *testing.T) {
	t.Parallel()
	n := setup(t)
	for _, request := range []string{
		"GET /v1/socket HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET /v1/socket HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nAuthorization: Bearer " + n.token("mona", time.Hour) + "\r\n\r\n",
		"GET /elsewhere HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST /v1/socket HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
		"GET /v1/socket HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 8\r\n\r\n",
		"GET /v1/socket HTTP/1.1\r\nHost: a\r\nOrigin: https://elsewhere.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n",
	} {
		c := dialRaw(t, n.Addr().String())
		c.send([]byte(request))
		resp, err := http.ReadResponse(c.r, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if !resp.Close {
			t.Errorf("%q: HTTP %d, and the connection stays", strings.SplitN(request, "\r\n", 2)[0], resp.StatusCode)
		}
		c.toEnd()
	}
	eventually(t, "no place to be held", func() bool { return n.handshakes.open.Load() == 0 })
}

// HTTP/1.0 has no upgrades.
func TestHTTP10IsNotUpgraded(t *testing.T) {
	t.Parallel()
	n := setup(t)
	c := dialRaw(t, n.Addr().String())
	c.send([]byte("GET /v1/socket HTTP/1.0\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Bearer " + n.token("mona", time.Hour) + "\r\n\r\n"))
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusUpgradeRequired {
		t.Errorf("HTTP %d, want 426", resp.StatusCode)
	}
}

// While every place belongs to somebody who is just being answered, a newcomer is told when to come again.
func TestNewcomersAreToldWhenToComeAgain(t *testing.T) {
	t.Parallel()
	n := setup(t)
	n.handshakes.limit.Store(0)
	if status, _ := n.refused(t, "mona"); status != http.StatusServiceUnavailable {
		t.Errorf("status %d", status)
	}
	n.handshakes.limit.Store(10)
	n.connect("mona")
}

// An address counts from accept on, and its own silent ones go first.
func TestSilentConnectionsCountForTheirAddress(t *testing.T) {
	t.Parallel()
	n := setup(t, func(c *Config, _ *fakeBroker) { c.MaxPerAddress = 3; c.HandshakeTimeout = time.Hour })
	for range 20 {
		dialRaw(t, n.Addr().String())
	}
	first := n.connect("a")
	n.connect("b")
	n.connect("c")
	if got := n.handshakes.open.Load(); got > 4 {
		t.Errorf("%d connections of one address are waited for", got)
	}
	if status, _ := n.refused(t, "d"); status != http.StatusTooManyRequests {
		t.Errorf("status %d", status)
	}
	first.Close()
	eventually(t, "room", func() bool { return n.connections.Load() == 2 })
	n.connect("d")
}

// Whatever comes and goes: no place is lost, none is used twice, and an address's count is that of its connections.
func TestTheRoomOfHandshakes(tb *testing.T) {
	tb.Parallel()
	rapid.Check(tb, func(t *rapid.T) {
		limit := rapid.IntRange(1, 12).Draw(t, "limit")
		perAddress := rapid.IntRange(0, 5).Draw(t, "per address")
		n := prepare(testingOf{tb, t}, func(c *Config, _ *fakeBroker) { c.MaxPerAddress = perAddress })
		h := n.handshakes
		h.limit.Store(int64(limit))
		var open []*handshake // net/http's
		sessions := map[address]int{}
		for range rapid.IntRange(1, 80).Draw(t, "steps") {
			switch rapid.IntRange(0, 4).Draw(t, "what") {
			case 0, 1, 2:
				conn := &pretended{from: fmt.Sprintf("192.0.2.%d:1", rapid.IntRange(1, 3).Draw(t, "address"))}
				ctx := h.accepted(t.Context(), conn)
				open = append(open, ctx.Value(handshakeKey{}).(*handshake))
			case 3:
				if len(open) == 0 {
					continue
				}
				i := rapid.IntRange(0, len(open)-1).Draw(t, "asks")
				hs := open[i]
				if hs.asked() == 0 && rapid.Bool().Draw(t, "becomes a session") && !hs.gone {
					a := hs.handOver()
					h.state(hs.conn, http.StateHijacked)
					sessions[a]++
					open = append(open[:i], open[i+1:]...)
				}
				hs.answered()
			case 4:
				if len(open) == 0 {
					continue
				}
				i := rapid.IntRange(0, len(open)-1).Draw(t, "ends")
				h.state(open[i].conn, http.StateClosed)
				open = append(open[:i], open[i+1:]...)
			}
			if got := int(h.open.Load()); got > limit+lateRoom || got != len(h.byConn) || h.silent.Len()+h.late.Len() > got {
				t.Fatalf("%d in a room of %d, %d known, %d silent, %d late", got, limit, len(h.byConn), h.silent.Len(), h.late.Len())
			}
			for a, count := range n.addresses.have {
				if count > perAddress {
					t.Fatalf("%s has %d of %d", a, count, perAddress)
				}
			}
		}
		for _, hs := range open {
			h.state(hs.conn, http.StateClosed)
			hs.answered()
		}
		for a, count := range sessions {
			for range count {
				n.addresses.remove(a)
			}
		}
		if h.open.Load() != 0 || len(h.byConn) != 0 || len(h.held) != 0 || h.silent.Len() != 0 || h.late.Len() != 0 ||
			len(n.addresses.have) != 0 {
			t.Fatalf("left: %d open, %v held, %d silent, %d late, %v", h.open.Load(), h.held, h.silent.Len(), h.late.Len(), n.addresses.have)
		}
	})
}

// pretended is a connection as far as the room looks at it.
type pretended struct {
	net.Conn
	from string
}

func (c *pretended) RemoteAddr() net.Addr {
	a, err := net.ResolveTCPAddr("tcp", c.from)
	if err != nil {
		panic(err)
	}
	return a
}
func (c *pretended) SetWriteDeadline(time.Time) error { return nil }
func (c *pretended) Write(b []byte) (int, error)      { return len(b), nil }
func (c *pretended) Close() error                     { return nil }

// Strangers' tokens cost nobody else anything: they take no turn, and what is too much is refused before an upgrade.
func TestBadTokensTakeNobodysTurn(t *testing.T) {
	t.Parallel()
	var log lockedBuffer
	n := setup(t, func(c *Config, _ *fakeBroker) {
		c.AdmitRate = 4
		c.Logger = slog.New(slog.NewTextHandler(&log, nil))
	})
	told, refused := 0, 0
	for range 100 {
		conn, resp, err := websocket.DefaultDialer.Dial(n.url, bearer("not.a.token"))
		if err == nil {
			told++
			conn.Close()
			continue
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusTooManyRequests || resp.Header.Get("Retry-After") == "" {
			t.Fatalf("status %d, Retry-After %q", resp.StatusCode, resp.Header.Get("Retry-After"))
		}
		refused++
	}
	if most := int(tokenRoom/priceBadToken) + 40; told == 0 || told > most || refused == 0 {
		t.Errorf("%d were told by a close code, at most %d; %d refused before", told, most, refused)
	}
	if n.metrics.paced.Get() != 0 || n.admission.waiting(n.now()) != 0 {
		t.Error("they took turns of the admission")
	}
	n.connect("mona") // the one turn of this second is theirs, whatever the address
	if lines := strings.Count(log.String(), "client refused"); lines != 1 ||
		!strings.Contains(log.String(), "reason=\"bad token\" address=127.0.0.1") {
		t.Errorf("%d lines: %s", lines, log.String())
	}
	if strings.Contains(log.String(), "not.a.token") {
		t.Error("the token is in the log")
	}
	n.clock.advance(priceLogLine)
	get(t, n, bearer("not.a.token"))
	if !strings.Contains(log.String(), "refused_since_last_line=100") {
		t.Errorf("the next line does not tell of the others: %s", log.String())
	}
}

// An expired token is no attack: a whole office that wakes up learns that it needs new ones.
func TestExpiredTokensAreToldSo(t *testing.T) {
	t.Parallel()
	l := newLimiter[address](tokenRoom)
	for i := range 600 {
		if !l.allow(address{}, 1e18, priceOldToken) {
			t.Fatalf("only %d were told", i)
		}
	}
	l.allow(address{}, 1e18, priceOldToken)
	if l.allow(address{}, 1e18, priceOldToken) {
		t.Error("there is no end")
	}
	if !l.allow(countedAs(hostOf("192.0.2.1")), 1e18, priceBadToken) {
		t.Error("another address pays for it")
	}
	l.allow(countedAs(hostOf("192.0.2.2")), 1e18+int64(time.Hour), priceBadToken)
	if len(l.meters) != 1 {
		t.Errorf("%d meters are kept of who has paid", len(l.meters))
	}
}

func TestAForeignOriginIsCountedAndLogged(t *testing.T) {
	t.Parallel()
	var log lockedBuffer
	n := setup(t, func(c *Config, _ *fakeBroker) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	header := bearer(n.token("mona", time.Hour))
	header.Set("Origin", "https://elsewhere.example")
	for range 3 {
		_, resp, err := websocket.DefaultDialer.Dial(n.url, header)
		if err == nil || resp.StatusCode != http.StatusForbidden {
			t.Fatalf("got %v, %v", resp, err)
		}
		resp.Body.Close()
	}
	if n.metrics.origin.Get() != 3 || strings.Count(log.String(), "reason=origin") != 1 {
		t.Errorf("counted %d: %s", n.metrics.origin.Get(), log.String())
	}
}

// lockedBuffer is a log that is read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
