package record

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Readers of single fields that several kinds of record have. Each adds its own problem.

// Truth reads true or false.
func (p *Problems) Truth(path, raw string) bool {
	if raw != "true" && raw != "false" {
		p.Add(WordWrongType, "%s must be true or false, not %s", path, Kind(raw))
	}
	return raw == "true"
}

// OneOf reads a word of a closed set and returns its index, or 0 and a problem.
func (p *Problems) OneOf(path, raw string, words []string) int {
	before := p.Count()
	s := p.Text(path, raw)
	if p.Count() > before {
		return 0
	}
	at := slices.Index(words, s)
	if at < 0 {
		p.Add(WordCategory, "%s: unknown %s; known are %s", path, Cited(s), strings.Join(words, ", "))
		return 0
	}
	return at
}

// Whole reads a number without a fraction.
func (p *Problems) Whole(path, raw string, least, most int) int {
	n, err := strconv.Atoi(raw)
	switch {
	case Kind(raw) != "a number":
		p.Add(WordWrongType, "%s must be a number, not %s", path, Kind(raw))
	case err != nil:
		p.Add(WordCategory, "%s is %s: it must be a whole number from %d to %d", path, Cut(raw), least, most)
	case n < least || n > most:
		p.Add(WordCategory, "%s is %d: it must be from %d to %d", path, n, least, most)
	default:
		return n
	}
	return 0
}

// Duration reads a positive duration such as "90s".
func (p *Problems) Duration(path, raw string, most time.Duration) time.Duration {
	before := p.Count()
	s := p.Text(path, raw)
	if p.Count() > before {
		return 0
	}
	d, err := time.ParseDuration(s)
	switch {
	case err != nil:
		p.Add(WordTime, `%s %s is not a duration such as "90s" or "1h"`, path, Cited(s))
	case d <= 0:
		p.Add(WordTime, "%s is %s: it must be positive", path, s)
	case d > most:
		p.Add(WordTime, "%s is %s, at most %s is allowed", path, s, most)
	default:
		return d
	}
	return 0
}

// OrNull reads a string, which check makes canonical. A null is "".
func (p *Problems) OrNull(path, raw string, check func(string) (string, error)) *string {
	if raw == "null" {
		return new(string)
	}
	before := p.Count()
	s := p.Text(path, raw)
	if p.Count() > before {
		return nil
	}
	canonical, err := check(s)
	if err != nil {
		p.Add(WordProfile, "%s %s %v", path, Cited(s), err)
		return nil
	}
	return &canonical
}

// FreeBytes is [Problems.Free] for JSON that came inside Protobuf.
func (p *Problems) FreeBytes(path string, value []byte, most int) []byte {
	if !utf8.Valid(value) || !json.Valid(value) {
		p.Add(WordMalformed, "%s is not JSON", path)
		return nil
	}
	return p.Free(path, strings.Trim(string(value), " \t\r\n"), most)
}
