package dev

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/klivvr/whisper/cmd/whisper/cli"
	"github.com/klivvr/whisper/gateway/client"
)

// What others wrote is shown by a process made as run makes it.
func TestListenPrintsNoTerminalCommands(t *testing.T) {
	t.Parallel()
	const commands = "\x1b\x07\r\x7f\u009b\u202e\u2066\u2028"
	var out bytes.Buffer
	p := &printer{w: cli.Printable(&out), now: time.Now, stop: func() {}}
	n := client.Notification{ID: "n\x1b[2J", Title: commands, Body: commands}
	p.print(line{}, fmt.Sprintf("%s %s", n.ID, cli.OneLine(n.Title+": "+n.Body)))
	if p.err != nil || strings.ContainsAny(out.String(), commands) {
		t.Errorf("printed %q, %v", out.String(), p.err)
	}
}
