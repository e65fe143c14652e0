package rfc3339_test

import (
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/klivvr/whisper/domain/rfc3339"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]time.Time{
		"2026-11-23T09:00:00Z":           time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC),
		"2026-11-23T09:00:00+02:00":      time.Date(2026, 11, 23, 7, 0, 0, 0, time.UTC),
		"2026-11-23T09:00:00.25-03:30":   time.Date(2026, 11, 23, 12, 30, 0, 250_000_000, time.UTC),
		"2024-02-29T23:59:59.999999999Z": time.Date(2024, 2, 29, 23, 59, 59, 999_999_999, time.UTC),
		"1955-01-01T00:00:00Z":           time.Date(1955, 1, 1, 0, 0, 0, 0, time.UTC),
		"2026-11-23T09:00:00-00:00":      time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC),
	} {
		if got, err := rfc3339.Parse(s); err != nil || !got.Equal(want) {
			t.Errorf("%s: %v, %v", s, got, err)
		}
	}
	for s, want := range map[string]string{
		"2026-11-23T09:00:00": "has no zone: end it with Z or an offset such as +02:00", "2026-11-23T9:00:00": "is not an RFC 3339", "": "is not an RFC 3339", "now": "is not an RFC 3339",
		"2026-11-23T9:00:00Z": "is not an RFC 3339", "2026-11-23T09:00:00+24:00": "is not an RFC 3339", "2026-11-23T09:00:00+02:60": "is not an RFC 3339", "2026-11-23T09:00:00,5Z": "is not an RFC 3339",
		"2026-11-23T24:00:00Z": "is not an RFC 3339", "2026-11-23 09:00:00Z": "is not an RFC 3339", "2026-02-29T09:00:00Z": "is not an RFC 3339", "2026-11-23T09:00:00+0200": "is not an RFC 3339",
		"2026-11-23T09:00Z": "is not an RFC 3339", "2026-1-23T09:00:00Z": "is not an RFC 3339", " 2026-11-23T09:00:00Z": "is not an RFC 3339", "2026-11-23T09:00:00Z\n": "is not an RFC 3339",
		"+2026-11-23T09:00:00Z": "is not an RFC 3339", "2026-11-23T09:00:00.Z": "is not an RFC 3339", "2026-11-23T09:00:00." + strings.Repeat("1", 60) + "Z": "is not an RFC 3339",
		"1795680000": "is not an RFC 3339", "2026-11-23T09:00:00٠Z": "is not an RFC 3339",
	} {
		if got, err := rfc3339.Parse(s); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v, %v", s, got, err)
		}
	}
}

// grammar is RFC 3339's date-time with Go's capital letters.
var grammar = regexp.MustCompile(`^(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(\.\d+)?(Z|[+-](\d\d):(\d\d))$`)

// inGrammar says whether a text is a time by the letter.
func inGrammar(s string) bool {
	m := grammar.FindStringSubmatch(s)
	if m == nil || len(s) > 64 {
		return false
	}
	n := func(i int) int {
		v, _ := strconv.Atoi(m[i])
		return v
	}
	days := time.Date(n(1), time.Month(n(2))+1, 0, 0, 0, 0, 0, time.UTC).Day()
	return n(2) >= 1 && n(2) <= 12 && n(3) >= 1 && n(3) <= days && n(4) < 24 && n(5) < 60 && n(6) < 60 && n(9) < 24 && n(10) < 60
}

// TestOnlyTheGrammarIsTaken: of texts that look like times exactly those of the grammar.
func TestOnlyTheGrammarIsTaken(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		s := rapid.StringMatching(`(\d{4}|\d)-(\d\d|1?\d)-(\d\d|\d)[T ](\d\d|\d):([0-6]\d|\d)(:[0-6]\d)?([.,]\d{0,3})?(Z|z|[+-]\d\d:?\d\d|)`).Draw(rt, "text")
		if _, err := rfc3339.Parse(s); (err == nil) != inGrammar(s) {
			rt.Fatalf("%q: %v", s, err)
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"2026-11-23T09:00:00Z", "2026-11-23T9:00:00Z", "2026-11-23T09:00:00+24:00", "0001-01-01T00:00:00Z",
		"2026-11-23T09:00:00.123456789+23:59",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if at, err := rfc3339.Parse(s); (err == nil) != inGrammar(s) {
			t.Errorf("%q: %v, %v", s, at, err)
		}
	})
}
