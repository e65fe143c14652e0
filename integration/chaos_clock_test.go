package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Go programs ask the kernel for the time, so a preloaded library can't change it. A role whose clock is to jump is
// therefore built with a package time whose Now adds an offset; nothing of Whisper is changed.
const (
	goNow     = "	sec, nsec, mono := runtimeNow()\n"
	goNowThen = goNow + `	if d := chaosOffset.Load(); d != 0 && mono != 0 {
		ns := sec*1e9 + int64(nsec) + d
		sec, nsec = ns/1e9, int32(ns%1e9)
	}
`
	goOffset = `package time

import (
	"sync/atomic"
	_ "unsafe"
)

var chaosOffset atomic.Int64

//go:linkname chaosJump
func chaosJump(d Duration) { chaosOffset.Store(int64(d)) }
`
	goClock = `package main

import (
	"os"
	"strings"
	"time"
	_ "unsafe"
)

//go:linkname chaosJump time.chaosJump
func chaosJump(d time.Duration)

func init() {
	file := os.Getenv("CHAOS_CLOCK")
	read := func() {
		if b, err := os.ReadFile(file); err == nil {
			if d, err := time.ParseDuration(strings.TrimSpace(string(b))); err == nil {
				chaosJump(d)
			}
		}
	}
	read()
	go func() {
		for range time.Tick(100 * time.Millisecond) {
			read()
		}
	}()
}
`
)

// buildWithClock builds whisper so that its clock is shifted by what the file named by CHAOS_CLOCK says.
func buildWithClock(ctx context.Context, dir, binary string) error {
	root, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return fmt.Errorf("go env GOROOT: %w", err)
	}
	std := filepath.Join(strings.TrimSpace(string(root)), "src", "time")
	source, err := os.ReadFile(filepath.Join(std, "time.go"))
	if err != nil {
		return err
	}
	if strings.Count(string(source), goNow) != 1 {
		return fmt.Errorf("%s/time.go does not read the clock as it used to", std)
	}
	command, err := filepath.Abs("../cmd/whisper")
	if err != nil {
		return err
	}
	overlay := filepath.Join(dir, "overlay")
	replace := map[string]string{}
	for path, text := range map[string]string{
		filepath.Join(std, "time.go"):              strings.Replace(string(source), goNow, goNowThen, 1),
		filepath.Join(std, "chaos_offset.go"):      goOffset,
		filepath.Join(command, "chaos_clock.go"):   goClock,
		filepath.Join(command, "chaos_bodyless.s"): "",
	} {
		file := filepath.Join(overlay, filepath.Base(path))
		replace[path] = file
		if err := os.MkdirAll(overlay, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			return err
		}
	}
	list, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return err
	}
	file := filepath.Join(overlay, "overlay.json")
	if err := os.WriteFile(file, list, 0o600); err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, "go", "build", "-trimpath", "-overlay", file, "-o", binary, "../cmd/whisper").CombinedOutput(); err != nil {
		return fmt.Errorf("build whisper with a clock that jumps: %w\n%s", err, out)
	}
	return nil
}

// fakeTime is the library that shifts the clock of programs that ask libc for the time; empty if it is not installed.
func fakeTime() string {
	for _, pattern := range []string{"/usr/lib/*/faketime/libfaketimeMT.so.1", "/usr/lib64/faketime/libfaketimeMT.so.1"} {
		if found, err := filepath.Glob(pattern); err == nil && len(found) > 0 {
			return found[0]
		}
	}
	return ""
}

// fakeEnv preloads the library in a program; file has its clock's shift, as setFake writes it.
func fakeEnv(library, file string) []string {
	return []string{
		"LD_PRELOAD=" + library, "FAKETIME_TIMESTAMP_FILE=" + file, "FAKETIME_CACHE_DURATION=1",
		"FAKETIME_DONT_FAKE_MONOTONIC=1", "DONT_FAKE_MONOTONIC=1", "FAKETIME_FORCE_MONOTONIC_FIX=0", // without the last one a JVM hangs
	}
}

// setFake shifts the clock of a program under fakeEnv; setClock does so for a role.
func setFake(file string, d time.Duration) error {
	return replaceFile(file, fmt.Sprintf("%+.3f\n", d.Seconds()))
}

func setClock(file string, d time.Duration) error { return replaceFile(file, d.String()) }

// replaceFile replaces a file at once: no reader sees half of it.
func replaceFile(file, text string) error {
	if err := os.WriteFile(file+".new", []byte(text), 0o644); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}
