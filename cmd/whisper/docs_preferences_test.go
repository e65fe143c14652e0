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

func TestThePageOnPreferencesIsTrue(t *testing.T) {
	t.Parallel()
	script := blocks(t, "sh", filepath.Join("..", "..", "docs", "preferences.md"))
	if !strings.Contains(script, "whisper categories apply") {
		t.Fatal("the page's blocks were not found")
	}
	b := startBroker(t)
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program := fmt.Sprintf("#!/bin/sh\n%s=1 exec '%s' \"$@\"\n", asWhisper, self)
	if err := os.WriteFile(filepath.Join(dir, "whisper"), []byte(program), 0o700); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", "trap 'kill $(jobs -p) 2> /dev/null || true; wait' EXIT\n"+script)
	cmd.Dir = dir
	cmd.WaitDelay = 20 * time.Second
	cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "WHISPER_KAFKA="+b.addr, "WHISPER_PARTITIONS=3", "WHISPER_LISTEN="+freeAddr(t))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}
