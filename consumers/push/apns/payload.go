package apns

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"unicode"
	"unicode/utf8"

	"github.com/rivo/uniseg"

	"github.com/klivvr/whisper/domain/whisperv1"
)

// MaxPayloadBytes is APNs's limit for everything but VoIP, on the bytes that go over the wire.
const MaxPayloadBytes = 4096

// minBodyBytes is what must be left of a body for it to be worth showing; under it, what fills the
// payload is not the text, and cutting would hide that.
const minBodyBytes = 32

const ellipsis = "…"

var (
	errPayloadTooLarge = errors.New("too large for a push even with its text cut")
	errDataNotJSON     = errors.New("data is not a JSON object")
)

type payload struct {
	APS   aps             `json:"aps"`
	ID    string          `json:"id"`
	URL   string          `json:"url,omitempty"`
	Image string          `json:"image,omitempty"`
	Data  json.RawMessage `json:"data,omitempty"`
}

type aps struct {
	Alert alert  `json:"alert"`
	Sound string `json:"sound,omitempty"`
	// Notifications of one category are grouped on the device.
	ThreadID string `json:"thread-id,omitempty"`
	// Lets the app's extension fetch an image before the notification shows.
	MutableContent int `json:"mutable-content,omitempty"`
}

type alert struct {
	Title string `json:"title,omitempty"`
	Body  string `json:"body,omitempty"`
}

// retraction wakes the app without showing anything: it is what Apple calls a background notification, whose `aps` may
// have nothing else.
type retraction struct {
	APS       background `json:"aps"`
	ID        string     `json:"id"`
	Retracted bool       `json:"retracted"`
}

type background struct {
	ContentAvailable int `json:"content-available"`
}

// encodeRetraction always fits: an id has 128 bytes at most.
func encodeRetraction(p *whisperv1.Push) ([]byte, error) {
	b, err := json.Marshal(retraction{APS: background{ContentAvailable: 1}, ID: p.GetNotificationId(), Retracted: true})
	if err != nil {
		return nil, fmt.Errorf("encode the payload: %w", err)
	}
	return b, nil
}

// encodePayload is what the device gets. Its bytes are final: apns2 encodes a []byte payload again
// with encoding/json, which changes nothing that encoding/json made (`<`, `>`, `&` are six bytes each
// in both), so the limit is measured on what is sent.
//
// A body that does not fit is cut at the end of a character as a person sees one, with an ellipsis.
// If it does not fit without its body either, the title, url or data are too large, and none of them
// can be cut without changing what the app does: that is an error.
func encodePayload(p *whisperv1.Push, sound string) ([]byte, error) {
	c := p.GetContent()
	msg := payload{
		APS: aps{
			Alert:    alert{Title: c.GetTitle(), Body: c.GetBody()},
			Sound:    sound,
			ThreadID: p.GetCategory(),
		},
		ID:    p.GetNotificationId(),
		URL:   c.GetUrl(),
		Image: c.GetImage(),
	}
	if msg.Image != "" {
		msg.APS.MutableContent = 1
	}
	if p.GetLane() == whisperv1.Lane_LANE_LOW {
		msg.APS.Sound = "" // nobody waits for it
	}
	if data := c.GetData(); len(data) > 0 {
		if trimmed := bytes.TrimLeft(data, " \t\r\n"); !json.Valid(data) || trimmed[0] != '{' {
			return nil, errDataNotJSON
		}
		msg.Data = data
	}
	b, err := json.Marshal(msg)
	if err != nil {
		return nil, fmt.Errorf("encode the payload: %w", err)
	}
	if len(b) <= MaxPayloadBytes {
		return b, nil
	}
	return encodeCut(msg, len(b)-MaxPayloadBytes)
}

// encodeCut encodes msg with its body cut so that at least over bytes are saved.
func encodeCut(msg payload, over int) ([]byte, error) {
	body := msg.APS.Alert.Body
	room := escapedLen(body) - over
	if room < minBodyBytes {
		return nil, errPayloadTooLarge
	}
	msg.APS.Alert.Body = cutEscaped(body, room-len(ellipsis)) + ellipsis
	b, err := json.Marshal(msg)
	if err != nil {
		return nil, fmt.Errorf("encode the payload: %w", err)
	}
	if len(b) > MaxPayloadBytes {
		return nil, errPayloadTooLarge
	}
	return b, nil
}

// cutEscaped is the longest prefix of s that ends between characters, less the space at its end, whose
// JSON form is at most room bytes.
func cutEscaped(s string, room int) string {
	used, end := 0, 0
	for i := 0; i < len(s); {
		next := i + characterLen(s[i:])
		used += escapedLen(s[i:next])
		if used > room {
			if end == 0 { // one character with thousands of marks: a part of it is better than nothing
				return cutRunes(s[:next], room)
			}
			break
		}
		i, end = next, next
	}
	for end > 0 {
		r, n := utf8.DecodeLastRuneInString(s[:end])
		if !unicode.IsSpace(r) {
			break
		}
		end -= n
	}
	return s[:end]
}

func cutRunes(s string, room int) string {
	used := 0
	for i, r := range s {
		if used += escapedLen(string(r)); used > room {
			return s[:i]
		}
	}
	return s
}

// characterLen is the length in bytes of the first character of s as a person sees it: an extended grapheme cluster of
// Unicode, such as an emoji with what is joined to it, or a Thai letter with its vowel.
func characterLen(s string) int {
	cluster, _, _, _ := uniseg.FirstGraphemeClusterInString(s, -1)
	return len(cluster)
}

// escapedLen is how many bytes encoding/json spends on s, without the quotes.
func escapedLen(s string) int {
	n := 0
	for i := 0; i < len(s); {
		if b := s[i]; b < utf8.RuneSelf {
			switch {
			case b == '"', b == '\\', b == '\n', b == '\r', b == '\t', b == '\b', b == '\f':
				n += 2
			case b < 0x20, b == '<', b == '>', b == '&':
				n += 6
			default:
				n++
			}
			i++
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && size == 1 || r == '\u2028' || r == '\u2029' {
			n += 6
		} else {
			n += size
		}
		i += size
	}
	return n
}
