package gateway

import (
	"crypto/sha1" //nolint:gosec // RFC 6455 asks for it; nothing is protected by it
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
)

// The handshake is our own, so that its answer and the welcome go out in one write and no buffer of a
// library's connection stays behind.

// isUpgrade: HTTP/1.0 has no upgrades, and a server must pass over the header there (RFC 9110 §7.8).
func isUpgrade(r *http.Request) bool {
	return r.ProtoAtLeast(1, 1) && hasToken(r.Header["Connection"], "upgrade") && hasToken(r.Header["Upgrade"], "websocket")
}

// hasToken looks for a word in comma-separated header lines, whatever its case.
func hasToken(lines []string, word string) bool {
	for _, line := range lines {
		for part := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(part), word) {
				return true
			}
		}
	}
	return false
}

// checkUpgrade is what is wrong with the handshake, and the status that says so; 0: nothing.
func checkUpgrade(h http.Header) (status int, problem string) {
	if h.Get("Sec-Websocket-Version") != "13" {
		return http.StatusUpgradeRequired, "Sec-WebSocket-Version must be 13"
	}
	if key, err := base64.StdEncoding.DecodeString(h.Get("Sec-Websocket-Key")); err != nil || len(key) != 16 {
		return http.StatusBadRequest, "Sec-WebSocket-Key must be 16 bytes in base64"
	}
	return 0, ""
}

const websocketGUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

// switching is the answer that ends HTTP on the connection.
func switching(h http.Header) []byte {
	sum := sha1.Sum([]byte(h.Get("Sec-Websocket-Key") + websocketGUID)) //nolint:gosec // see above
	b := make([]byte, 0, 320)
	b = append(b, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "...)
	b = base64.StdEncoding.AppendEncode(b, sum[:])
	if hasToken(h["Sec-Websocket-Protocol"], subprotocol) {
		b = append(b, "\r\nSec-WebSocket-Protocol: "+subprotocol...)
	}
	return append(b, "\r\n\r\n"...)
}

// hijack takes the connection from net/http.
func hijack(w http.ResponseWriter) (net.Conn, error) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, fmt.Errorf("take over a connection: %w", err)
	}
	conn, left := bare(conn)
	if left || rw.Reader.Buffered() > 0 {
		_ = conn.Close()
		return nil, errors.New("the client sent frames before the handshake was over")
	}
	return conn, nil
}
