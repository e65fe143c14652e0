package gateway

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
)

// The cases of the Autobahn WebSocket test suite, by its numbers, written out for a server that takes only
// JSON text: where the suite expects an echo, the answer is the error frame that names the unknown type in
// the text, which shows that it came whole; where it expects any failure, what this server does is said.
// Numbers that begin with W are ours.

const maxFrameTested = 1 << 17

// wireCase is what a client sends, write by write, and what must come back, in order:
//
//	echo:T          the error frame about the unknown type T
//	error:C         an error frame of code C
//	pong:P          a pong with that payload
//	close:A|B       a close frame with one of these codes (none: without a code), then the end
//	end             the end, with or without a close frame
//
// With "?" in front it may also be missing. Unless it ends with a close, the session must live on. The server's own
// pings may come between any two of them, the first at any moment from the upgrade on: they are passed over.
type wireCase struct {
	name string
	send [][]byte
	want []string
}

const fin = finBit

func text(t string) string { return `{"type":"` + t + `"}` }

// textOf is a text of so many bytes with that type.
func textOf(t string, size int) string {
	head, tail := `{"type":"`+t+`","pad":"`, `"}`
	return head + strings.Repeat("*", size-len(head)-len(tail)) + tail
}

func frame(first byte, payload string) []byte { return clientFrameBytes(first, payload) }

// The three ways in which the suite chops what it sends.
func atOnce(frames ...[]byte) [][]byte   { return [][]byte{slices.Concat(frames...)} }
func byFrames(frames ...[]byte) [][]byte { return frames }
func byOctets(frames ...[]byte) [][]byte { return chopped(1, frames...) }

func chopped(size int, frames ...[]byte) [][]byte {
	return slices.Collect(slices.Chunk(slices.Concat(frames...), size))
}

// fragments cuts a text into frames of so many bytes.
func fragments(payload string, size int) (frames [][]byte) {
	op := byte(opText)
	for len(payload) > size {
		frames = append(frames, frame(op, payload[:size]))
		op, payload = 0, payload[size:]
	}
	return append(frames, frame(op|fin, payload))
}

func closeBytes(code int, reason string) []byte {
	return frame(fin|opClose, string(binary.BigEndian.AppendUint16(nil, uint16(code)))+reason)
}

func wireCases() []wireCase {
	return slices.Concat(framingCases(), pingCases(), reservedCases(), opcodeCases(), fragmentCases(),
		utf8Cases(), closeCases(), limitCases(), ourCases())
}

func framingCases() (cases []wireCase) {
	cases = append(cases, wireCase{"1.1.1", atOnce(frame(fin|opText, "")), []string{"error:bad_json", "close:4003"}})
	for i, size := range []int{125, 126, 127, 128, 65535, 65536} {
		cases = append(cases, wireCase{fmt.Sprint("1.1.", i+2), atOnce(frame(fin|opText, textOf("t", size))), []string{"echo:t"}})
	}
	cases = append(cases, wireCase{"1.1.8", chopped(997, frame(fin|opText, textOf("t", 65536))), []string{"echo:t"}})
	for i, size := range []int{0, 125, 126, 127, 128, 65535, 65536} {
		cases = append(cases, wireCase{
			fmt.Sprint("1.2.", i+1), atOnce(frame(fin|opBinary, strings.Repeat("\xfe", size))),
			[]string{"error:binary", "close:4003"},
		})
	}
	return cases
}

func pingCases() []wireCase {
	ping := func(payload string) []byte { return frame(fin|opPing, payload) }
	var ten [][]byte
	var pongs []string
	for i := range 10 {
		ten = append(ten, ping(fmt.Sprint("payload-", i)))
		pongs = append(pongs, fmt.Sprint("pong:payload-", i))
	}
	full, binary := strings.Repeat("\xfe", 125), "\x00\xff\xfe\xfd\xfc\xfb\x00\xff"
	return []wireCase{
		{"2.1", atOnce(ping("")), []string{"pong:"}},
		{"2.2", atOnce(ping("Hello, world!")), []string{"pong:Hello, world!"}},
		{"2.3", atOnce(ping(binary)), []string{"pong:" + binary}},
		{"2.4", atOnce(ping(full)), []string{"pong:" + full}},
		{"2.5", atOnce(ping(full + "\xfe")), []string{"close:1002"}},
		{"2.6", byOctets(ping(full)), []string{"pong:" + full}},
		{"2.7", atOnce(frame(fin|opPong, "")), nil},
		{"2.8", atOnce(frame(fin|opPong, "unsolicited")), nil},
		{"2.9", atOnce(frame(fin|opPong, "unsolicited"), ping("ping")), []string{"pong:ping"}},
		{"2.10", atOnce(ten...), pongs},
		{"2.11", byOctets(ten...), pongs},
	}
}

func reservedCases() []wireCase {
	// What came before may be answered or cut off by the failure.
	ended := []string{"?echo:t", "close:1002"}
	good, ping := frame(fin|opText, text("t")), frame(fin|opPing, "")
	bad := func(rsv, op byte) []byte { return frame(fin|rsv<<4|op, "x") }
	return []wireCase{
		{"3.1", atOnce(bad(1, opText)), ended},
		{"3.2", atOnce(good, bad(2, opText), ping), ended},
		{"3.3", byFrames(good, bad(3, opText), ping), ended},
		{"3.4", byOctets(good, bad(4, opText), ping), ended},
		{"3.5", atOnce(bad(5, opBinary)), ended},
		{"3.6", atOnce(bad(6, opPing)), ended},
		{"3.7", atOnce(frame(fin|7<<4|opClose, "\x03\xe8")), ended},
	}
}

func opcodeCases() (cases []wireCase) {
	good, ping := frame(fin|opText, text("t")), frame(fin|opPing, "")
	for group, first := range map[string]byte{"4.1.": 3, "4.2.": 11} {
		for i := range byte(5) {
			op := fin | first + i
			c := wireCase{name: fmt.Sprint(group, i+1), want: []string{"?echo:t", "close:1002"}}
			switch i {
			case 0:
				c.send = atOnce(frame(op, ""))
			case 1:
				c.send = atOnce(frame(op, "reserved"))
			case 2:
				c.send = atOnce(good, frame(op, ""), ping)
			case 3:
				c.send = atOnce(good, frame(op, "reserved"), ping)
			case 4:
				c.send = byOctets(good, frame(op, "reserved"), ping)
			}
			cases = append(cases, c)
		}
	}
	return cases
}

func fragmentCases() []wireCase {
	one, two := frame(opText, `{"type":"frag`), frame(fin, `ments"}`)
	ping, whole := frame(fin|opPing, "between"), frame(fin|opText, text("t"))
	echo, ended := []string{"echo:fragments"}, []string{"?echo:t", "close:1002"}
	around := []string{"pong:between", "echo:fragments"}
	five := [][]byte{
		frame(opText, `{"ty`), frame(0, `pe":"`), frame(fin|opPing, "first"),
		frame(0, `fragm`), frame(0, `ents`), frame(fin|opPing, "second"), frame(fin, `"}`),
	}
	interleaved := []string{"pong:first", "pong:second", "echo:fragments"}
	return []wireCase{
		{"5.1", atOnce(frame(opPing, "frag"), frame(fin, "ment")), ended},
		{"5.2", atOnce(frame(opPong, "frag"), frame(fin, "ment")), ended},
		{"5.3", atOnce(one, two), echo},
		{"5.4", byFrames(one, two), echo},
		{"5.5", byOctets(one, two), echo},
		{"5.6", atOnce(one, ping, two), around},
		{"5.7", byFrames(one, ping, two), around},
		{"5.8", byOctets(one, ping, two), around},
		{"5.9", atOnce(frame(fin, "nothing to continue"), whole), ended},
		{"5.10", byFrames(frame(fin, "nothing to continue"), whole), ended},
		{"5.11", byOctets(frame(fin, "nothing to continue"), whole), ended},
		{"5.12", atOnce(frame(0, "nothing to continue"), whole), ended},
		{"5.13", byFrames(frame(0, "nothing to continue"), whole), ended},
		{"5.14", byOctets(frame(0, "nothing to continue"), whole), ended},
		{"5.15", atOnce(one, two, frame(0, "nothing to continue"), whole), []string{"?echo:fragments", "close:1002"}},
		{"5.16", atOnce(frame(0, "nothing to continue"), one, two), ended},
		{"5.17", atOnce(frame(fin, "nothing to continue"), one, two), ended},
		{"5.18", atOnce(one, frame(fin|opText, `ments"}`)), ended},
		{"5.19", atOnce(five...), interleaved},
		{"5.20", byFrames(five...), interleaved},
		{"W5.1 a binary inside a text", atOnce(one, frame(fin|opBinary, "x")), ended},
		{"W5.2 a close between fragments", atOnce(one, closeBytes(1000, "")), []string{"close:1000"}},
		{"W5.3 fragments by octets of payload", byFrames(fragments(text("fragments"), 1)...), echo},
		{"W5.4 empty fragments", atOnce(frame(opText, ""), frame(0, text("fragments")), frame(0, ""), frame(fin, "")), echo},
		{"W5.5 two texts in fragments", atOnce(one, two, one, two), []string{"echo:fragments", "echo:fragments"}},
	}
}

// Sequences of Markus Kuhn's UTF-8 stress test, as the suite has them.
var validUTF8 = map[string]string{
	"6.5.1": "cebae1bdb9cf83cebcceb5", "6.6.2": "ceba", "6.6.5": "cebae1bdb9", "6.6.7": "cebae1bdb9cf83", "6.6.9": "cebae1bdb9cf83cebc",
	"6.7.2": "c280", "6.7.3": "e0a080", "6.7.4": "f0908080", "6.9.1": "7f", "6.9.2": "dfbf", "6.9.3": "efbfbf", "6.9.4": "f48fbfbf",
	"6.11.1": "ed9fbf", "6.11.2": "ee8080", "6.11.3": "efbfbd", "6.11.4": "f48fbfbf",
	"6.22.1": "efbfbe", "6.22.2": "efbfbf", "6.22.3": "f09fbfbe", "6.22.4": "f09fbfbf", "6.22.5": "f0afbfbe", "6.22.6": "f0afbfbf",
	"6.22.33": "f48fbfbe", "6.22.34": "f48fbfbf", "6.23.1": "efbfb9", "6.23.2": "efbfba", "6.23.3": "efbfbb", "6.23.4": "efbfbc",
	"6.23.5": "efbfbd", "6.23.6": "efbfbe", "6.23.7": "efbfbf",
}

var invalidUTF8 = map[string]string{
	"6.3.1": "cebae1bdb9cf83cebcceb5eda080656469746564", "6.4.1": "cebae1bdb9cf83cebcceb5f4908080656469746564",
	"6.6.1": "ce", "6.6.3": "cebae1", "6.6.4": "cebae1bd", "6.6.6": "cebae1bdb9cf", "6.6.8": "cebae1bdb9cf83ce", "6.6.10": "cebae1bdb9cf83cebcce",
	"6.8.1": "f888808080", "6.8.2": "fc8480808080", "6.10.1": "f7bfbfbf", "6.10.2": "fbbfbfbfbf", "6.10.3": "fdbfbfbfbfbf", "6.11.5": "f4908080",
	"6.12.1": "80", "6.12.2": "bf", "6.12.3": "80bf", "6.12.4": "80bf80", "6.12.5": "80bf80bf", "6.12.6": "80bf80bf80", "6.12.7": "80bf80bf80bf",
	"6.13.1": "c020c120c220df20", "6.13.2": "e020e120ef20", "6.13.3": "f020f120f720", "6.13.4": "f820fb20", "6.13.5": "fc20fd20",
	"6.14.1": "c0", "6.14.2": "e080", "6.14.3": "f08080", "6.14.4": "f8808080", "6.14.5": "fc80808080",
	"6.14.6": "df", "6.14.7": "efbf", "6.14.8": "f7bfbf", "6.14.9": "fbbfbfbf", "6.14.10": "fdbfbfbfbf",
	"6.15.1": "c0e080f08080f8808080fc80808080dfefbff7bfbffbbfbfbffdbfbfbfbf",
	"6.16.1": "fe", "6.16.2": "ff", "6.16.3": "fefeffff",
	"6.17.1": "c0af", "6.17.2": "e080af", "6.17.3": "f08080af", "6.17.4": "f8808080af", "6.17.5": "fc80808080af",
	"6.18.1": "c1bf", "6.18.2": "e09fbf", "6.18.3": "f08fbfbf", "6.18.4": "f887bfbfbf", "6.18.5": "fc83bfbfbfbf",
	"6.19.1": "c080", "6.19.2": "e08080", "6.19.3": "f0808080", "6.19.4": "f880808080", "6.19.5": "fc8080808080",
	"6.20.1": "eda080", "6.20.2": "edadbf", "6.20.3": "edae80", "6.20.4": "edafbf", "6.20.5": "edb080", "6.20.6": "edbe80", "6.20.7": "edbfbf",
	"6.21.1": "eda080edb080", "6.21.2": "eda080edbfbf", "6.21.3": "edadbfedb080", "6.21.4": "edadbfedbfbf",
	"6.21.5": "edae80edb080", "6.21.6": "edae80edbfbf", "6.21.7": "edafbfedb080", "6.21.8": "edafbfedbfbf",
}

func utf8Cases() (cases []wireCase) {
	decode := func(s string) string {
		b, err := hex.DecodeString(s)
		if err != nil {
			panic(err)
		}
		return string(b)
	}
	long := "Hello-µ@ßöäüàá-UTF-8!!"
	refused := []string{"error:bad_json", "close:4003"}
	cases = append(cases,
		wireCase{"6.1.2", atOnce(frame(opText, ""), frame(0, ""), frame(fin, "")), refused},
		wireCase{"6.1.3", atOnce(frame(opText, ""), frame(0, text("middle")), frame(fin, "")), []string{"echo:middle"}},
		wireCase{"6.2.1", atOnce(frame(fin|opText, text(long))), []string{"echo:" + long}},
		wireCase{"6.2.2", atOnce(fragments(text(long), 18)...), []string{"echo:" + long}}, // between two code points
		wireCase{"6.2.3", byFrames(fragments(text(long), 1)...), []string{"echo:" + long}},
		wireCase{"6.2.4", byFrames(fragments(text("κόσμε"), 1)...), []string{"echo:κόσμε"}},
		wireCase{"6.7.1", atOnce(frame(fin|opText, text("\x00"))), refused}, // UTF-8, but no JSON
	)
	for name, sequence := range validUTF8 {
		s := decode(sequence)
		cases = append(cases,
			wireCase{name, atOnce(frame(fin|opText, text(s))), []string{"echo:"}},
			wireCase{name + " in fragments", atOnce(fragments(text(s), 10)...), []string{"echo:"}},
		)
	}
	for name, sequence := range invalidUTF8 {
		s := decode(sequence)
		cases = append(cases,
			wireCase{name, atOnce(frame(fin|opText, text(s))), []string{"close:1007"}},
			wireCase{name + " in fragments", byFrames(fragments(text(s), 10)...), []string{"close:1007"}},
		)
	}
	return cases
}

func closeCases() []wireCase {
	whole, ping, normal := frame(fin|opText, text("t")), frame(fin|opPing, "late"), closeBytes(1000, "")
	full := strings.Repeat("*", 123)
	cases := []wireCase{
		{"7.1.1", byFrames(whole, normal), []string{"?echo:t", "close:1000"}},
		{"7.1.2", atOnce(normal, normal), []string{"close:1000"}},
		{"7.1.3", atOnce(normal, ping), []string{"close:1000"}},
		{"7.1.4", atOnce(normal, whole), []string{"close:1000"}},
		{"7.1.5", atOnce(frame(opText, `{"type":"frag`), normal, frame(fin, `ments"}`)), []string{"close:1000"}},
		{"7.1.6", atOnce(frame(fin|opText, textOf("t", maxFrameTested)), normal, ping), []string{"?echo:t", "close:1000"}},
		{"7.3.1", atOnce(frame(fin|opClose, "")), []string{"close:1000|none"}},
		{"7.3.2", atOnce(frame(fin|opClose, "a")), []string{"close:1002"}},
		{"7.3.3", atOnce(normal), []string{"close:1000"}},
		{"7.3.4", atOnce(closeBytes(1000, "Hello World!")), []string{"close:1000"}},
		{"7.3.5", atOnce(closeBytes(1000, full)), []string{"close:1000"}},
		{"7.3.6", atOnce(closeBytes(1000, full+"*")), []string{"close:1002"}},
		{"7.5.1", atOnce(closeBytes(1000, "\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited")), []string{"close:1007|1002"}},
		{"W7.1 a close by octets", byOctets(closeBytes(4321, "good bye")), []string{"close:4321"}},
		{"W7.2 a fragmented close", atOnce(frame(opClose, "\x03"), frame(fin, "\xe8")), []string{"close:1002"}},
		{"W7.3 much data after a close", atOnce(normal, []byte(strings.Repeat("garbage", 10_000))), []string{"close:1000"}},
	}
	for i, code := range []int{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999} {
		cases = append(cases, wireCase{fmt.Sprint("7.7.", i+1), atOnce(closeBytes(code, "")), []string{fmt.Sprint("close:", code)}})
	}
	for i, code := range []int{0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999} {
		cases = append(cases, wireCase{fmt.Sprint("7.9.", i+1), atOnce(closeBytes(code, "")), []string{"close:1002"}})
	}
	for i, code := range []int{5000, 65535} {
		cases = append(cases, wireCase{fmt.Sprint("7.13.", i+1), atOnce(closeBytes(code, "")), []string{"close:1002"}})
	}
	return cases
}

// limitCases are the suite's sizes (64 KiB to 16 MiB) scaled to what a frame may have here.
func limitCases() (cases []wireCase) {
	echo, refused := []string{"echo:t"}, []string{"error:too_big", "close:4003"}
	for i, size := range []int{maxFrameTested / 64, maxFrameTested / 16, maxFrameTested / 4, maxFrameTested} {
		cases = append(cases, wireCase{fmt.Sprint("9.1.", i+1), atOnce(frame(fin|opText, textOf("t", size))), echo})
	}
	for i, size := range []int{64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10} {
		cases = append(cases, wireCase{fmt.Sprint("9.3.", i+1), atOnce(fragments(textOf("t", maxFrameTested), size)...), echo})
	}
	for i, size := range []int{128, 256, 512, 1024, 2048} {
		cases = append(cases, wireCase{fmt.Sprint("9.5.", i+1), chopped(size, frame(fin|opText, textOf("t", maxFrameTested))), echo})
	}
	for i, size := range []int{0, 16, 64, 256, 1024, 4096, 16 << 10} {
		c := wireCase{name: fmt.Sprint("9.7.", i+1)}
		for range 20 {
			c.send = append(c.send, frame(fin|opText, textOf("t", max(size, 30))))
			c.want = append(c.want, "echo:t")
		}
		cases = append(cases, c)
	}
	return append(cases,
		wireCase{"10.1.1", atOnce(fragments(textOf("t", 65536), 1300)...), echo},
		wireCase{"W9.1 a byte too many", atOnce(frame(fin|opText, textOf("t", maxFrameTested+1))), refused},
		wireCase{"W9.2 a byte too many in fragments", atOnce(fragments(textOf("t", maxFrameTested+1), 1000)...), refused},
		wireCase{"W9.3 much too many", atOnce(frame(fin|opText, textOf("t", 10*maxFrameTested))), refused},
	)
}

func ourCases() []wireCase {
	whole := text("t")
	noMask := func(first byte, payload string) []byte {
		return append([]byte{first, byte(len(payload))}, payload...)
	}
	zero := [4]byte{}
	long := func(head ...byte) []byte { return masked(append(head, zero[:]...), zero, whole) }
	n := byte(len(whole))
	return []wireCase{
		{"W1 a text without a mask", atOnce(noMask(fin|opText, whole)), []string{"close:1002"}},
		{"W2 a ping without a mask", atOnce(noMask(fin|opPing, "x")), []string{"close:1002"}},
		{"W3 a close without a mask", atOnce(noMask(fin|opClose, "\x03\xe8")), []string{"close:1002"}},
		{"W4 a mask of zeros", atOnce(long(fin|opText, 0x80|n)), []string{"echo:t"}},
		{"W5 a ping of a 16-bit length", atOnce(masked([]byte{fin | opPing, 0x80 | 126, 0, 1, 0, 0, 0, 0}, zero, "x")), []string{"close:1002"}},
		{"W6 a length of 64 bits with the highest set", atOnce([]byte{fin | opText, 0x80 | 127, 0x80, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0}), []string{"close:1002"}},
		{"W7 16 bits for a short length", atOnce(long(fin|opText, 0x80|126, 0, n)), []string{"close:1002"}},
		{"W8 64 bits for a short length", atOnce(long(fin|opText, 0x80|127, 0, 0, 0, 0, 0, 0, 0, n)), []string{"close:1002"}},
		{"W8 64 bits for a length of 16", atOnce(masked([]byte{fin | opText, 0x80 | 127, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0}, zero, textOf("t", 256))), []string{"close:1002"}},
		{"W9 slow octets", byOctets(frame(fin|opText, textOf("t", 300)), frame(fin|opPing, "x")), []string{"echo:t", "pong:x"}},
		{"W10 a frame with half of the next", [][]byte{
			append(frame(fin|opText, whole), frame(fin|opText, whole)[:7]...), frame(fin|opText, whole)[7:],
		}, []string{"echo:t", "echo:t"}},
	}
}

func TestConformance(t *testing.T) { eachLink(t, testConformance) }

func testConformance(t *testing.T, link change) {
	n := setup(t, link, func(c *Config, _ *fakeBroker) { c.MaxFrame = maxFrameTested; c.MaxPerUser = 1000 })
	for _, c := range wireCases() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			conn := n.raw(t, "mona")
			sent := make(chan struct{})
			go func() {
				defer close(sent)
				for _, b := range c.send {
					conn.send(b)
				}
			}()
			defer func() { conn.Close(); <-sent }()
			if err := conn.expect(c.want); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// expect holds what comes against what a case wants; see wireCase.
func (c *rawConn) expect(want []string) error {
	var got rawFrame
	var err error
	have := false
	read := func() {
		for !have {
			got, err = c.frame()
			have = err != nil || got.op != opPing
		}
	}
	for _, w := range want {
		w, optional := strings.CutPrefix(w, "?")
		kind, value, _ := strings.Cut(w, ":")
		read()
		if kind == "end" {
			if err == nil && got.op == opClose {
				_, err = c.frame()
			}
			return atEnd(err)
		}
		switch is := err == nil && got.is(kind, value); {
		case is && kind == "close":
			_, err := c.frame()
			return atEnd(err)
		case is:
			have = false
		case !optional:
			return fmt.Errorf("got %s, want %.60q", got.words(err), w)
		}
	}
	if have {
		return fmt.Errorf("got %s, want nothing more", got.words(err))
	}
	// It lives on, and ends as it should.
	c.send(slices.Concat(frame(fin|opPing, "alive"), closeBytes(1000, "")))
	return c.expect([]string{"?pong:alive", "close:1000"})
}

func (f rawFrame) is(kind, value string) bool {
	switch kind {
	case "pong":
		return f.op == opPong && string(f.payload) == value
	case "close":
		code := "none"
		if len(f.payload) >= 2 {
			code = fmt.Sprint(binary.BigEndian.Uint16(f.payload))
		}
		return f.op == opClose && slices.Contains(strings.Split(value, "|"), code)
	case "echo":
		code, text := f.err()
		return code == codeUnknownType && strings.Contains(text, value)
	default:
		code, _ := f.err()
		return code == value
	}
}

func (f rawFrame) err() (code, text string) {
	var e struct{ Type, Code, Message string }
	if f.op != opText || json.Unmarshal(f.payload, &e) != nil || e.Type != "error" {
		return "", ""
	}
	return e.Code, e.Message
}

func (f rawFrame) words(err error) string {
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("a frame of opcode %d: %.100q", f.op, f.payload)
}

// atEnd: after its close frame the server sends nothing more and hangs up.
func atEnd(err error) error {
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case err == nil:
		return errors.New("something came after the close frame")
	default:
		return fmt.Errorf("after the close frame: %w", err)
	}
}

// A client that goes away in the middle of a frame, or says nothing more, frees its place.
func TestHalfFrames(t *testing.T) { eachLink(t, testHalfFrames) }

func testHalfFrames(t *testing.T, link change) {
	n := setup(t, link)
	whole := frame(fin|opText, textOf("t", 300))
	for cut := range 20 {
		c := n.raw(t, "mona")
		c.send(whole[:cut*len(whole)/20])
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		_ = c.toEnd()
	}
	eventually(t, "all to be freed", func() bool { return n.connections.Load() == 0 })
}

// FuzzWire sends anything at all over a real socket: the gateway ends the session or goes on, says only
// what the protocol allows, and frees the place. It knows nothing of how frames are read.
func FuzzWire(f *testing.F) {
	for _, c := range wireCases() {
		if b := slices.Concat(c.send...); len(b) < 1024 {
			f.Add(b)
		}
	}
	n := setup(f, func(c *Config, _ *fakeBroker) { c.MaxPerUser = 1000 })
	f.Fuzz(func(t *testing.T, b []byte) {
		c := n.raw(t, "mona")
		c.send(b)
		_ = c.CloseWrite() // fails if the server has hung up already
		closed := false
		for {
			frame, err := c.frame()
			if err != nil {
				if !errors.Is(err, io.EOF) && !strings.Contains(err.Error(), "reset by peer") {
					t.Fatal(err)
				}
				break
			}
			if closed {
				t.Fatalf("after the close frame: %+v", frame)
			}
			closed = frame.op == opClose
		}
		c.Close()
	})
}
