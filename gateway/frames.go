package gateway

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/klivvr/whisper/domain/record"
)

const (
	opText  = 0x1
	opClose = 0x8
	opPing  = 0x9
	opPong  = 0xA
	finBit  = 0x80
)

// A wireFrame is one WebSocket frame as it goes out, header and all. Server frames are not masked
// (RFC 6455 §5.1), so the same bytes serve every session; they are never changed once made.
type wireFrame []byte

func encodeFrame(op byte, payload []byte) wireFrame {
	n := len(payload)
	f := make([]byte, 0, n+10)
	switch {
	case n < 126:
		f = append(f, finBit|op, byte(n))
	case n < 1<<16:
		f = binary.BigEndian.AppendUint16(append(f, finBit|op, 126), uint16(n))
	default:
		f = binary.BigEndian.AppendUint64(append(f, finBit|op, 127), uint64(n))
	}
	return append(f, payload...)
}

// closeFrame cuts the reason to what a control frame can hold.
func closeFrame(code int, reason string) wireFrame {
	if len(reason) > maxReasonBytes {
		reason = reason[:maxReasonBytes]
	}
	return encodeFrame(opClose, append(binary.BigEndian.AppendUint16(nil, uint16(code)), reason...))
}

var pingFrame = encodeFrame(opPing, nil)

func jsonFrame(v any) wireFrame {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("gateway: a frame that can't be encoded: %v", err)) // only our own structs of strings and numbers
	}
	return encodeFrame(opText, b)
}

func welcomeFrame(session string, ping time.Duration) wireFrame {
	return jsonFrame(struct {
		Type        string  `json:"type"`
		Session     string  `json:"session"`
		PingSeconds float64 `json:"ping_seconds"`
	}{"welcome", session, ping.Seconds()})
}

func reconnectFrame(after time.Duration) wireFrame {
	return jsonFrame(struct {
		Type    string `json:"type"`
		AfterMS int64  `json:"after_ms"`
	}{"reconnect", after.Milliseconds()})
}

// clientFrame is any frame that a client sends: ack and read have ids and may have receipts, one each, "" where the
// client has none; refresh has a token.
type clientFrame struct {
	Type     string   `json:"type"`
	IDs      []string `json:"ids"`
	Receipts []string `json:"receipts"`
	Token    string   `json:"token"`
}

// receipt is the one that goes with the i-th id; "": there is none.
func (f *clientFrame) receipt(i int) string {
	if len(f.Receipts) == 0 {
		return ""
	}
	return f.Receipts[i]
}

// decodeFrame reads a client's text frame, which is UTF-8. Unknown fields are passed over, so that a newer client can
// talk to an older node.
func decodeFrame(b []byte) (clientFrame, *protocolError) {
	if f, ok := plainFrame(b); ok {
		return f, nil
	}
	return decodeStrictly(b)
}

func decodeStrictly(b []byte) (clientFrame, *protocolError) {
	var f clientFrame
	if err := json.Unmarshal(b, &f); err != nil {
		return f, jsonError(err)
	}
	if f.Type != "" {
		// A member that is there twice, or half of a character: another reader could take it for another id.
		if _, err := record.StrictMembers(b, "the frame", "type", "ids", "receipts", "token"); err != nil {
			return f, badFrame(codeBadFrame, "%s", err)
		}
	}
	switch {
	case f.Type == "refresh":
		return f, nil // an empty token is answered as any bad one
	case f.Type != "ack" && f.Type != "read":
		return f, badFrame(codeUnknownType, "unknown type %q: ack, read or refresh", cut(f.Type))
	case len(f.IDs) == 0:
		return f, badFrame(codeBadIDs, "%s: ids must name at least one notification", f.Type)
	case len(f.Receipts) > 0 && len(f.Receipts) != len(f.IDs):
		return f, badFrame(codeBadReceipts, "%s: %d receipts for %d ids: one each, \"\" where there is none", f.Type, len(f.Receipts), len(f.IDs))
	}
	return f, nil
}

func jsonError(err error) *protocolError {
	var wrong *json.UnmarshalTypeError
	if !errors.As(err, &wrong) {
		return badFrame(codeBadJSON, "the frame is not JSON: %s", err)
	}
	switch wrong.Field {
	case "type":
		return badFrame(codeUnknownType, "type must be a string: ack, read or refresh")
	case "token":
		return badFrame(codeBadToken, "token must be a string")
	case "receipts":
		return badFrame(codeBadReceipts, "receipts must be an array of strings")
	case "":
		return badFrame(codeBadFrame, "a frame is a JSON object, this is a JSON %s", wrong.Value)
	default:
		return badFrame(codeBadIDs, "ids must be an array of strings")
	}
}

// cut shortens what is quoted back to a client.
func cut(s string) string {
	const longest = 64
	if len(s) <= longest {
		return s
	}
	return s[:longest] + "…"
}
