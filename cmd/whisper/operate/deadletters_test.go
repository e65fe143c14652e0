package operate

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/cmd/whisper/cli"
	"github.com/klivvr/whisper/consumers"
)

// What others wrote is shown by a process made as run makes it.
func TestDeadLettersPrintNoTerminalCommands(t *testing.T) {
	t.Parallel()
	const commands = "\x1b\x07\r\x7f\u009b\u202e\u2066\u2028"
	var out bytes.Buffer
	d := readDeadLetter(&kgo.Record{Key: []byte(commands), Value: []byte(commands), Headers: []kgo.RecordHeader{
		{Key: commands, Value: []byte(commands)},
		{Key: consumers.HeaderError, Value: []byte(commands)},
		{Key: consumers.HeaderRole, Value: []byte(commands + "\nforged")},
		{Key: consumers.HeaderTopic, Value: []byte(commands + "\nforged")},
	}}).opened()
	if err := errors.Join(d.print(cli.Printable(&out)), d.line(cli.Printable(&out))); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(out.String(), commands) {
		t.Errorf("printed %q", out.String())
	}
	if strings.Contains(out.String(), "\nforged") {
		t.Errorf("a header made a line of its own: %s", out.String())
	}
}
