package gateway

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/gorilla/websocket"
)

// taken is all that a reader makes of bytes that come in chunks: the frames, and the breach that ended it.
func taken(limit int, chunks [][]byte) (frames []string, end string, held int) {
	r := frameReader{limit: int32(limit)}
	for _, chunk := range chunks {
		b := r.begin(bytes.Clone(chunk))
		for {
			f, n, bad := r.next(b)
			if bad != nil {
				if bad.frame != "" {
					return frames, bad.frame, held
				}
				return frames, fmt.Sprint(bad.close), held
			}
			if n == 0 {
				break
			}
			if f.op != 0 {
				frames = append(frames, fmt.Sprintf("%d %q", f.op, f.payload))
			}
			b = b[n:]
		}
		r.end(b)
		held = max(held, len(r.held)+len(r.text))
	}
	return frames, "", held
}

// FuzzFrameReader: however a stream is cut up, the same frames come out and the same breach ends it; none is
// larger than the limit, and no more is held than came.
func FuzzFrameReader(f *testing.F) {
	for i, seed := range readerSeeds() {
		f.Add(seed, uint8(i))
	}
	const limit = 256
	f.Fuzz(func(t *testing.T, b []byte, size uint8) {
		frames, end, _ := taken(limit, [][]byte{b})
		pieces, endPieces, held := taken(limit, slices.Collect(slices.Chunk(b, int(size)%16+1)))
		if !reflect.DeepEqual(frames, pieces) || end != endPieces {
			t.Fatalf("at once %q %s\nin pieces %q %s", frames, end, pieces, endPieces)
		}
		if held > len(b) {
			t.Fatalf("%d bytes are held of %d", held, len(b))
		}
	})
}

// FuzzFrameReaderRoundTrip: what a client masks and cuts into fragments comes out as it was.
func FuzzFrameReaderRoundTrip(f *testing.F) {
	f.Add([]byte("hello"), uint32(7), uint8(2))
	f.Add([]byte{}, uint32(0), uint8(0))
	f.Fuzz(func(t *testing.T, payload []byte, mask uint32, size uint8) {
		const limit = 1 << 17
		if len(payload) > limit {
			return
		}
		var wire []byte
		op := byte(opText)
		rest := payload
		for {
			n := min(len(rest), int(size)+1)
			first := op
			if n == len(rest) {
				first |= finBit
			}
			key := binary.LittleEndian.AppendUint32(nil, mask)
			wire = append(wire, first)
			if n < 126 {
				wire = append(wire, 0x80|byte(n))
			} else {
				wire = binary.BigEndian.AppendUint16(append(wire, 0x80|126), uint16(n))
			}
			wire = append(wire, key...)
			for i, c := range rest[:n] {
				wire = append(wire, c^key[i%4])
			}
			if op, rest = 0, rest[n:]; len(rest) == 0 {
				break
			}
		}
		frames, end, _ := taken(limit, [][]byte{wire})
		if want := fmt.Sprintf("%d %q", opText, payload); end != "" || len(frames) != 1 || frames[0] != want {
			t.Fatalf("got %q %s, want %s", frames, end, want)
		}
	})
}

func TestReadingFrames(t *testing.T) {
	t.Parallel()
	const limit = 300
	long := strings.Repeat("x", 200)
	for name, c := range map[string]struct {
		wire   []byte
		frames []string
		end    string // the code that ends it, or the error frame's
	}{
		"a text":                   {frame(fin|opText, "hi"), []string{`1 "hi"`}, ""},
		"nothing":                  {nil, nil, ""},
		"half a header":            {[]byte{0x81}, nil, ""},
		"half a mask":              {frame(fin|opText, "hi")[:5], nil, ""},
		"half a text":              {frame(fin|opText, "hi")[:7], nil, ""},
		"a 16-bit length":          {frame(fin|opText, long), []string{`1 "` + long + `"`}, ""},
		"fragments":                {slices.Concat(frame(opText, "a"), frame(0, ""), frame(fin, "b")), []string{`1 "ab"`}, ""},
		"a ping in between":        {slices.Concat(frame(opText, "a"), frame(fin|opPing, "p"), frame(fin, "b")), []string{`9 "p"`, `1 "ab"`}, ""},
		"a pong, a close":          {slices.Concat(frame(fin|opPong, ""), closeBytes(1000, "bye")), []string{`10 ""`, `8 "\x03\xe8bye"`}, ""},
		"as large as may be":       {frame(fin|opText, long+long[:100]), []string{`1 "` + long + long[:100] + `"`}, ""},
		"a byte more":              {frame(fin|opText, long+long[:101]), nil, codeTooBig},
		"a byte more by its head":  {frame(fin|opText, long+long[:101])[:4], nil, codeTooBig},
		"too much in fragments":    {slices.Concat(frame(opText, long), frame(fin, long)[:4]), nil, codeTooBig},
		"no mask":                  {[]byte{0x81, 1, 'a'}, nil, "1002"},
		"a reserved bit":           {frame(fin|0x40|opText, ""), nil, "1002"},
		"an unknown opcode":        {frame(fin|3, ""), nil, "1002"},
		"an unknown control":       {frame(fin|11, ""), nil, "1002"},
		"a binary":                 {frame(fin|opBinary, "a"), nil, codeBinary},
		"a continuation":           {frame(fin, "a"), nil, "1002"},
		"a text inside a text":     {slices.Concat(frame(opText, "a"), frame(fin|opText, "b")), nil, "1002"},
		"a fragmented ping":        {frame(opPing, "a"), nil, "1002"},
		"a large ping":             {frame(fin|opPing, long), nil, "1002"},
		"a long length":            {[]byte{0x81, 0xfe, 0, 125, 0, 0, 0, 0}, nil, "1002"},
		"a very long length":       {[]byte{0x81, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0}, nil, "1002"},
		"a length of 64 bits":      {[]byte{0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0}, nil, "1002"},
		"a length of 63 bits":      {[]byte{0x81, 0xff, 0x7f, 255, 255, 255, 255, 255, 255, 255}, nil, codeTooBig},
		"a close of one byte":      {frame(fin|opClose, "a"), nil, "1002"},
		"a close of nobody's code": {closeBytes(1005, ""), nil, "1002"},
		"a close that is no text":  {closeBytes(1000, "\xff"), nil, "1007"},
		"a good one, then a bad":   {slices.Concat(frame(fin|opText, "a"), frame(fin|3, "")), []string{`1 "a"`}, "1002"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for size := range len(c.wire) + 1 {
				frames, end, _ := taken(limit, slices.Collect(slices.Chunk(c.wire, size+1)))
				if !reflect.DeepEqual(frames, c.frames) || end != c.end {
					t.Errorf("in pieces of %d: %q, ended by %q", size+1, frames, end)
				}
			}
		})
	}
}

// What is held of a frame that is not complete is let go of with it.
func TestAReaderHoldsNothingAtRest(t *testing.T) {
	t.Parallel()
	r := frameReader{limit: 1 << 20}
	wire := slices.Concat(frame(opText, strings.Repeat("x", 1<<18)), frame(fin, "y"), frame(fin|opText, "z"))
	for piece := range slices.Chunk(wire, 1000) {
		b := r.begin(bytes.Clone(piece))
		for {
			_, n, bad := r.next(b)
			if bad != nil {
				t.Fatal(bad.text)
			}
			if n == 0 {
				break
			}
			b = b[n:]
		}
		r.end(b)
	}
	if r.held != nil || r.text != nil || r.ongoing {
		t.Errorf("%d bytes and a text of %d are kept", cap(r.held), cap(r.text))
	}
}

// byGorilla is what gorilla/websocket makes of the same bytes: its texts, and whether it took them all.
func byGorilla(t *testing.T, limit int, wire []byte) (texts []string, whole bool) {
	t.Helper()
	ours, theirs := net.Pipe()
	w := &hijacked{ResponseRecorder: httptest.NewRecorder(), conn: theirs}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", http.NoBody)
	r.Header = http.Header{
		"Connection": {"Upgrade"}, "Upgrade": {"websocket"},
		"Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="},
	}
	written := make(chan struct{})
	go func() {
		defer close(written)
		go func() { _, _ = io.Copy(io.Discard, ours) }() // its answers; ends with ours
		_, _ = ours.Write(wire)                          // fails where it hung up
		_ = ours.Close()
	}()
	conn, err := (&websocket.Upgrader{}).Upgrade(w, r, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { conn.Close(); <-written }()
	conn.SetReadLimit(int64(limit))
	conn.SetPingHandler(func(string) error { return nil }) // nobody listens to the answer
	conn.SetCloseHandler(func(int, string) error { return nil })
	for {
		kind, b, err := conn.ReadMessage()
		if err != nil {
			return texts, errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
				websocket.IsCloseError(err, websocket.CloseAbnormalClosure)
		}
		if kind == websocket.TextMessage {
			texts = append(texts, string(b))
		}
	}
}

type hijacked struct {
	*httptest.ResponseRecorder
	conn net.Conn
}

func (h *hijacked) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return h.conn, bufio.NewReadWriter(bufio.NewReader(h.conn), bufio.NewWriter(h.conn)), nil
}

// FuzzFrameReaderOracle: every text that is taken here, gorilla/websocket takes as well, in the same order;
// and where we go on to the end of the bytes, so does it. It takes more: lengths in more bytes than they
// need, closes of one byte; and it reads binary.
func FuzzFrameReaderOracle(f *testing.F) {
	for _, seed := range readerSeeds() {
		f.Add(seed)
	}
	const limit = 256
	f.Fuzz(func(t *testing.T, b []byte) {
		frames, end, _ := taken(limit, [][]byte{b})
		var texts []string
		closed := false
		for _, f := range frames {
			kind, text, _ := strings.Cut(f, " ")
			closed = closed || kind == "8"
			if kind == "1" && !closed {
				texts = append(texts, text)
			}
		}
		theirs, whole := byGorilla(t, limit, bytes.Clone(b))
		for i, text := range theirs {
			theirs[i] = fmt.Sprintf("%q", text)
		}
		if len(theirs) < len(texts) || !slices.Equal(theirs[:len(texts)], texts) {
			t.Fatalf("we take %q, it takes %q", texts, theirs)
		}
		if end == "" && !closed && (!whole || len(theirs) != len(texts)) {
			t.Fatalf("we take %q and wait for more, it takes %q; whole: %t", texts, theirs, whole)
		}
	})
}

func readerSeeds() (seeds [][]byte) {
	for _, c := range wireCases() {
		if b := slices.Concat(c.send...); len(b) < 512 {
			seeds = append(seeds, b)
		}
	}
	return seeds
}
