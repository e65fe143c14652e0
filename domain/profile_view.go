package domain

import (
	"encoding/binary"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/domain/whisperv1"
)

// profileView reads single fields of a user as [State] holds it: an encoded whisperv1.Profile. A walk over
// all users asks a few things of each, and must neither decode nor allocate for them. The strings share the
// encoded one's memory. The zero value is a user without a profile.
type profileView string

// Field numbers of whisper.v1.Profile.
const (
	profileLocale      = 1
	profileTimezone    = 2
	profileAttributes  = 3
	profilePreferences = 4
	profileQuietHours  = 5
	profileEndpoints   = 6
	profileChanges     = 7
	profileCreated     = 30
	profileReading     = 20
	profileReleases    = 31
)

func (v profileView) locale() string   { return v.field(profileLocale) }
func (v profileView) timezone() string { return v.field(profileTimezone) }

// attributes, preferences and quietHours are JSON texts, or "".
func (v profileView) attributes() string  { return v.field(profileAttributes) }
func (v profileView) preferences() string { return v.field(profilePreferences) }
func (v profileView) quietHours() string  { return v.field(profileQuietHours) }

// reading is when the user reads: see [addRead].
func (v profileView) reading() string { return v.field(profileReading) }

// reachable: there is an endpoint at all.
func (v profileView) reachable() bool { return v.field(profileEndpoints) != "" }

// number is the value of a field that is a varint; 0 where there is none.
func (v profileView) number(number protowire.Number) int64 {
	rest := string(v)
	for rest != "" {
		tag, n := uvarint(rest)
		if n <= 0 {
			return 0
		}
		rest = rest[n:]
		at, kind := protowire.DecodeTag(tag)
		if at > number {
			return 0
		}
		value, n := uvarint(rest)
		if n <= 0 {
			return 0
		}
		rest = rest[n:]
		switch {
		case kind == protowire.VarintType && at == number:
			return int64(value)
		case kind == protowire.VarintType:
		case value > uint64(len(rest)):
			return 0
		default:
			rest = rest[value:]
		}
	}
	return 0
}

// field is the value of the first field with this number, which has the wire type of bytes; "" where there
// is none, or where the profile can't be read: like the empty value, it is a user of whom nothing is known.
// Fields are encoded in the order of their numbers.
func (v profileView) field(number protowire.Number) string {
	rest := string(v)
	for rest != "" {
		tag, n := uvarint(rest)
		if n <= 0 {
			return ""
		}
		rest = rest[n:]
		at, kind := protowire.DecodeTag(tag)
		if at > number {
			return ""
		}
		size, n := uvarint(rest)
		if n <= 0 {
			return ""
		}
		rest = rest[n:]
		if kind != protowire.BytesType {
			continue // a varint, which has been read over
		}
		if size > uint64(len(rest)) {
			return ""
		}
		if at == number {
			return rest[:size]
		}
		rest = rest[size:]
	}
	return ""
}

// uvarint is binary.Uvarint of a string.
func uvarint(s string) (value uint64, n int) {
	for i := range min(len(s), binary.MaxVarintLen64) {
		b := s[i]
		value |= uint64(b&0x7f) << (7 * i)
		if b < 0x80 {
			return value, i + 1
		}
	}
	return 0, 0
}

// channels are those of the user's endpoints, each once.
func (v profileView) channels() []string {
	p := &whisperv1.Profile{}
	if v == "" || proto.Unmarshal([]byte(v), p) != nil {
		return []string{}
	}
	all := []string{}
	for _, e := range p.GetEndpoints() {
		if !slices.Contains(all, e.GetChannel()) {
			all = append(all, e.GetChannel())
		}
	}
	return all
}
