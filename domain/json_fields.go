package domain

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Readers of single fields that records of upstream have in common; each complains by itself.

// truth reads true or false.
func (p *problems) truth(path, raw string) bool {
	if raw != "true" && raw != "false" {
		p.add(WordWrongType, "%s must be true or false, not %s", path, jsonKind(raw))
	}
	return raw == "true"
}

// oneOf reads a word of a closed set: its index; 0 after a complaint.
func (p *problems) oneOf(path, raw string, words []string) int {
	before := p.count()
	s := p.text(path, raw)
	if p.count() > before {
		return 0
	}
	at := slices.Index(words, s)
	if at < 0 {
		p.add(WordCategory, "%s: unknown %s; known are %s", path, cited(s), strings.Join(words, ", "))
		return 0
	}
	return at
}

// whole reads a number without a fraction.
func (p *problems) whole(path, raw string, least, most int) int {
	n, err := strconv.Atoi(raw)
	switch {
	case jsonKind(raw) != "a number":
		p.add(WordWrongType, "%s must be a number, not %s", path, jsonKind(raw))
	case err != nil:
		p.add(WordCategory, "%s is %s: it must be a whole number from %d to %d", path, cut(raw), least, most)
	case n < least || n > most:
		p.add(WordCategory, "%s is %d: it must be from %d to %d", path, n, least, most)
	default:
		return n
	}
	return 0
}

// duration reads a positive duration such as "90s".
func (p *problems) duration(path, raw string, most time.Duration) time.Duration {
	before := p.count()
	s := p.text(path, raw)
	if p.count() > before {
		return 0
	}
	d, err := time.ParseDuration(s)
	switch {
	case err != nil:
		p.add(WordTime, `%s %s is not a duration such as "90s" or "1h"`, path, cited(s))
	case d <= 0:
		p.add(WordTime, "%s is %s: it must be positive", path, s)
	case d > most:
		p.add(WordTime, "%s is %s, at most %s is allowed", path, s, most)
	default:
		return d
	}
	return 0
}

// orNull reads a string that check makes canonical; a null is "".
func (p *problems) orNull(path, raw string, check func(string) (string, error)) *string {
	if raw == "null" {
		return new(string)
	}
	before := p.count()
	s := p.text(path, raw)
	if p.count() > before {
		return nil
	}
	canonical, err := check(s)
	if err != nil {
		p.add(WordProfile, "%s %s %v", path, cited(s), err)
		return nil
	}
	return &canonical
}

// freeBytes is [problems.free] for JSON that came inside Protobuf.
func (p *problems) freeBytes(path string, value []byte, most int) []byte {
	if !utf8.Valid(value) || !json.Valid(value) {
		p.add(WordMalformed, "%s is not JSON", path)
		return nil
	}
	return p.free(path, strings.Trim(string(value), " \t\r\n"), most)
}
