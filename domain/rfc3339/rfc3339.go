// Package rfc3339 reads times in RFC 3339, strictly. It is the only place where input becomes a time.
package rfc3339

import (
	"errors"
	"time"
)

var (
	errForm = errors.New(`is not an RFC 3339 time such as "2026-11-23T09:00:00Z"`)
	errZone = errors.New("has no zone: end it with Z or an offset such as +02:00")
)

// Parse reads an RFC 3339 time and nothing else. [time.Parse] and [time.Time.UnmarshalText] accept more: hours of one
// digit, a comma for the point, offsets of 24 hours. The error continues a sentence that begins with the text that was
// read.
func Parse(s string) (time.Time, error) {
	if len(s) > maxLength || len(s) < len(dateTime) || !shaped(s[:len(dateTime)], dateTime) {
		return time.Time{}, errForm
	}
	rest := s[len(dateTime):]
	if rest != "" && rest[0] == '.' {
		digits := 1
		for digits < len(rest) && isDigit(rest[digits]) {
			digits++
		}
		if digits == 1 {
			return time.Time{}, errForm
		}
		rest = rest[digits:]
	}
	if rest == "" {
		if _, err := time.Parse(time.RFC3339, s+"Z"); err == nil {
			return time.Time{}, errZone
		}
		return time.Time{}, errForm
	}
	if rest != "Z" && (!shaped(rest, "+00:00") && !shaped(rest, "-00:00") || rest[1:3] > "23" || rest[4:] > "59") {
		return time.Time{}, errForm
	}
	at, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}, errForm
	}
	return at, nil
}

const (
	dateTime = "0000-00-00T00:00:00"
	// maxLength allows more digits of a second than clocks have.
	maxLength = 64
)

// shaped reports whether s has a digit wherever the shape has a 0, and the same character as the shape everywhere else.
func shaped(s, shape string) bool {
	if len(s) != len(shape) {
		return false
	}
	for i := range len(s) {
		if shape[i] == '0' && !isDigit(s[i]) || shape[i] != '0' && s[i] != shape[i] {
			return false
		}
	}
	return true
}

func isDigit(b byte) bool { return b >= '0' && b <= '9' }
