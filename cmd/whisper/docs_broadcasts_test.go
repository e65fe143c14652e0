package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestThePageOnBroadcastsIsTrue(t *testing.T) {
	t.Parallel()
	script := blocks(t, "sh", filepath.Join("..", "..", "docs", "broadcasts.md"))
	if !strings.Contains(script, "broadcasts watch") {
		t.Fatal("the page's blocks were not found")
	}
	dev := startDev(t, "--ephemeral")
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program := fmt.Sprintf("#!/bin/sh\n%s=1 exec '%s' \"$@\"\n", asWhisper, self)
	if err := os.WriteFile(filepath.Join(dir, "whisper"), []byte(program), 0o700); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", script)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "WHISPER_KAFKA="+dev.find(t, `Kafka +(\S+),`),
		"WHISPER_POSTGRES="+dev.find(t, `(postgres://\S+)`))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, said := range []string{"2 of 3 users are meant", "Nothing was sent.", "finished  news-7", "user.attributes.country == 'EG'", "asked to retract news-7"} {
		if !strings.Contains(string(out), said) {
			t.Errorf("it does not say %q:\n%s", said, out)
		}
	}
}
