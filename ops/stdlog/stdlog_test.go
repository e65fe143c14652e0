package stdlog_test

import (
	"bytes"
	"log"
	"os"
	"os/exec"
	"strings"
	"testing"

	// What writes the note, as in the program.
	_ "github.com/VictoriaMetrics/metrics"

	_ "github.com/klivvr/whisper/ops/stdlog"
)

// Package metrics writes its note while it is initialised, and only where the kernel has no pressure files. So this
// looks at what holds on every machine: that ours is initialised first.
func TestItIsInitialisedBeforeWhatLogs(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), "GODEBUG=inittrace=1")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	ours := strings.Index(stderr.String(), "init github.com/klivvr/whisper/ops/stdlog ")
	theirs := strings.Index(stderr.String(), "init github.com/VictoriaMetrics/metrics ")
	if ours < 0 || theirs < 0 || ours > theirs {
		t.Errorf("ours at %d, theirs at %d of %s", ours, theirs, &stderr)
	}
}

func TestTheNoteIsDropped(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestHelper$")
	cmd.Env = append(os.Environ(), "STDLOG_HELPER=1")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(stderr.String(), "PSI") || !strings.Contains(stderr.String(), "something else") {
		t.Errorf("it wrote %q", &stderr)
	}
}

// TestHelper is a process that logs as a library would.
func TestHelper(*testing.T) {
	if os.Getenv("STDLOG_HELPER") != "" {
		log.Printf("INFO: metrics: disable exposing PSI metrics because of failed init: %s", "no such file")
		log.Print("something else")
	}
}
