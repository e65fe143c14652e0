package record

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// The words that sort what is wrong with a record of upstream: a closed set, for metrics.
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

// Invalid is everything that is wrong with one record of upstream. Its text is one line, made to be
// read by the people who wrote the record; it becomes the reason of the dead letter.
type Invalid struct {
	// Word is the first problem's.
	Word string
	// Problems are sentences, in the order of the record; at most maxProblems.
	Problems []string
	// More is how many further ones were left out.
	More int
}

// A record of 10,000 bad users must not make a reason that no dead letter can carry.
const maxProblems = 10

// Error joins the problems.
func (e *Invalid) Error() string {
	text := strings.Join(e.Problems, "; ")
	if e.More > 0 {
		text += fmt.Sprintf("; and %d more problems", e.More)
	}
	return text
}

// Problems gathers; the zero value is empty and costs nothing.
type Problems struct{ found *Invalid }

// Add notes one more problem. word is one of the closed set above; what upstream wrote goes through [Cited].
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

// Any says whether something was found.
func (p *Problems) Any() bool { return p.found != nil }

// Count is how many problems were found, those included that are not listed.
func (p *Problems) Count() int {
	if p.found == nil {
		return 0
	}
	return len(p.found.Problems) + p.found.More
}

// Invalid is what err returns, with its type; nil where nothing was found.
func (p *Problems) Invalid() *Invalid { return p.found }

// Err is an [*Invalid] with all that was found, or nil.
func (p *Problems) Err() error {
	if p.found == nil {
		return nil
	}
	return p.found
}

// Cited puts what upstream wrote into a sentence: quoted, and cut where it is long.
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

// Limit complains about more bytes than are allowed.
func (p *Problems) Limit(word, path string, bytes, most int) {
	if bytes > most {
		p.Add(word, "%s has %d bytes, at most %d are allowed", path, bytes, most)
	}
}
