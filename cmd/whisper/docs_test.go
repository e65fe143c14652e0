package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// asWhisper has the test's own binary be the program, for scripts that call it.
const asWhisper = "WHISPER_TEST_AS_PROGRAM"

// runIfProgram does not return where it is.
func runIfProgram() {
	if os.Getenv(asWhisper) != "" {
		main()
	}
}

// shellBlocks are a page's blocks of sh, one after the other.
func shellBlocks(t *testing.T, path string) string {
	t.Helper()
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var script strings.Builder
	inside := false
	for line := range strings.Lines(string(page)) {
		switch {
		case strings.HasPrefix(line, "```"):
			inside = !inside && strings.TrimSpace(line) == "```sh"
		case inside:
			script.WriteString(line)
		}
	}
	return script.String()
}

// freeAddr is an address that nobody listens on now.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestThePageOnTokensIsTrue(t *testing.T) {
	t.Parallel()
	script := shellBlocks(t, filepath.Join("..", "..", "docs", "auth.md"))
	if !strings.Contains(script, "whisper revoke") {
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
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", "trap 'kill $(jobs -p) 2> /dev/null || true' EXIT\n"+script)
	cmd.Dir = dir
	cmd.WaitDelay = 10 * time.Second
	cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "WHISPER_KAFKA="+b.addr, "WHISPER_PARTITIONS=3",
		"WHISPER_LISTEN="+freeAddr(t), "WHISPER_OPS_ADDR="+freeAddr(t))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}
