package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
)

// hostile has what terminals take for commands: ESC, BEL, CR, DEL, C1 as a character and as a byte, overrides.
const hostile = "a\x1b]0;owned\x07\x1b[2J\r\x7f\u009b31m\u202ebc\u2066d\u2028e"

func TestPrintedTextHasNoTerminalCommands(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"plain\ttext\n":   "plain\ttext\n",
		"مرحبا \u200f👋 é": "مرحبا \u200f👋 é",
		hostile:           `a\u001b]0;owned\u0007\u001b[2J\u000d\u007f\u009b31m\u202ebc\u2066d\u2028e`,
		"\x9b31m \xff":    `\x9b31m \xff`,
		"":                "",
	} {
		var whole, bits bytes.Buffer
		if n, err := Printable(&whole).Write([]byte(text)); n != len(text) || err != nil {
			t.Errorf("%q: wrote %d, %v", text, n, err)
		}
		w := Printable(&bits)
		for i := range len(text) {
			if _, err := w.Write([]byte{text[i]}); err != nil {
				t.Fatal(err)
			}
		}
		if whole.String() != want || bits.String() != want {
			t.Errorf("%q: got %q, in pieces %q", text, whole.String(), bits.String())
		}
	}
	failing := Printable(writerFunc(func([]byte) (int, error) { return 0, io.ErrClosedPipe }))
	for _, text := range []string{"plain", hostile} {
		if _, err := failing.Write([]byte(text)); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// What is printed as JSON still means what it was.
func TestPrintableJSONMeansTheSame(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if err := PrintJSON(Printable(&out), map[string]string{"title": hostile}); err != nil {
		t.Fatal(err)
	}
	var back map[string]string
	if err := json.Unmarshal(out.Bytes(), &back); err != nil || back["title"] != hostile ||
		strings.ContainsAny(out.String(), "\x1b\u009b\u202e") {
		t.Errorf("printed %q, read %q, %v", out.String(), back["title"], err)
	}
}
