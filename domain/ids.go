package domain

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
)

// DeliveryID names one notification for one user: 48 bits of the request's time in Unix
// milliseconds, big endian, then the 80 bits of [DeliveryHash]. It is the same on every replay of the
// request, and byte order is the order of time.
type DeliveryID [16]byte

// DeliveryHash is the part of a [DeliveryID] that stays the same when upstream asks again, so duplicates are found by
// it. It has 80 bits: by the birthday bound, two of 10^9 deliveries in one window share a hash with probability
// 4·10^-7. Hashes are looked up within one partition, where it is far less.
type DeliveryHash [10]byte

// HashDelivery is SHA-256(notification id, 0x00, user id), cut to 80 bits. The separator can't be in
// an id: [CheckID] refuses control characters.
func HashDelivery(notificationID, userID string) DeliveryHash {
	var scratch [2*MaxIDBytes + 1]byte
	b := append(scratch[:0], notificationID...)
	b = append(b, 0)
	b = append(b, userID...)
	sum := sha256.Sum256(b)
	return DeliveryHash(sum[:10])
}

// NewDeliveryID joins the request's time with the hash. Times before 1970 count as 1970.
func NewDeliveryID(requested time.Time, hash DeliveryHash) DeliveryID {
	var id DeliveryID
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(max(requested.UnixMilli(), 0)))
	copy(id[:6], ms[2:])
	copy(id[6:], hash[:])
	return id
}

// Hash is the part by which duplicates are found.
func (id DeliveryID) Hash() DeliveryHash { return DeliveryHash(id[6:]) }

// Time is the time of the request, to the millisecond, or the Unix epoch if it is not known.
func (id DeliveryID) Time() time.Time {
	var ms [8]byte
	copy(ms[2:], id[:6])
	return time.UnixMilli(int64(binary.BigEndian.Uint64(ms[:]))).UTC()
}

// Compare orders by time, then by hash.
func (id DeliveryID) Compare(other DeliveryID) int { return bytes.Compare(id[:], other[:]) }

// String has the shape of a UUID, which is also how Postgres keeps it.
func (id DeliveryID) String() string {
	var b [36]byte
	hex.Encode(b[0:8], id[0:4])
	b[8] = '-'
	hex.Encode(b[9:13], id[4:6])
	b[13] = '-'
	hex.Encode(b[14:18], id[6:8])
	b[18] = '-'
	hex.Encode(b[19:23], id[8:10])
	b[23] = '-'
	hex.Encode(b[24:36], id[10:16])
	return string(b[:])
}

// DeliveryIDFromBytes reads the 16 bytes that events carry.
func DeliveryIDFromBytes(b []byte) (DeliveryID, error) {
	if len(b) != len(DeliveryID{}) {
		return DeliveryID{}, fmt.Errorf("a delivery id has 16 bytes, this one has %d", len(b))
	}
	return DeliveryID(b), nil
}

// ParseDeliveryID reads what String wrote; dashes may be missing.
func ParseDeliveryID(s string) (DeliveryID, error) {
	raw, err := hex.DecodeString(string(bytes.ReplaceAll([]byte(s), []byte("-"), nil)))
	if err != nil || len(raw) != len(DeliveryID{}) {
		return DeliveryID{}, fmt.Errorf("%q is not a delivery id: 32 hex digits, with dashes or without", s)
	}
	return DeliveryID(raw), nil
}

// MaxIDBytes bounds notification ids and user ids.
const MaxIDBytes = 128

// CheckID returns what is wrong with the id of a new notification, user, category or anything else that Whisper is to
// know by a name, or nil. A person must be able to see an id and tell it from others: it has no control characters (C0,
// DEL, C1), none that change the direction of text, and not only white space.
func CheckID(id string) error {
	if err := CheckKnownID(id); err != nil {
		return err
	}
	if strings.TrimSpace(id) == "" {
		return errors.New("is only white space")
	}
	for _, r := range id {
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029' {
			return fmt.Errorf("has a control character (U+%04X)", r)
		}
	}
	return nil
}

// CheckKnownID is [CheckID] for ids that may exist already: in records of the internal topics, and in requests to
// cancel, erase or revoke. Earlier versions accepted C1 controls, marks of direction and white space alone.
func CheckKnownID(id string) error {
	switch {
	case id == "":
		return errors.New("is empty")
	case len(id) > MaxIDBytes:
		return fmt.Errorf("has %d bytes, at most %d are allowed", len(id), MaxIDBytes)
	}
	for i := range len(id) {
		if id[i] < 0x20 || id[i] == 0x7f {
			return fmt.Errorf("has a control character (0x%02x)", id[i])
		}
	}
	return checkUTF8(id)
}
