package gateway

import (
	"encoding/binary"
	"unicode/utf8"
)

const (
	opContinuation = 0x0
	opBinary       = 0x2

	reservedBits = 0x70
	opMask       = 0x0F
	maskBit      = 0x80
	lengthMask   = 0x7F

	maxControlBytes = 125
)

// frameReader takes apart what a client sends, by RFC 6455. It gets bytes as they come and keeps none of
// them, except for the beginning of a frame that is not complete and the fragments of a text that goes
// on; both grow with what came, never with what a header announces. Whoever reads the socket owns it.
type frameReader struct {
	limit   int32 // of one text's payload
	ongoing bool  // a fragmented text has begun
	held    []byte
	text    []byte
}

// An inFrame is a whole text, or a control frame; its payload is valid until the next call. A
// continuation is a fragment, which is kept.
type inFrame struct {
	op      byte
	payload []byte
}

func (r *frameReader) tooBig() *protocolError {
	return badFrame(codeTooBig, "a frame has at most %d bytes", r.limit)
}

// begin puts what was held in front of what came.
func (r *frameReader) begin(b []byte) []byte {
	if len(r.held) == 0 {
		return b
	}
	r.held = append(r.held, b...)
	return r.held
}

// end keeps what is left, and lets go of all else.
func (r *frameReader) end(rest []byte) {
	switch {
	case len(rest) == 0:
		r.held = nil
	case len(r.held) > 0 && len(rest) == len(r.held): // still the same frame
	default:
		r.held = append([]byte(nil), rest...)
	}
}

// next reads the frame at the start of b, which it unmasks in place; n is its length with header, 0 while
// it is not complete. A frame that can't be taken is told as soon as its header says so.
func (r *frameReader) next(b []byte) (f inFrame, n int, bad *protocolError) {
	if len(b) < 2 {
		return f, 0, nil
	}
	op, fin := b[0]&opMask, b[0]&finBit != 0
	if bad := r.checkHeader(b, op, fin); bad != nil {
		return f, 0, bad
	}
	head, size, bad := r.length(b, op)
	if bad != nil || head == 0 || len(b) < head+size {
		return f, 0, bad
	}
	payload := b[head : head+size]
	unmask(payload, [4]byte(b[head-4:head]))
	f, bad = r.complete(op, fin, payload)
	return f, head + size, bad
}

func (r *frameReader) checkHeader(b []byte, op byte, fin bool) *protocolError {
	switch {
	case b[0]&reservedBits != 0:
		return breach("reserved bits are set and no extension was agreed on")
	case b[1]&maskBit == 0:
		return breach("a client's frames must be masked")
	case op >= opClose && (!fin || b[1]&lengthMask > maxControlBytes):
		return breach("a control frame is whole and has at most %d bytes", maxControlBytes)
	}
	switch op {
	case opContinuation:
		if !r.ongoing {
			return breach("a continuation of nothing")
		}
	case opText, opBinary:
		if r.ongoing {
			return breach("a new frame inside a fragmented one")
		}
		if op == opBinary {
			return badFrame(codeBinary, "frames are JSON text, this one is binary")
		}
	case opClose, opPing, opPong:
	default:
		return breach("unknown opcode %d", op)
	}
	return nil
}

// length reads the payload's size; head, the header's with the mask, is 0 while that is not complete.
func (r *frameReader) length(b []byte, op byte) (head, size int, bad *protocolError) {
	announced := uint64(b[1] & lengthMask)
	head = 2
	switch announced {
	case 126:
		if head = 4; len(b) < head {
			return 0, 0, nil
		}
		if announced = uint64(binary.BigEndian.Uint16(b[2:])); announced < 126 {
			return 0, 0, breach("a length in more bytes than it needs")
		}
	case 127:
		if head = 10; len(b) < head {
			return 0, 0, nil
		}
		if announced = binary.BigEndian.Uint64(b[2:]); announced>>63 != 0 {
			return 0, 0, breach("a length over 63 bits")
		}
		if announced < 1<<16 {
			return 0, 0, breach("a length in more bytes than it needs")
		}
	}
	if op < opClose && announced > uint64(int(r.limit)-len(r.text)) {
		return 0, 0, r.tooBig()
	}
	if head += 4; len(b) < head {
		return 0, 0, nil
	}
	return head, int(announced), nil
}

func (r *frameReader) complete(op byte, fin bool, payload []byte) (inFrame, *protocolError) {
	switch {
	case op == opClose:
		return inFrame{op, payload}, checkClose(payload)
	case op > opClose:
		return inFrame{op, payload}, nil
	case fin && !r.ongoing:
		return inFrame{opText, payload}, nil
	}
	r.text = append(r.text, payload...)
	if r.ongoing = !fin; r.ongoing {
		return inFrame{opContinuation, payload}, nil
	}
	whole := r.text
	r.text = nil
	return inFrame{opText, whole}, nil
}

// checkClose: no payload, or a code that may be on the wire and a reason in UTF-8.
func checkClose(payload []byte) *protocolError {
	switch {
	case len(payload) == 0:
		return nil
	case len(payload) == 1:
		return breach("a close code has two bytes")
	case !utf8.Valid(payload[2:]):
		return notUTF8("the reason of a close frame")
	}
	code := closeCodeOf(payload)
	switch {
	case code >= 3000 && code < 5000, code >= 1000 && code <= 1003, code >= 1007 && code <= 1014:
		return nil
	default:
		return breach("the close code %d may not be sent", code)
	}
}

// closeCodeOf is what a close frame says; 1005: nothing.
func closeCodeOf(payload []byte) int {
	if len(payload) < 2 {
		return closeNoStatus
	}
	return int(binary.BigEndian.Uint16(payload))
}

// unmask works on eight bytes at a time.
func unmask(b []byte, key [4]byte) {
	k := uint64(binary.LittleEndian.Uint32(key[:]))
	k |= k << 32
	for len(b) >= 8 {
		binary.LittleEndian.PutUint64(b, binary.LittleEndian.Uint64(b)^k)
		b = b[8:]
	}
	for i := range b {
		b[i] ^= key[i%4]
	}
}
