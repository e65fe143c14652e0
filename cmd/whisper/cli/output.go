package cli

import (
	"encoding/json"
	"io"
	"slices"
	"strings"
)

// DistinctLines leaves out lines that were there before: pgx tries an address with TLS and without, and says twice why neither worked.
func DistinctLines(text string) string {
	var kept []string
	for line := range strings.SplitSeq(text, "\n") {
		if !slices.Contains(kept, line) {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "\n")
}

// OneLine keeps what is printed of a record or an error on one line.
func OneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// TimeMillis is how times are printed for people.
const TimeMillis = "2006-01-02T15:04:05.000Z"

// PrintJSON writes one object to a line: what pipes want.
func PrintJSON(w io.Writer, doc any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(doc)
}
