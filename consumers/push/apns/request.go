package apns

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"time"

	"github.com/sideshow/apns2"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

var (
	errMalformedToken = errors.New("the device token is not one")
	errNoTopic        = errors.New("the endpoint names no app and there is no default topic")
	errBadTopic       = errors.New("the app's name can't be a topic")
)

// maxTokenBytes is far over any device token there was (Apple asks not to assume a length).
const maxTokenBytes = 256

// request is the attempt as APNs gets it.
func (c *Config) request(p *whisperv1.Push) (*apns2.Notification, error) {
	if !isToken(p.GetToken()) {
		return nil, errMalformedToken
	}
	topic, err := c.topic(p)
	if err != nil {
		return nil, err
	}
	form := c.alert
	if p.GetRetract() {
		form = silent
	}
	n, err := form(p)
	if err != nil {
		return nil, err
	}
	n.DeviceToken, n.Topic = p.GetToken(), topic
	if ms := p.GetExpiresAtMs(); ms > 0 {
		n.Expiration = time.UnixMilli(ms)
	}
	return n, nil
}

func (c *Config) alert(p *whisperv1.Push) (*apns2.Notification, error) {
	body, err := encodePayload(p, c.Sound)
	if err != nil {
		return nil, err
	}
	return &apns2.Notification{
		ApnsID:     apnsID(p.GetDeliveryId(), p.GetAttempt()),
		CollapseID: collapseID(p),
		Priority:   priority(p.GetLane()),
		Payload:    body,
		PushType:   apns2.PushTypeAlert,
	}, nil
}

// silent takes a notification back. Apple refuses background pushes of priority 10. It never has a collapse key: it
// would knock out a newer notification of the same key that a phone has not got yet. With the notification's own
// collapse id it may take its place where that is stored for a phone that is off; Apple does not say.
func silent(p *whisperv1.Push) (*apns2.Notification, error) {
	body, err := encodeRetraction(p)
	if err != nil {
		return nil, err
	}
	return &apns2.Notification{
		ApnsID:     retractID(p.GetDeliveryId(), p.GetEndpoint()),
		CollapseID: collapseText(p.GetNotificationId()),
		Priority:   apns2.PriorityLow,
		Payload:    body,
		PushType:   apns2.PushTypeBackground,
	}, nil
}

func (c *Config) topic(p *whisperv1.Push) (string, error) {
	topic := p.GetApp()
	if topic == "" {
		topic = c.Topic
	}
	if topic == "" {
		return "", errNoTopic
	}
	if !isHeaderValue(topic) {
		return "", errBadTopic
	}
	return topic, nil
}

// priority 10 is shown at once. Low is what nobody waits for: the device may gather it and save power.
func priority(lane whisperv1.Lane) int {
	if domain.LaneOf(lane) == domain.Low {
		return apns2.PriorityLow
	}
	return apns2.PriorityHigh
}

// apnsID is the same for every try of one attempt, here and after a crash: a UUID (version 8) of the
// delivery and the attempt's number.
func apnsID(delivery []byte, attempt int32) string {
	return uuidOf(delivery, binary.BigEndian.AppendUint32(nil, uint32(attempt)))
}

// retractID is the same for every attempt to take a delivery back from an endpoint: whichever of them a phone gets, it
// is one.
func retractID(delivery []byte, endpoint string) string {
	return uuidOf(delivery, []byte("retract\x00"+endpoint))
}

func uuidOf(delivery, what []byte) string {
	h := sha256.New()
	h.Write(delivery)
	h.Write(what)
	id := domain.DeliveryID(h.Sum(nil)[:16])
	id[6] = id[6]&0x0f | 0x80
	id[8] = id[8]&0x3f | 0x80
	return id.String() // the same shape as a UUID
}

// maxCollapseBytes is APNs's limit.
const maxCollapseBytes = 64

// collapseID is what a later push replaces on the device. Without a key of its own a notification is
// its own: a second push of it, after an answer that never came, replaces the first instead of showing
// twice.
func collapseID(p *whisperv1.Push) string {
	key := p.GetCollapseKey()
	if key == "" {
		key = p.GetNotificationId()
	}
	return collapseText(key)
}

// collapseText is a key as a header may have it.
func collapseText(key string) string {
	if len(key) <= maxCollapseBytes && isHeaderValue(key) {
		return key
	}
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}

// isToken keeps what is put into the request's path to characters that mean nothing there. Apple's
// tokens are hex; simulators' are named.
func isToken(s string) bool {
	if s == "" || len(s) > maxTokenBytes {
		return false
	}
	for i := range len(s) {
		b := s[i]
		ok := b >= '0' && b <= '9' || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b == '-' || b == '_'
		if !ok {
			return false
		}
	}
	return true
}

// isHeaderValue: visible ASCII, so that it arrives as it was given.
func isHeaderValue(s string) bool {
	for i := range len(s) {
		if s[i] <= 0x20 || s[i] >= 0x7f {
			return false
		}
	}
	return s != ""
}

// refusal is the stable word for why an attempt can't be asked for.
func refusal(err error) (reason string) {
	switch {
	case errors.Is(err, errMalformedToken):
		return "malformed_token"
	case errors.Is(err, errNoTopic):
		return "no_topic"
	case errors.Is(err, errBadTopic):
		return "malformed_topic"
	case errors.Is(err, errPayloadTooLarge):
		return "payload_too_large"
	case errors.Is(err, errDataNotJSON):
		return "malformed_data"
	default:
		return "unencodable"
	}
}
