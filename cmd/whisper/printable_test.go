package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/gateway/client"
)

// hostile has what terminals take for commands: ESC, BEL, CR, DEL, C1 as a character and as a byte, overrides.
const hostile = "a\x1b]0;owned\x07\x1b[2J\r\x7f\u009b31m\u202ebc\u2066d\u2028e"

func TestNothingThatIsPrintedCommandsTheTerminal(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"plain\ttext\n":   "plain\ttext\n",
		"مرحبا \u200f👋 é": "مرحبا \u200f👋 é",
		hostile:           `a\u001b]0;owned\u0007\u001b[2J\u000d\u007f\u009b31m\u202ebc\u2066d\u2028e`,
		"\x9b31m \xff":    `\x9b31m \xff`,
		"":                "",
	} {
		var whole, bits bytes.Buffer
		if n, err := printable(&whole).Write([]byte(text)); n != len(text) || err != nil {
			t.Errorf("%q: wrote %d, %v", text, n, err)
		}
		w := printable(&bits)
		for i := range len(text) {
			if _, err := w.Write([]byte{text[i]}); err != nil {
				t.Fatal(err)
			}
		}
		if whole.String() != want || bits.String() != want {
			t.Errorf("%q: got %q, in pieces %q", text, whole.String(), bits.String())
		}
	}
	failing := printable(writerFunc(func([]byte) (int, error) { return 0, io.ErrClosedPipe }))
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
	if err := printJSON(printable(&out), map[string]string{"title": hostile}); err != nil {
		t.Fatal(err)
	}
	var back map[string]string
	if err := json.Unmarshal(out.Bytes(), &back); err != nil || back["title"] != hostile || strings.ContainsAny(out.String(), "\x1b\u009b\u202e") {
		t.Errorf("printed %q, read %q, %v", out.String(), back["title"], err)
	}
}

// The commands as they are: what others wrote, shown by a process made as run makes it.
func TestListenAndDeadLettersPrintNoCommands(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	p := &printer{w: printable(&out), now: time.Now, stop: func() {}}
	n := client.Notification{ID: "n\x1b[2J", Title: hostile, Body: hostile}
	p.print(line{}, fmt.Sprintf("%s %s", n.ID, oneLine(n.Title+": "+n.Body)))
	d := readDeadLetter(&kgo.Record{Key: []byte(hostile), Value: []byte(hostile), Headers: []kgo.RecordHeader{
		{Key: hostile, Value: []byte(hostile)},
		{Key: consumers.HeaderError, Value: []byte(hostile)},
		{Key: consumers.HeaderRole, Value: []byte(hostile + "\nforged")},
		{Key: consumers.HeaderTopic, Value: []byte(hostile + "\nforged")},
	}}).opened()
	if err := errors.Join(d.print(printable(&out)), d.line(printable(&out))); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsFunc(out.String(), commands) {
		t.Errorf("printed %q", out.String())
	}
	if strings.Contains(out.String(), "\nforged") {
		t.Errorf("a header made a line of its own: %s", out.String())
	}
}

// Also through the door that every command takes: an error quotes what it was given.
func TestARunPrintsNoCommands(t *testing.T) {
	t.Parallel()
	got := whisper(t, nil, "send", "--user=mona", "--body=x", "--lane="+hostile)
	if got.code != exitUsage || strings.ContainsFunc(got.stdout+got.stderr, commands) {
		t.Errorf("exit code %d, printed %q %q", got.code, got.stdout, got.stderr)
	}
	got = whisper(t, []string{"WHISPER_POSTGRES=" + hostile}, "deliveries", "list", "--user="+hostile)
	if strings.ContainsFunc(got.stdout+got.stderr, commands) {
		t.Errorf("printed %q %q", got.stdout, got.stderr)
	}
}
