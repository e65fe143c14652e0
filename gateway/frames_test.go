package gateway

import (
	"bytes"
	"strings"
	"testing"

	"github.com/gorilla/websocket"
)

func TestFramesThatCantBeUsed(t *testing.T) { eachLink(t, testFramesThatCantBeUsed) }

func testFramesThatCantBeUsed(t *testing.T, link change) {
	n := setup(t, link)
	n.connect("omar")
	long := strings.Repeat("x", 200)
	for name, c := range map[string]struct {
		kind  int
		frame string
		code  string
		fatal bool
	}{
		"binary":           {websocket.BinaryMessage, `{"type":"ack","ids":["a"]}`, codeBinary, true},
		"too big":          {websocket.TextMessage, `{"type":"ack","ids":["` + strings.Repeat("x", 16<<10) + `"]}`, codeTooBig, true},
		"not JSON":         {websocket.TextMessage, `hello`, codeBadJSON, true},
		"truncated":        {websocket.TextMessage, `{"type":"ack","ids":["a"`, codeBadJSON, true},
		"two objects":      {websocket.TextMessage, `{"type":"ack","ids":["a"]}{}`, codeBadJSON, true},
		"empty":            {websocket.TextMessage, ``, codeBadJSON, true},
		"too many ids":     {websocket.TextMessage, `{"type":"read","ids":[` + strings.Repeat(`"a",`, maxIDs) + `"b"]}`, codeBadIDs, false},
		"an array":         {websocket.TextMessage, `[]`, codeBadFrame, false},
		"a number":         {websocket.TextMessage, `7`, codeBadFrame, false},
		"null":             {websocket.TextMessage, `null`, codeUnknownType, false},
		"unknown type":     {websocket.TextMessage, `{"type":"shout"}`, codeUnknownType, false},
		"no type":          {websocket.TextMessage, `{"ids":["a"]}`, codeUnknownType, false},
		"type of a number": {websocket.TextMessage, `{"type":1}`, codeUnknownType, false},
		"no ids":           {websocket.TextMessage, `{"type":"ack"}`, codeBadIDs, false},
		"empty ids":        {websocket.TextMessage, `{"type":"read","ids":[]}`, codeBadIDs, false},
		"ids no array":     {websocket.TextMessage, `{"type":"ack","ids":"a"}`, codeBadIDs, false},
		"ids of numbers":   {websocket.TextMessage, `{"type":"ack","ids":[1]}`, codeBadIDs, false},
		"unknown ack":      {websocket.TextMessage, `{"type":"ack","ids":["nobody-sent-it"]}`, codeUnknownID, false},
		"129-byte ack":     {websocket.TextMessage, `{"type":"ack","ids":["` + long + `"]}`, codeUnknownID, false},
		"129-byte read":    {websocket.TextMessage, `{"type":"read","ids":["` + long + `"]}`, codeBadIDs, false},
		"type twice":       {websocket.TextMessage, `{"type":"ack","type":"read","ids":["a"]}`, codeBadFrame, false},
		"ids twice":        {websocket.TextMessage, `{"type":"read","ids":["a"],"ids":["b"]}`, codeBadFrame, false},
		"ids, then IDS":    {websocket.TextMessage, `{"type":"read","ids":["a"],"IDS":["b"]}`, codeBadFrame, false},
		"TYPE":             {websocket.TextMessage, `{"TYPE":"read","ids":["a"]}`, codeBadFrame, false},
		"half a character": {websocket.TextMessage, `{"type":"read","ids":["a\ud800"]}`, codeBadFrame, false},
		"a receipt less":   {websocket.TextMessage, `{"type":"read","ids":["a","b"],"receipts":["loia5ts0"]}`, codeBadReceipts, false},
		"no receipt":       {websocket.TextMessage, `{"type":"read","ids":["a"],"receipts":["yesterday"]}`, codeBadReceipts, false},
		"next year's":      {websocket.TextMessage, `{"type":"read","ids":["a"],"receipts":["zzzzzzzz"]}`, codeBadReceipts, false},
		"receipts no list": {websocket.TextMessage, `{"type":"read","ids":["a"],"receipts":"b"}`, codeBadReceipts, false},
		"ack of a made-up": {websocket.TextMessage, `{"type":"ack","ids":["a"],"receipts":["loia5ts0"]}`, codeUnknownID, false},
		"empty read":       {websocket.TextMessage, `{"type":"read","ids":[""]}`, codeBadIDs, false},
	} {
		t.Run(name, func(t *testing.T) {
			conn := n.connect("u-" + name)
			if err := conn.WriteMessage(c.kind, []byte(c.frame)); err != nil {
				t.Fatal(err)
			}
			conn.wantError(c.code)
			if c.fatal {
				conn.wantClose(closeBadFrame)
				return
			}
			n.broker.put(0, route(n, "u-"+name, "after"))
			conn.wantNotification("after")
		})
	}
	for _, ev := range n.broker.allFacts() {
		if ev.GetNotificationId() != "after" {
			t.Errorf("a bad frame made the fact %v", ev)
		}
	}
}

func TestAFrameInPiecesIsOneFrame(t *testing.T) { eachLink(t, testAFrameInPiecesIsOneFrame) }

func testAFrameInPiecesIsOneFrame(t *testing.T, link change) {
	n := setup(t, link)
	c := n.connect("mona")
	n.broker.put(0, route(n, "mona", "a"))
	c.wantNotification("a")
	n.wantKinds("a", "delivery_sent")
	w, err := c.NextWriter(websocket.TextMessage)
	if err != nil {
		t.Fatal(err)
	}
	// Longer than the client's write buffer, so that it is sent in fragments.
	for _, piece := range []string{`{"type":"ack",`, strings.Repeat(" ", 10_000), `"ids":["a"]}`} {
		if _, err := w.Write([]byte(piece)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	n.wantKinds("a", "delivery_sent", "delivery_delivered")
}

func TestServerFramesOfEveryLength(t *testing.T) { eachLink(t, testServerFramesOfEveryLength) }

func testServerFramesOfEveryLength(t *testing.T, link change) {
	n := setup(t, link)
	c := n.connect("mona")
	for _, size := range []int{1, 125, 126, 127, 65535, 65536, 200_000} {
		s := n.session(c)
		body := []byte(strings.Repeat("b", size))
		s.control(encodeFrame(opText, body))
		kind, got, err := c.ReadMessage()
		if err != nil || kind != websocket.TextMessage || !bytes.Equal(got, body) {
			t.Fatalf("size %d: kind %d, %d bytes, %v", size, kind, len(got), err)
		}
	}
}

// session is the server's side of a client.
func (n *node) session(c *client) (found *session) {
	n.t.Helper()
	n.hub.each(func(s *session) {
		if s.id == c.session {
			found = s
		}
	})
	if found == nil {
		n.t.Fatal("no such session")
	}
	return found
}

func TestProtocolBreachCloses1002(t *testing.T) { eachLink(t, testProtocolBreachCloses1002) }

func testProtocolBreachCloses1002(t *testing.T, link change) {
	n := setup(t, link)
	c := n.connect("mona")
	// A reserved opcode, masked as a client must.
	if _, err := c.NetConn().Write([]byte{0x83, 0x80, 1, 2, 3, 4}); err != nil {
		t.Fatal(err)
	}
	c.wantClose(closeProtocol)
	eventually(t, "the connection to be freed", func() bool { return n.connections.Load() == 0 })
}

func TestTheClientsCloseIsAnswered(t *testing.T) { eachLink(t, testTheClientsCloseIsAnswered) }

func testTheClientsCloseIsAnswered(t *testing.T, link change) {
	n := setup(t, link)
	c := n.connect("mona")
	if err := c.WriteMessage(websocket.CloseMessage, websocket.FormatCloseMessage(1000, "bye")); err != nil {
		t.Fatal(err)
	}
	c.wantClose(1000)
	eventually(t, "the connection to be freed", func() bool { return n.connections.Load() == 0 })
}

func FuzzDecodeFrame(f *testing.F) {
	for _, seed := range []string{
		`{"type":"ack","ids":["a","b"]}`, `{"type":"read","ids":[]}`, `null`, `[1]`, `{"type":1}`,
		`{"type":"ack","ids":[null]}`, `{"ids":{"a":1},"type":"ack"}`, "\xff", ``, `{"type":"ack","ids":["\ud800"]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		frame, bad := decodeFrame(b)
		if bad != nil {
			wire := bad.wire()
			if bad.frame == "" || bad.text == "" || len(wire) < 10 {
				t.Fatalf("an answer without words: %+v", bad)
			}
			if len(bad.text) > 512 {
				t.Fatalf("an answer of %d bytes", len(bad.text))
			}
			return
		}
		if frame.Type != "refresh" && (frame.Type != "ack" && frame.Type != "read" || len(frame.IDs) == 0) {
			t.Fatalf("let through: %+v", frame)
		}
	})
}
