package requests

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/consumers"
)

// W3C trace context. Of upstream's headers only well-formed ones are carried on: they are copied to
// every recipient's records.
const maxTracestate = 512 // what the standard asks everybody to carry

// Trace is the context that a record's followers carry: its own, or a new one made from the record's
// place, so that a replay has the same.
func Trace(rec *kgo.Record) []kgo.RecordHeader {
	parent, _ := consumers.Header(rec, consumers.HeaderTraceparent)
	state, _ := consumers.Header(rec, consumers.HeaderTracestate)
	if !isTraceparent(parent) {
		return []kgo.RecordHeader{{Key: consumers.HeaderTraceparent, Value: newTraceparent(rec)}}
	}
	headers := []kgo.RecordHeader{{Key: consumers.HeaderTraceparent, Value: parent}}
	if n := len(state); n > 0 && n <= maxTracestate && printable(state) {
		headers = append(headers, kgo.RecordHeader{Key: consumers.HeaderTracestate, Value: state})
	}
	return headers
}

// newTraceparent hashes the place: 16 bytes of trace id, 8 of span id, sampled.
func newTraceparent(rec *kgo.Record) []byte {
	place := make([]byte, 0, len(rec.Topic)+32)
	place = append(place, rec.Topic...)
	place = strconv.AppendInt(append(place, '/'), int64(rec.Partition), 10)
	place = strconv.AppendInt(append(place, '/'), rec.Offset, 10)
	sum := sha256.Sum256(place)
	parent := make([]byte, 0, 55)
	parent = append(parent, "00-"...)
	parent = append(hex.AppendEncode(parent, sum[:16]), '-')
	return append(hex.AppendEncode(parent, sum[16:24]), "-01"...)
}

// isTraceparent: 00-32 hex-16 hex-2 hex in lower case, neither id all zeros. Later versions may be longer.
func isTraceparent(v []byte) bool {
	if len(v) < 55 || len(v) > 128 || (len(v) > 55 && (v[55] != '-' || string(v[:2]) == "00")) || string(v[:2]) == "ff" {
		return false
	}
	for i, c := range v[:55] {
		if i == 2 || i == 35 || i == 52 {
			if c != '-' {
				return false
			}
		} else if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return !zeros(v[3:35]) && !zeros(v[36:52])
}

// printable: all that the standard allows in a tracestate, but for tabs.
func printable(v []byte) bool {
	for _, c := range v {
		if c < 0x20 || c > 0x7e {
			return false
		}
	}
	return true
}

func zeros(v []byte) bool {
	for _, c := range v {
		if c != '0' {
			return false
		}
	}
	return true
}
