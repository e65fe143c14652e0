package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// asWhisper has the test's own binary be the program, for scripts that call it.
const asWhisper = "WHISPER_TEST_AS_PROGRAM"

// lifeline is the file that a script and all that it starts inherit. The test holds its other end, so it is at its end
// once the test is over, however it was ended.
const lifeline = 3

// runIfProgram does not return where it is. What a script left running ends with the test that ran the script, also
// where that was killed or ran into its time.
func runIfProgram() {
	if os.Getenv(asWhisper) == "" {
		return
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.NewFile(lifeline, "lifeline"))
		os.Exit(128 + int(syscall.SIGKILL))
	}()
	main()
}

// blocks are a page's blocks of a language, one after the other.
func blocks(t *testing.T, language, path string) string {
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
			inside = !inside && strings.TrimSpace(line) == "```"+language
		case inside:
			script.WriteString(line)
		}
	}
	return script.String()
}

// get asks an address over HTTP.
func get(t *testing.T, url string) (status int, body []byte, err error) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err = io.ReadAll(resp.Body)
	return resp.StatusCode, body, err
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
	runPage(t, "auth.md", "whisper revoke")
}

func TestThePageOnTemplatesIsTrue(t *testing.T) {
	t.Parallel()
	runPage(t, "templates.md", "whisper templates apply")
}

// runPage runs the blocks of a page of docs, among which one has to say what, against a broker of their own.
func runPage(t *testing.T, page, what string) {
	t.Helper()
	runBlocks(t, page, what, "WHISPER_KAFKA="+startBroker(t).addr, "WHISPER_PARTITIONS=3", "WHISPER_LISTEN="+freeAddr(t),
		"WHISPER_OPS_ADDR="+freeAddr(t))
}

// script is bash with what to run, in a folder, with this program as `whisper`. It has as long as the test has; what it
// started ends when the test does.
func script(t *testing.T, dir, text string, env ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program := fmt.Sprintf("#!/bin/sh\n%s=1 exec '%s' \"$@\"\n", asWhisper, self)
	if err := os.WriteFile(filepath.Join(dir, "whisper"), []byte(program), 0o700); err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	if deadline, ok := t.Deadline(); ok { // a moment before, to say what it printed
		bounded, cancel := context.WithDeadline(ctx, deadline.Add(-30*time.Second))
		t.Cleanup(cancel)
		ctx = bounded
	}
	end, hold, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = hold.Close(), end.Close() })
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", "trap 'kill $(jobs -p) 2> /dev/null || true; wait' EXIT\n"+text)
	cmd.Dir = dir
	cmd.ExtraFiles = []*os.File{end} // number 3: lifeline
	cmd.Cancel = hold.Close
	cmd.WaitDelay = 20 * time.Second
	cmd.Env = append(append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH")), env...)
	return cmd
}

// runBlocks runs the blocks of a page, among which one has to say what, in an empty folder, with this program as
// `whisper`, and ends what they leave running. It returns what they print.
func runBlocks(t *testing.T, page, what string, env ...string) string {
	t.Helper()
	text := blocks(t, "sh", filepath.Join("..", "..", "docs", page))
	if !strings.Contains(text, what) {
		t.Fatal("the page's blocks were not found")
	}
	cmd := script(t, t.TempDir(), text, env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

// Its TypeScript is run by a test of the SDK.
func TestThePageOnClientsShowsAProgramThatWorks(t *testing.T) {
	t.Parallel()
	source := blocks(t, "go", filepath.Join("..", "..", "docs", "clients.md"))
	dev := startDev(t, "--ephemeral")
	address := dev.find(t, `sockets +ws://([^/]+)/`)
	if !strings.Contains(source, "127.0.0.1:8080") {
		t.Fatal("the page's program was not found")
	}
	file := filepath.Join(t.TempDir(), "main.go")
	if err := os.WriteFile(file, []byte(strings.Replace(source, "127.0.0.1:8080", address, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	program := file + ".program"
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, file).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	token := strings.TrimSpace(whisper(t, nil, "token", "--user=mona").stdout)
	var stdout, stderr written
	cmd := exec.CommandContext(t.Context(), program)
	cmd.Env, cmd.Stdout, cmd.Stderr = append(os.Environ(), "TOKEN="+token), &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if got := whisper(t, nil, "send", "--kafka="+dev.find(t, `Kafka +(\S+),`), "--user=mona", "--id=n-1", "--title=Hello", "--lane=high"); got.code != exitOK {
		t.Fatal(got.stderr)
	}
	eventually(t, "it prints what arrived", func() bool { return stdout.String() == "high n-1 Hello\n" })
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil || !strings.Contains(stderr.String(), "the client was closed") {
		t.Errorf("it ended with %v: %s", err, stderr.String())
	}
}

// What a page's script leaves running must not outlive the test, also where nobody is left to end it.
func TestProcessesOfAScriptEndWithTheTest(t *testing.T) {
	t.Parallel()
	broker, dir := startBroker(t), t.TempDir()
	cmd := script(t, dir, "trap - EXIT\nwhisper events --follow & echo $! > pid; kill -KILL $$", "WHISPER_KAFKA="+broker.addr)
	if err := cmd.Run(); err == nil {
		t.Fatal("the script was not killed")
	}
	text, err := os.ReadFile(filepath.Join(dir, "pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	alive := func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err == nil && !strings.Contains(string(stat), ") Z ")
	}
	if runtime.GOOS != "linux" {
		alive = func() bool { return syscall.Kill(pid, 0) == nil }
	}
	if !alive() {
		t.Fatal("it does not outlive its script, so this test shows nothing")
	}
	if err := cmd.Cancel(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "what the script had started has ended", func() bool { return !alive() })
}
