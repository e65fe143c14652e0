package fcm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/rivo/uniseg"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// MaxPayloadBytes is FCM's limit on the keys and values of a message.
const MaxPayloadBytes = 4096

// MaxTTL is how long FCM keeps a message for a device that is off.
const MaxTTL = 28 * 24 * time.Hour

// minBodyBytes is what must be left of a body for it to be worth showing. Below it, what fills the message is not the
// text, and cutting would hide that.
const minBodyBytes = 32

const ellipsis = "…"

// The fields that can carry a device's address.
const (
	TargetToken = "token"
	TargetFID   = "fid"
)

var (
	errMalformedToken  = errors.New("the registration token is not one")
	errPayloadTooLarge = errors.New("too large for a push even with its text cut")
	errDataNotJSON     = errors.New("data is not a JSON object")
)

// A Format says how messages look. It is the same for all users of a project.
type Format struct {
	// Target is the field with the device's address: TargetToken, which takes installation ids as well, or TargetFID.
	Target string
	// DataCategories are categories, with those below them, whose notifications go as data messages: the app shows them
	// itself. All others are shown by Android.
	DataCategories []string
	// ChannelID is the Android notification channel of all messages; empty: the name of the category is.
	ChannelID string
	// Sound of notifications on the lanes high and normal where Android has no channels (before 8); empty: none.
	Sound string
}

// envelope is the body of messages:send.
type envelope struct {
	Message message `json:"message"`
}

type message struct {
	Token   string            `json:"token,omitempty"`
	FID     string            `json:"fid,omitempty"`
	Data    map[string]string `json:"data,omitempty"`
	Android android           `json:"android"`
}

type android struct {
	CollapseKey  string        `json:"collapseKey,omitempty"`
	Priority     string        `json:"priority"`
	TTL          string        `json:"ttl,omitempty"`
	Notification *notification `json:"notification,omitempty"`
}

type notification struct {
	Title string `json:"title,omitempty"`
	Body  string `json:"body,omitempty"`
	Image string `json:"image,omitempty"`
	Sound string `json:"sound,omitempty"`
	// A later notification with the same tag takes the place of an earlier one.
	Tag       string `json:"tag"`
	ChannelID string `json:"channelId,omitempty"`
	// Each is one thing to look at. Without it, launchers count a notification again that took another's place.
	Count int `json:"notificationCount"`
}

// Body is the request's body for an attempt at this time, or an error that says why FCM would certainly refuse it.
//
// What the notification has beside its text is in the data, under fixed keys. The notification's own data is JSON text
// under one of them: so it may have any keys, also those that FCM reserves, and looks to an app as it does elsewhere.
//
// A text that does not fit is cut at the end of a character as a person sees one, with an ellipsis. Nothing else can be
// cut without changing what the app does.
func (f Format) Body(p *whisperv1.Push, now time.Time) ([]byte, error) {
	if !isToken(p.GetToken()) {
		return nil, errMalformedToken
	}
	var m message
	var err error
	if p.GetRetract() {
		m = retraction(p)
	} else if m, err = f.message(p); err != nil {
		return nil, err
	}
	if f.Target == TargetFID {
		m.FID = p.GetToken()
	} else {
		m.Token = p.GetToken()
	}
	m.Android.TTL = ttl(p.GetExpiresAtMs(), now)
	var b bytes.Buffer
	b.Grow(1024)
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(envelope{m}); err != nil {
		return nil, fmt.Errorf("encode the message: %w", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

func (f Format) message(p *whisperv1.Push) (message, error) {
	c := p.GetContent()
	m := message{
		Data:    map[string]string{"id": p.GetNotificationId()},
		Android: android{CollapseKey: p.GetCollapseKey(), Priority: priority(p.GetLane())},
	}
	put := func(key, value string) {
		if value != "" {
			m.Data[key] = value
		}
	}
	put("category", p.GetCategory())
	put("url", c.GetUrl())
	if data := c.GetData(); len(data) > 0 {
		compact, err := object(data)
		if err != nil {
			return message{}, err
		}
		put("data", compact)
	}
	if f.asData(p.GetCategory()) {
		put("title", c.GetTitle())
		put("body", c.GetBody())
		put("image", c.GetImage())
		put("tag", tag(p))
		return m, m.fit(func(body string) { m.Data["body"] = body }, c.GetBody())
	}
	n := &notification{
		Title: c.GetTitle(), Body: c.GetBody(), Image: c.GetImage(), Tag: tag(p), ChannelID: f.ChannelID, Sound: f.Sound, Count: 1,
	}
	if n.ChannelID == "" {
		n.ChannelID = p.GetCategory()
	}
	if domain.LaneOf(p.GetLane()) == domain.Low {
		n.Sound = "" // nobody waits for it
	}
	m.Android.Notification = n
	return m, m.fit(func(body string) { n.Body = body }, c.GetBody())
}

// asData: the category or one above it is to be shown by the app.
func (f Format) asData(category string) bool {
	for _, name := range f.DataCategories {
		if category == name || strings.HasPrefix(category, name+".") {
			return true
		}
	}
	return false
}

// retraction asks the app to take a notification away; nothing is shown. What it replaced may be newer where the
// notification had a collapse key, so the tag is always the notification's own.
func retraction(p *whisperv1.Push) message {
	return message{
		Data:    map[string]string{"id": p.GetNotificationId(), "tag": p.GetNotificationId(), "retracted": "true"},
		Android: android{Priority: "NORMAL"},
	}
}

// tag is what a later notification replaces on the device. Without a collapse key a notification is its own: a second
// push of it, after an answer that never came, replaces the first instead of showing twice.
func tag(p *whisperv1.Push) string {
	if key := p.GetCollapseKey(); key != "" {
		return key
	}
	return p.GetNotificationId()
}

// priority HIGH wakes a device that sleeps. Nobody waits for what is on the lane low.
func priority(lane whisperv1.Lane) string {
	if domain.LaneOf(lane) == domain.Low {
		return "NORMAL"
	}
	return "HIGH"
}

// ttl is the whole seconds until the notification expires, so that FCM never shows it later; 0 means now or never. Without
// an end FCM's own limit holds, which is [MaxTTL].
func ttl(expiresAtMs int64, now time.Time) string {
	if expiresAtMs <= 0 {
		return ""
	}
	left := max(0, min(time.UnixMilli(expiresAtMs).Sub(now), MaxTTL))
	return strconv.FormatInt(int64(left/time.Second), 10) + "s"
}

// object is the JSON object without the space between its parts.
func object(data []byte) (string, error) {
	var b bytes.Buffer
	if json.Compact(&b, data) != nil || b.Bytes()[0] != '{' {
		return "", errDataNotJSON
	}
	return strings.ToValidUTF8(b.String(), "\ufffd"), nil // as it would be sent, so that its size is right
}

// fit cuts the body so that the message keeps the limit; set puts the cut one into its place.
func (m message) fit(set func(string), body string) error {
	over := m.size() - MaxPayloadBytes
	if over <= 0 {
		return nil
	}
	room := len(body) - over
	if room < minBodyBytes {
		return errPayloadTooLarge
	}
	set(cut(body, room-len(ellipsis)) + ellipsis)
	return nil
}

// notificationKey is what a key of a notification counts beside its own name: devices get it among the data, with a
// prefix.
const notificationKey = len("gcm.notification.")

// size is what FCM counts, as far as it says: keys and values, of the data and of the notification.
func (m message) size() int {
	n := 0
	for key, value := range m.Data {
		n += len(key) + len(value)
	}
	if s := m.Android.Notification; s != nil {
		for _, part := range []struct{ key, value string }{
			{"title", s.Title},
			{"body", s.Body},
			{"image", s.Image},
			{"sound", s.Sound},
			{"tag", s.Tag},
			{"channelId", s.ChannelID},
			{"notificationCount", "1"},
		} {
			if part.value != "" {
				n += notificationKey + len(part.key) + len(part.value)
			}
		}
	}
	return n
}

// cut is the longest prefix of s that ends between characters, less the space at its end, and has at most room bytes.
func cut(s string, room int) string {
	end := 0
	for end < len(s) {
		cluster, _, _, _ := uniseg.FirstGraphemeClusterInString(s[end:], -1)
		if end+len(cluster) > room {
			if end == 0 { // one character with thousands of marks: a part of it is better than nothing
				for end = room; end > 0 && !utf8.RuneStart(s[end]); {
					end--
				}
			}
			break
		}
		end += len(cluster)
	}
	return strings.TrimRightFunc(s[:end], unicode.IsSpace)
}

// maxTokenBytes is far over any registration token there was.
const maxTokenBytes = 4096

// isToken: FCM documents no alphabet of its tokens. Those that exist are of these characters.
func isToken(s string) bool {
	if s == "" || len(s) > maxTokenBytes {
		return false
	}
	for i := range len(s) {
		b := s[i]
		ok := b >= '0' && b <= '9' || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || strings.IndexByte("-_:.", b) >= 0
		if !ok {
			return false
		}
	}
	return true
}

// refusal is the stable word for why an attempt can't be asked for.
func refusal(err error) (reason string) {
	switch {
	case errors.Is(err, errMalformedToken):
		return "malformed_token"
	case errors.Is(err, errPayloadTooLarge):
		return "payload_too_large"
	case errors.Is(err, errDataNotJSON):
		return "malformed_data"
	default:
		return "unencodable"
	}
}
