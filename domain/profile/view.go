package profile

import (
	"encoding/binary"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// View reads single fields of an encoded whisperv1.Profile, which is how [decide.State] holds a user. A walk reads a
// few fields of every user, so a View neither decodes nor allocates. The strings share the memory of the profile. The
// zero value is a user without a profile.
type View string

// Field numbers of whisper.v1.Profile, for [View.Field] and [View.Number].
const (
	fieldLocale      = 1
	fieldTimezone    = 2
	fieldAttributes  = 3
	fieldPreferences = 4
	fieldQuietHours  = 5
	fieldEndpoints   = 6
	FieldChanges     = 7
	FieldCreated     = 30
	fieldReading     = 20
	FieldReleases    = 31
)

// Locale is the canonical name of the user's language and region, or "".
func (v View) Locale() string { return v.Field(fieldLocale) }

// Timezone is a name of the IANA database, or "".
func (v View) Timezone() string { return v.Field(fieldTimezone) }

// Attributes is a JSON object, or "".
func (v View) Attributes() string { return v.Field(fieldAttributes) }

// Preferences is a JSON object, or "".
func (v View) Preferences() string { return v.Field(fieldPreferences) }

// QuietHours is a JSON object, or "": see [ReadQuiet].
func (v View) QuietHours() string { return v.Field(fieldQuietHours) }

// Reading is when the user reads, as [AddRead] writes it.
func (v View) Reading() string { return v.Field(fieldReading) }

// Reachable reports whether the user has an endpoint.
func (v View) Reachable() bool { return v.Field(fieldEndpoints) != "" }

// Number is the value of a varint field, or 0.
func (v View) Number(number protowire.Number) int64 {
	rest := string(v)
	for rest != "" {
		tag, n := Uvarint(rest)
		if n <= 0 {
			return 0
		}
		rest = rest[n:]
		at, kind := protowire.DecodeTag(tag)
		if at > number {
			return 0
		}
		value, n := Uvarint(rest)
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

// Field is the value of the first field with this number and the wire type of bytes, or "". A profile that can't be
// read is like an empty one: a user of whom nothing is known. Fields are encoded in the order of their numbers.
func (v View) Field(number protowire.Number) string {
	value, _, _ := v.next(number)
	return value
}

// next is Field, and what follows that field.
func (v View) next(number protowire.Number) (value string, after View, ok bool) {
	rest := string(v)
	for rest != "" {
		tag, n := Uvarint(rest)
		if n <= 0 {
			return "", "", false
		}
		rest = rest[n:]
		at, kind := protowire.DecodeTag(tag)
		if at > number {
			return "", "", false
		}
		size, n := Uvarint(rest)
		if n <= 0 {
			return "", "", false
		}
		rest = rest[n:]
		if kind != protowire.BytesType {
			continue // a varint, which has been read over
		}
		if size > uint64(len(rest)) {
			return "", "", false
		}
		if at == number {
			return rest[:size], View(rest[size:]), true
		}
		rest = rest[size:]
	}
	return "", "", false
}

// Uvarint is binary.Uvarint of a string.
func Uvarint(s string) (value uint64, n int) {
	for i := range min(len(s), binary.MaxVarintLen64) {
		b := s[i]
		value |= uint64(b&0x7f) << (7 * i)
		if b < 0x80 {
			return value, i + 1
		}
	}
	return 0, 0
}

// fieldChannel is of whisperv1.Endpoint.
const fieldChannel = 2

// Channels are the channels of the user's endpoints, each once.
func (v View) Channels() []string {
	all := []string{}
	for endpoint, rest, ok := v.next(fieldEndpoints); ok; endpoint, rest, ok = rest.next(fieldEndpoints) {
		if channel := View(endpoint).Field(fieldChannel); !slices.Contains(all, channel) {
			all = append(all, channel)
		}
	}
	return all
}

// HasChannel reports whether one of the user's endpoints is of the channel.
func (v View) HasChannel(channel string) bool {
	for endpoint, rest, ok := v.next(fieldEndpoints); ok; endpoint, rest, ok = rest.next(fieldEndpoints) {
		if View(endpoint).Field(fieldChannel) == channel {
			return true
		}
	}
	return false
}
