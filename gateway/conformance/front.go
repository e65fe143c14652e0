package conformance

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// frontMode is what becomes of a new connection.
type frontMode struct {
	Mode       string `json:"mode"` // pass, refuse, drop, silent
	Status     int    `json:"status"`
	RetryAfter string `json:"retry_after"`
}

// front is the address that a client connects to.
type front struct {
	listener net.Listener
	upstream func() (net.Conn, error)
	changed  func()

	mu       sync.Mutex
	mode     frontMode
	links    map[*link]struct{}
	attempts []time.Time
	tokens   []string
	sessions int // welcomes that were passed on
	frames   []clientFrame
	answers  []int // statuses of handshakes
	waits    []told
	goodbyes []int // close codes of the server
	closed   bool
	done     sync.WaitGroup
}

// clientFrame is what a client sent.
type clientFrame struct {
	Type     string   `json:"type"`
	IDs      []string `json:"ids"`
	Receipts []string `json:"receipts"`
}

// told is a Retry-After.
type told struct{ at, until time.Time }

// link is one connection through the front.
type link struct {
	client, server net.Conn
	mu             sync.Mutex // whole frames to the client
	over           bool       // nothing of the server's goes to the client any more
}

func newFront(upstream func() (net.Conn, error), changed func()) (*front, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // loopback
	if err != nil {
		return nil, err
	}
	f := &front{listener: listener, upstream: upstream, changed: changed, links: map[*link]struct{}{}, mode: frontMode{Mode: "pass"}}
	f.done.Go(f.serve)
	return f, nil
}

func (f *front) url() string { return "ws://" + f.listener.Addr().String() + "/v1/socket" }

func (f *front) serve() {
	for {
		conn, err := f.listener.Accept()
		if err != nil {
			return
		}
		f.done.Go(func() { f.handle(conn) })
	}
}

func (f *front) close() {
	_ = f.listener.Close()
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.cut()
	f.done.Wait()
}

// open registers a link, so that cut finds it; false: the front is closed.
func (f *front) open(l *link) (frontMode, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return frontMode{}, false
	}
	f.links[l] = struct{}{}
	f.attempts = append(f.attempts, time.Now())
	return f.mode, true
}

func (f *front) handle(client net.Conn) {
	l := &link{client: client}
	defer client.Close()
	mode, ok := f.open(l)
	if !ok {
		return
	}
	f.changed()
	defer func() {
		f.mu.Lock()
		delete(f.links, l)
		f.mu.Unlock()
	}()
	r := bufio.NewReader(client)
	switch mode.Mode {
	case "drop":
	case "silent":
		_, _ = io.Copy(io.Discard, r)
	case "refuse":
		if _, err := http.ReadRequest(r); err == nil {
			_, _ = fmt.Fprintf(client, "HTTP/1.1 %d %s\r\nRetry-After: %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
				mode.Status, http.StatusText(mode.Status), mode.RetryAfter)
		}
	default:
		f.pass(l, r)
	}
}

// pass joins the client with a node until one of them hangs up.
func (f *front) pass(l *link, fromClient *bufio.Reader) {
	server, err := f.upstream()
	if err != nil {
		return
	}
	defer server.Close()
	l.mu.Lock()
	l.server = server
	over := l.over
	l.mu.Unlock()
	if over {
		return
	}
	head, err := readHead(fromClient)
	if err != nil {
		return
	}
	f.note(func() { f.tokens = append(f.tokens, tokenOf(head)) })
	fromServer := bufio.NewReader(server)
	if _, err := io.WriteString(server, head); err != nil {
		return
	}
	answer, err := readHead(fromServer)
	if err != nil {
		return
	}
	f.noteAnswer(answer)
	if _, err := io.WriteString(l.client, answer); err != nil {
		return
	}
	if !strings.Contains(answer, " 101 ") {
		_, _ = io.Copy(l.client, fromServer)
		return
	}
	heard := make(chan struct{})
	f.done.Go(func() {
		defer close(heard)
		defer server.Close()
		f.toServer(fromClient, server)
	})
	if f.toClient(l, fromServer) {
		// A close frame was put in: who got it answers, then waits for the connection to end.
		select {
		case <-heard:
		case <-time.After(5 * time.Second):
		}
	}
}

func readHead(r *bufio.Reader) (string, error) {
	var head strings.Builder
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return "", err
		}
		head.WriteString(line)
		if line == "\r\n" {
			return head.String(), nil
		}
	}
}

func (f *front) noteAnswer(head string) {
	resp, err := http.ReadResponse(bufio.NewReader(strings.NewReader(head)), nil)
	if err != nil {
		return
	}
	defer resp.Body.Close()
	f.note(func() {
		f.answers = append(f.answers, resp.StatusCode)
		if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil {
			now := time.Now()
			f.waits = append(f.waits, told{now, now.Add(time.Duration(seconds) * time.Second)})
		}
	})
}

// tokenOf finds it in the header or among the subprotocols.
func tokenOf(head string) string {
	for _, mark := range []string{"Bearer ", "bearer."} {
		if _, rest, ok := strings.Cut(head, mark); ok {
			return rest[:strings.IndexAny(rest, ",\r")]
		}
	}
	return ""
}

// wire is one WebSocket frame as it stands.
type wire struct {
	bytes   []byte
	payload []byte // unmasked
	op      byte
}

func readWire(r *bufio.Reader) (wire, error) {
	head := make([]byte, 2, 14)
	if _, err := io.ReadFull(r, head); err != nil {
		return wire{}, err
	}
	n := uint64(head[1] & 0x7f)
	more := map[uint64]int{126: 2, 127: 8}[n]
	masked := head[1]&0x80 != 0
	if masked {
		more += 4
	}
	head = head[:2+more]
	if _, err := io.ReadFull(r, head[2:]); err != nil {
		return wire{}, err
	}
	switch n {
	case 126:
		n = uint64(binary.BigEndian.Uint16(head[2:]))
	case 127:
		n = binary.BigEndian.Uint64(head[2:])
	}
	if n > 1<<20 {
		return wire{}, fmt.Errorf("a frame of %d bytes", n)
	}
	all := make([]byte, len(head)+int(n))
	copy(all, head)
	if _, err := io.ReadFull(r, all[len(head):]); err != nil {
		return wire{}, err
	}
	payload := slices.Clone(all[len(head):])
	if masked {
		for i := range payload {
			payload[i] ^= head[len(head)-4+i%4]
		}
	}
	return wire{all, payload, all[0] & 0xf}, nil
}

// toServer notes what the client says and passes it on.
func (f *front) toServer(client *bufio.Reader, server net.Conn) {
	for {
		w, err := readWire(client)
		if err != nil {
			return
		}
		var frame clientFrame
		if w.op == 1 && json.Unmarshal(w.payload, &frame) == nil {
			f.note(func() { f.frames = append(f.frames, frame) })
		}
		if _, err := server.Write(w.bytes); err != nil {
			return
		}
	}
}

// toClient passes on what the server says; true: it was cut short by a frame of the front's.
func (f *front) toClient(l *link, server *bufio.Reader) bool {
	for {
		w, err := readWire(server)
		if err != nil {
			break
		}
		if !l.put(w.bytes) {
			break
		}
		switch {
		case strings.HasPrefix(string(w.payload), `{"type":"welcome"`):
			f.note(func() { f.sessions++ })
		case w.op == 8 && len(w.payload) >= 2:
			f.note(func() { f.goodbyes = append(f.goodbyes, int(binary.BigEndian.Uint16(w.payload))) })
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.over
}

func (f *front) note(change func()) {
	f.mu.Lock()
	change()
	f.mu.Unlock()
	f.changed()
}

func (l *link) put(frame []byte) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return false
	}
	_, err := l.client.Write(frame)
	return err == nil
}

func (f *front) each(do func(*link)) {
	f.mu.Lock()
	links := make([]*link, 0, len(f.links))
	for l := range f.links {
		links = append(links, l)
	}
	f.mu.Unlock()
	for _, l := range links {
		do(l)
	}
}

// cut resets every connection.
func (f *front) cut() {
	f.each(func(l *link) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.over = true
		for _, conn := range []net.Conn{l.client, l.server} {
			if tcp, ok := conn.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0)
				_ = tcp.Close()
			}
		}
	})
}

// inject puts a text frame between those of the server.
func (f *front) inject(text []byte) {
	f.each(func(l *link) { l.put(serverFrame(1, text)) })
}

// closeWith says goodbye in the server's name.
func (f *front) closeWith(code int) {
	goodbye := serverFrame(8, binary.BigEndian.AppendUint16(nil, uint16(code)))
	f.each(func(l *link) {
		if l.put(goodbye) {
			l.mu.Lock()
			l.over = true
			server := l.server
			l.mu.Unlock()
			_ = server.Close()
		}
	})
}

func serverFrame(op byte, payload []byte) []byte {
	if len(payload) > 125 {
		return append([]byte{0x80 | op, 126, byte(len(payload) >> 8), byte(len(payload))}, payload...)
	}
	return append([]byte{0x80 | op, byte(len(payload))}, payload...)
}
