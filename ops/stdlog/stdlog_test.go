package stdlog_test

import (
	"bytes"
	"os"
	"os/exec"
	"testing"

	// What writes the note, as in the program: it is initialised after ours.
	_ "github.com/VictoriaMetrics/metrics"

	_ "github.com/klivvr/whisper/ops/stdlog"
)

// Package metrics writes its note while it is initialised, so only a process of its own shows it.
func TestNothingIsWrittenBeforeTheProgramBegins(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^$")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(stderr.Bytes(), []byte("metrics:")) {
		t.Errorf("it wrote %s", &stderr)
	}
}
