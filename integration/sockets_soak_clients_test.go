package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	soakUsers   = 100 // who are sent something
	soakPerUser = 3   // connections of one user
	slowUsers   = 3
	forSlow     = 160 // notifications of 3 KB, far above the send buffer and the kernel's
)

// soak runs the clients of TestSocketsSoak, of all kinds.
type soak struct {
	t           *testing.T
	prefix, url string
	proc        *proc

	mu    sync.Mutex
	acked map[string]bool
}

func (s *soak) users() (users []string) {
	for i := range soakUsers {
		users = append(users, fmt.Sprintf("%s-user-%d", s.prefix, i))
	}
	return users
}

func (s *soak) slowNames() (users []string) {
	for i := range slowUsers {
		users = append(users, fmt.Sprintf("%s-slow-%d", s.prefix, i))
	}
	return users
}

func (s *soak) acknowledged() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.acked)
}

// cycle runs one connection; its number decides its kind.
func (s *soak) cycle(i int) {
	notified := fmt.Sprintf("%s-user-%d", s.prefix, i*31%soakUsers)
	stranger := fmt.Sprintf("%s-stranger-%d", s.prefix, i)
	switch i % 20 {
	case 0, 1, 2, 3, 4:
		s.connected(notified, s.acknowledges)
	case 5, 6, 7:
		s.connected(notified, takesAndGoes)
	case 8, 9, 10:
		s.connected(stranger, s.leaves)
	case 11, 12:
		s.connected(stranger, cut)
	case 13:
		s.connected(stranger, func(conn *websocket.Conn) {
			_, _ = conn.UnderlyingConn().Write([]byte{0x81, 0xfe, 0x01}) // the beginning of a frame
			cut(conn)
		})
	case 14, 15, 16:
		s.breaks(stranger, i)
	case 17:
		s.connectedWith(dialerFrom(i), token("x")+"x", func(conn *websocket.Conn) { s.wantEnd(conn, "a bad token", 4001) })
	case 18:
		s.comesTooOften(stranger, soakPerUser)
	case 19:
		if i%40 == 19 {
			s.stalls()
		} else {
			s.connected(stranger, s.isSilent)
		}
	}
}

var soakDialer = websocket.Dialer{HandshakeTimeout: 20 * time.Second, ReadBufferSize: 512, WriteBufferSize: 512, WriteBufferPool: &sync.Pool{}}

// dialerFrom has an address of its own: bad tokens of one address are soon refused before they are looked at.
func dialerFrom(i int) *websocket.Dialer {
	d := soakDialer
	d.NetDialContext = (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 1, byte(i>>8), byte(i))}}).DialContext
	return &d
}

// connected calls use with a connection of the user.
func (s *soak) connected(user string, use func(*websocket.Conn)) {
	s.connectedWith(&soakDialer, token(user), use)
}

func (s *soak) connectedWith(d *websocket.Dialer, token string, use func(*websocket.Conn)) {
	conn, resp, err := d.DialContext(s.t.Context(), s.url, http.Header{"Authorization": {"Bearer " + token}})
	if err != nil {
		s.t.Errorf("connect: %v", err)
		return
	}
	_ = resp.Body.Close()
	_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	use(conn)
	_ = conn.Close() // for the second time, mostly
}

// cut ends a connection without a close frame.
func cut(conn *websocket.Conn) {
	if tcp, ok := conn.UnderlyingConn().(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

// endOfConn reads to the end of a connection and returns the close code, or 1006 if there was none.
func endOfConn(conn *websocket.Conn) int {
	for {
		if _, _, err := conn.ReadMessage(); err != nil {
			var closed *websocket.CloseError
			if errors.As(err, &closed) {
				return closed.Code
			}
			return websocket.CloseAbnormalClosure
		}
	}
}

func (s *soak) wantEnd(conn *websocket.Conn, what string, want int) {
	if got := endOfConn(conn); got != want {
		s.t.Errorf("%s ended with %d, want %d", what, got, want)
	}
}

// few is how many notifications a client waits for, and for how long.
const (
	few     = 5
	fewTime = 100 * time.Millisecond
)

// acknowledges receives a few notifications, acknowledges or reads them, and leaves.
func (s *soak) acknowledges(conn *websocket.Conn) {
	_ = conn.SetReadDeadline(time.Now().Add(fewTime))
	for range few {
		_, text, err := conn.ReadMessage()
		if err != nil {
			break
		}
		var f struct{ Type, ID string }
		if err := json.Unmarshal(text, &f); err != nil {
			s.t.Errorf("%s: %v", text, err)
		}
		if f.Type != "notification" {
			continue
		}
		verb := []string{"ack", "read"}[len(f.ID)%2]
		if err := conn.WriteJSON(map[string]any{"type": verb, "ids": []string{f.ID}}); err != nil {
			break
		}
		s.mu.Lock()
		s.acked[f.ID] = true
		s.mu.Unlock()
	}
	goodbye(conn)
}

func takesAndGoes(conn *websocket.Conn) {
	_ = conn.SetReadDeadline(time.Now().Add(fewTime))
	for range few {
		if _, _, err := conn.ReadMessage(); err != nil {
			break
		}
	}
	cut(conn)
}

func goodbye(conn *websocket.Conn) {
	_ = conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseGoingAway, ""), time.Now().Add(10*time.Second))
}

// leaves sends a close frame and waits for the answer.
func (s *soak) leaves(conn *websocket.Conn) {
	goodbye(conn)
	s.wantEnd(conn, "a goodbye", websocket.CloseGoingAway)
}

// breaks sends what no client may send.
func (s *soak) breaks(user string, i int) {
	breaches := []struct {
		what string
		raw  []byte
		want int
	}{
		{"a binary frame", []byte{0x82, 0x81, 0, 0, 0, 0, 'x'}, 4003},
		{"not JSON", []byte{0x81, 0x81, 0, 0, 0, 0, '{'}, 4003},
		{"an unmasked frame", []byte{0x81, 0x01, 'x'}, 1002},
		{"reserved bits", []byte{0xf1, 0x81, 0, 0, 0, 0, 'x'}, 1002},
		{"a frame that is too big", []byte{0x81, 0xff, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0}, 4003},
		{"text that is not UTF-8", []byte{0x81, 0x81, 0, 0, 0, 0, 0xff}, 1007},
		{"a goodbye that is not UTF-8", []byte{0x88, 0x83, 0, 0, 0, 0, 1000 >> 8, 1000 & 0xff, 0xff}, 1007},
		{"too many frames", []byte(strings.Repeat(string([]byte{0x89, 0x80, 0, 0, 0, 0}), 300)), 4003},
	}
	b := breaches[i/3%len(breaches)]
	s.connected(user, func(conn *websocket.Conn) {
		if _, err := conn.UnderlyingConn().Write(b.raw); err != nil {
			s.t.Errorf("%s: %v", b.what, err)
		}
		s.wantEnd(conn, b.what, b.want)
	})
}

// comesTooOften opens one connection more than a user may have; the one that was silent longest is closed.
func (s *soak) comesTooOften(user string, left int) { s.comesAgain(user, left, nil) }

func (s *soak) comesAgain(user string, left int, first *websocket.Conn) {
	s.connected(user, func(conn *websocket.Conn) {
		if _, _, err := conn.ReadMessage(); err != nil { // the welcome
			s.t.Errorf("one more connection: %v", err)
		}
		if first == nil {
			first = conn
		}
		if left == 0 {
			s.wantEnd(first, "the connection that was silent longest", 4005)
			return
		}
		s.comesAgain(user, left-1, first)
		cut(conn)
	})
}

// isSilent does not answer pings, as if its network were gone.
func (s *soak) isSilent(conn *websocket.Conn) {
	conn.SetPingHandler(func(string) error { return nil })
	s.wantEnd(conn, "silence", websocket.CloseAbnormalClosure)
}

// stalls never finishes its request.
func (s *soak) stalls() {
	conn, err := (&net.Dialer{}).DialContext(s.t.Context(), "tcp", s.proc.addr)
	if err != nil {
		s.t.Errorf("connect: %v", err)
		return
	}
	defer func() { _ = conn.Close() }()
	_, _ = conn.Write([]byte("GET /v1/socket HTTP/1.1\r\nHost: x\r\n"))
	_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	buf := make([]byte, 1024)
	for err == nil {
		_, err = conn.Read(buf)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		s.t.Error("a request that never ended was waited for")
	}
}

// slowOnes connect and read nothing, until the gateway closes each as too slow.
func (s *soak) slowOnes(round int) {
	dialer := soakDialer
	dialer.NetDialContext = (&net.Dialer{Control: smallWindow}).DialContext
	had := metricOf(s.t, s.proc, tooSlow)
	var reading sync.WaitGroup
	defer reading.Wait()
	enough := make(chan struct{})
	defer close(enough)
	for _, user := range s.slowNames() {
		reading.Go(func() {
			s.connectedWith(&dialer, token(user), func(conn *websocket.Conn) { breathes(conn, enough) })
		})
	}
	body := strings.Repeat("slow ", 600)
	var records []*kgo.Record
	for i := range forSlow {
		for _, user := range s.slowNames() {
			value := fmt.Appendf(nil, `{"id":"%s-slow-%d-%d","to":{"users":[%q]},"content":{"body":%q}}`, s.prefix, round, i, user, body)
			records = append(records, &kgo.Record{Topic: "whisper.requests.low", Key: []byte(user), Value: value})
		}
	}
	if err := sys.kafka.ProduceSync(s.t.Context(), records...).FirstErr(); err != nil {
		s.t.Errorf("produce: %v", err)
	}
	if !within(30*time.Second, func() bool { return metricOf(s.t, s.proc, tooSlow) >= had+slowUsers }) {
		s.t.Errorf("%.0f of %d slow clients were cut off", metricOf(s.t, s.proc, tooSlow)-had, slowUsers)
	}
}

// breathes sends pongs, so that the client counts as alive, and reads nothing.
func breathes(conn *websocket.Conn, enough <-chan struct{}) {
	defer cut(conn)
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-enough:
			return
		case <-tick.C:
			_ = conn.WriteControl(websocket.PongMessage, nil, time.Now().Add(time.Second)) // the gateway may have had enough
		}
	}
}

const tooSlow = `whisper_gateway_closes_total{code="4004"}`

// within waits for a condition for some time, and says whether it became true.
func within(d time.Duration, ok func() bool) bool {
	deadline := time.After(d)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			return false
		case <-tick.C:
		}
	}
	return true
}

// sawEverything checks that the gateway counted each kind of end, so that the soak shows what it claims.
func (s *soak) sawEverything() {
	s.t.Helper()
	var said []string
	for _, code := range []string{"1001", "1002", "1006", "1007", "4001", "4003", "4004", "4005"} {
		n := metricOf(s.t, s.proc, `whisper_gateway_closes_total{code="`+code+`"}`)
		if n == 0 {
			s.t.Errorf("no connection ended with %s", code)
		}
		said = append(said, fmt.Sprintf("%s: %.0f", code, n))
	}
	for _, kind := range []string{"ack", "read"} {
		if metricOf(s.t, s.proc, `whisper_gateway_frames_in_total{type="`+kind+`"}`) == 0 {
			s.t.Errorf("no %s came", kind)
		}
	}
	s.t.Logf("the connections ended with %s", strings.Join(said, ", "))
}

// smallWindow keeps the kernel from taking much for a client that does not read.
func smallWindow(_, _ string, raw syscall.RawConn) (err error) {
	ctlErr := raw.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096) })
	return errors.Join(ctlErr, err)
}
