package gateway

import (
	"errors"
	"fmt"
)

// Close codes of the public contract; those below 4000 are the WebSocket protocol's own.
const (
	closeNormal       = 1000
	closeLeaving      = 1001
	closeProtocol     = 1002
	closeNoStatus     = 1005 // never on the wire: a close frame without a code
	closeGone         = 1006 // never on the wire: the connection ended without a close frame
	closeNotUTF8      = 1007
	closeRestarting   = 1012
	closeUnauthorized = 4001
	closeExpired      = 4002
	closeBadFrame     = 4003
	closeTooSlow      = 4004
	closeTooMany      = 4005
)

// A closeOrigin says who has a session closed with a code.
type closeOrigin uint8

const (
	byPeer     closeOrigin = iota // the client says goodbye, or is gone; the node never chooses the code
	byProtocol                    // the client sent what breaks the protocol: a protocolError, after which nothing more of it is read
	byToken                       // the client's token does not count, or not any more: a protocolError
	byNode                        // the node's own reasons
)

// closeCodes are all codes that closes are counted by (whisper_gateway_closes_total); any other is a client's own
// choice. The table in docs/contract.md has exactly those that the node chooses, which a test checks.
var closeCodes = map[int]closeOrigin{
	closeNormal:       byPeer,
	closeLeaving:      byPeer,
	closeNoStatus:     byPeer,
	closeGone:         byPeer,
	closeProtocol:     byProtocol,
	closeNotUTF8:      byProtocol,
	closeBadFrame:     byProtocol,
	closeUnauthorized: byToken,
	closeExpired:      byToken,
	closeTooSlow:      byNode,
	closeTooMany:      byNode,
	closeRestarting:   byNode,
}

// Codes of error frames, all of which docs/contract.md names.
const (
	codeBadJSON     = "bad_json"
	codeBinary      = "binary"
	codeTooBig      = "too_big"
	codeTooFast     = "too_fast"
	codeBadFrame    = "bad_frame"
	codeUnknownType = "unknown_type"
	codeBadIDs      = "bad_ids"
	codeBadReceipts = "bad_receipts"
	codeUnknownID   = "unknown_id"
	codeBadToken    = "bad_token"
)

// errorCodes are the codes of error frames; true: the session is closed after it (4003).
var errorCodes = map[string]bool{
	codeBadFrame: false, codeUnknownType: false, codeBadIDs: false, codeBadReceipts: false, codeUnknownID: false, codeBadToken: false,
	codeBinary: true, codeTooBig: true, codeBadJSON: true, codeTooFast: true,
}

// A protocolError is what a client did wrong on its socket, and all that follows from it. Every session that is closed
// because of what its client sent is closed with one, by fail. There are three kinds:
//
//   - a frame that can't be used (badFrame): an error frame names its code. Where errorCodes says so, the session is
//     closed after it with 4003; otherwise it stays open.
//   - a breach of WebSocket itself (breach, notUTF8): closed with the protocol's own code, without an error frame.
//   - a token that does not count (refused): closed with 4001 or 4002, without an error frame.
//
// Frames and breaches count as whisper_gateway_frames_in_total{type="bad"}; a token counts where it is refused. Each
// close counts under its code in whisper_gateway_closes_total.
type protocolError struct {
	frame string // the code of the error frame; empty: there is none
	close int    // the code that the session is closed with; 0: it stays open
	text  string // for whoever writes the client: in the error frame and in the close frame
}

// badFrame is a whole frame that can't be used.
func badFrame(code, format string, args ...any) *protocolError {
	e := &protocolError{frame: code, text: fmt.Sprintf(format, args...)}
	if errorCodes[code] {
		e.close = closeBadFrame
	}
	return e
}

// breach is bytes that are no WebSocket.
func breach(format string, args ...any) *protocolError {
	return &protocolError{close: closeProtocol, text: fmt.Sprintf(format, args...)}
}

// notUTF8 is a text in another encoding.
func notUTF8(what string) *protocolError {
	return &protocolError{close: closeNotUTF8, text: what + " is not UTF-8"}
}

// refused is a token that does not count: at the door, or later.
func refused(err error) *protocolError {
	e := &protocolError{close: closeUnauthorized, text: err.Error()}
	if errors.Is(err, errTokenExpired) {
		e.close = closeExpired
	}
	return e
}

// wire is the error frame.
func (e *protocolError) wire() wireFrame {
	return jsonFrame(struct {
		Type    string `json:"type"`
		Code    string `json:"code"`
		Message string `json:"message"`
	}{"error", e.frame, e.text})
}

// reason is what the close frame says.
func (e *protocolError) reason() string {
	if e.frame != "" {
		return "bad frame: " + e.text
	}
	return e.text
}

// fail tells the client what it did wrong; nil: nothing. false: the session is closed for it, and nothing more is to
// be read.
func (s *session) fail(e *protocolError) (open bool) {
	if e == nil {
		return true
	}
	if closeCodes[e.close] != byToken {
		s.g.metrics.badFrames.Inc()
	}
	if e.frame != "" {
		s.control(e.wire())
	}
	if e.close != 0 {
		s.close(e.close, e.reason(), false)
	}
	return e.close == 0
}
