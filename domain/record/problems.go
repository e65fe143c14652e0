package record

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// The words that classify problems of records. They are a closed set, for metrics.
const (
	WordEmpty          = "empty"
	WordTooLarge       = "too_large"
	WordContentType    = "content_type"
	WordMalformed      = "malformed" // not JSON, not Protobuf, not UTF-8, truncated, something behind it
	WordUnknownField   = "unknown_field"
	WordDuplicateField = "duplicate_field"
	WordWrongType      = "wrong_type"
	WordID             = "id"
	WordAudience       = "audience"
	WordSegment        = "segment"
	WordContent        = "content"
	WordChannel        = "channel"
	WordCategory       = "category"
	WordTime           = "time"
	WordCommand        = "command"
	WordProfile        = "profile"
	WordTemplate       = "template"
	WordUnavailable    = "unavailable" // part of the contract, but not of this version
)

// Invalid is the error that lists everything that is wrong with one record of upstream. Its text is one line for the
// people who wrote the record; it becomes the reason of the dead letter.
type Invalid struct {
	// Word classifies the first problem.
	Word string
	// Problems are sentences, in the order of the record; at most maxProblems.
	Problems []string
	// More is the number of problems that Problems leaves out.
	More int
}

// maxProblems keeps the reason short enough for a dead letter, even for a record of 10,000 bad users.
const maxProblems = 10

// Error joins the problems.
func (e *Invalid) Error() string {
	text := strings.Join(e.Problems, "; ")
	if e.More > 0 {
		text += fmt.Sprintf("; and %d more problems", e.More)
	}
	return text
}

// Problems collects problems. The zero value is empty and costs nothing.
type Problems struct{ found *Invalid }

// Add adds a problem. word is one of the closed set above. Put texts of upstream through [Cited].
func (p *Problems) Add(word, format string, args ...any) {
	if p.found == nil {
		p.found = &Invalid{Word: word}
	}
	if len(p.found.Problems) == maxProblems {
		p.found.More++
		return
	}
	p.found.Problems = append(p.found.Problems, fmt.Sprintf(format, args...))
}

// Any reports whether there is a problem.
func (p *Problems) Any() bool { return p.found != nil }

// Count is the number of problems, including those that are not listed.
func (p *Problems) Count() int {
	if p.found == nil {
		return 0
	}
	return len(p.found.Problems) + p.found.More
}

// Invalid is the error of Err with its type, or nil.
func (p *Problems) Invalid() *Invalid { return p.found }

// Err returns an [*Invalid] with all problems, or nil.
func (p *Problems) Err() error {
	if p.found == nil {
		return nil
	}
	return p.found
}

// Cited quotes what upstream wrote for a sentence, and cuts it if it is long.
func Cited(s string) string {
	const most = 64
	if len(s) <= most {
		return fmt.Sprintf("%q", s)
	}
	cut := most
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return fmt.Sprintf("%q…", s[:cut])
}

// Limit adds a problem if there are more bytes than allowed.
func (p *Problems) Limit(word, path string, bytes, most int) {
	if bytes > most {
		p.Add(word, "%s has %d bytes, at most %d are allowed", path, bytes, most)
	}
}
