package main

import (
	"strings"
	"testing"
)

// terminalCommands has what terminals take for commands: ESC, BEL, CR, DEL, C1, overrides.
const terminalCommands = "\x1b\x07\r\x7f\u009b\u202e\u2066\u2028"

// Also through the door that every command takes: an error quotes what it was given.
func TestRunPrintsNoTerminalCommands(t *testing.T) {
	t.Parallel()
	got := whisper(t, nil, "send", "--user=mona", "--body=x", "--lane="+terminalCommands)
	if got.code != exitUsage || strings.ContainsAny(got.stdout+got.stderr, terminalCommands) {
		t.Errorf("exit code %d, printed %q %q", got.code, got.stdout, got.stderr)
	}
	got = whisper(t, []string{"WHISPER_POSTGRES=" + terminalCommands}, "deliveries", "list", "--user="+terminalCommands)
	if strings.ContainsAny(got.stdout+got.stderr, terminalCommands) {
		t.Errorf("printed %q %q", got.stdout, got.stderr)
	}
}
