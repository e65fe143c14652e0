package gateway

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// rawConn is a client that sends whatever bytes a test likes and takes the server's apart by RFC 6455,
// without a library that would be as wrong as what it is to check.
type rawConn struct {
	halfConn
	t testing.TB
	r *bufio.Reader
}

// halfConn can end its own half: TCP and TLS.
type halfConn interface {
	net.Conn
	CloseWrite() error
}

func dialRaw(t testing.TB, addr string) *rawConn {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return rawOver(t, conn.(*net.TCPConn))
}

func rawOver(t testing.TB, conn halfConn) *rawConn {
	t.Helper()
	_ = conn.SetDeadline(time.Now().Add(3 * time.Minute))
	t.Cleanup(func() { conn.Close() })
	return &rawConn{halfConn: conn, t: t, r: bufio.NewReader(conn)}
}

// raw upgrades as a user and reads the welcome.
func (n *node) raw(t testing.TB, user string) *rawConn {
	t.Helper()
	token, err := SignToken(secret, user, time.Hour, n.clock.now())
	if err != nil {
		t.Fatal(err)
	}
	return n.rawWith(t, token)
}

func (n *node) rawWith(t testing.TB, token string) *rawConn {
	t.Helper()
	c := dialRaw(t, n.Addr().String())
	if n.certificate != nil {
		c = rawOver(t, tls.Client(c.halfConn, trusting.TLSClientConfig))
	}
	c.send(fmt.Appendf(nil, "GET /v1/socket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Bearer %s\r\n\r\n", token))
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols ||
		resp.Header.Get("Sec-WebSocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		t.Fatalf("upgrade: %v %v", resp, err)
	}
	if f, err := c.frame(); err != nil || f.op != opText || !strings.Contains(string(f.payload), `"welcome"`) {
		t.Fatalf("the first frame: %+v, %v", f, err)
	}
	return c
}

// send ignores errors: the server may have hung up, which is for the reading side to tell.
func (c *rawConn) send(b []byte) { _, _ = c.Write(b) }

type rawFrame struct {
	op      byte
	payload []byte
}

// frame reads one frame of the server, which must be whole, unmasked, of the shortest form, and, if it is
// text, an object of JSON in UTF-8.
func (c *rawConn) frame() (f rawFrame, err error) {
	var head [2]byte
	if _, err := io.ReadFull(c.r, head[:]); err != nil {
		return f, err
	}
	f.op = head[0] & 0x0f
	if head[0]&0xf0 != finBit || head[1]&0x80 != 0 {
		return f, fmt.Errorf("the server sent the header %x", head)
	}
	size := uint64(head[1])
	switch size {
	case 126:
		var b [2]byte
		_, err = io.ReadFull(c.r, b[:])
		if size = uint64(binary.BigEndian.Uint16(b[:])); err == nil && size < 126 {
			err = fmt.Errorf("the server sent the length %d in 16 bits", size)
		}
	case 127:
		var b [8]byte
		_, err = io.ReadFull(c.r, b[:])
		if size = binary.BigEndian.Uint64(b[:]); err == nil && (size < 1<<16 || size > 1<<24) {
			err = fmt.Errorf("the server sent the length %d in 64 bits", size)
		}
	}
	if err != nil {
		return f, err
	}
	f.payload = make([]byte, size)
	if _, err := io.ReadFull(c.r, f.payload); err != nil {
		return f, err
	}
	return f, f.check()
}

func (f rawFrame) check() error {
	switch f.op {
	case opText:
		var object map[string]any
		if err := json.Unmarshal(f.payload, &object); err != nil || !utf8.Valid(f.payload) {
			return fmt.Errorf("the server sent the text %q", f.payload)
		}
	case opPing, opPong:
		if len(f.payload) > 125 {
			return fmt.Errorf("the server sent %d bytes in a control frame", len(f.payload))
		}
	case opClose:
		if len(f.payload) == 1 || len(f.payload) > 125 || len(f.payload) > 2 && !utf8.Valid(f.payload[2:]) {
			return fmt.Errorf("the server sent the close %q", f.payload)
		}
	default:
		return fmt.Errorf("the server sent the opcode %d", f.op)
	}
	return nil
}

// toEnd reads until the server hangs up.
func (c *rawConn) toEnd() []byte {
	c.t.Helper()
	b, err := io.ReadAll(c.r)
	if err != nil && errors.Is(err, net.ErrClosed) {
		c.t.Fatal(err)
	}
	return b
}

// clientFrameBytes is a masked frame; first is FIN, the reserved bits and the opcode.
func clientFrameBytes(first byte, payload string) []byte {
	mask := [4]byte{0x37, 0xfa, 0x21, byte(len(payload)) | 1}
	b := []byte{first}
	switch n := len(payload); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	return masked(append(b, mask[:]...), mask, payload)
}

func masked(head []byte, mask [4]byte, payload string) []byte {
	for i := range len(payload) {
		head = append(head, payload[i]^mask[i%4])
	}
	return head
}
