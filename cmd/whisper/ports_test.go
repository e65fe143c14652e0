package main

import (
	"net"
	"strings"
	"testing"
)

// TestAllBusyPortsAreReportedAtOnce: whoever frees one must not learn of the next by another start.
func TestAllBusyPortsAreReportedAtOnce(t *testing.T) {
	t.Parallel()
	busy := func() string {
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		return l.Addr().String()
	}
	secret := "WHISPER_AUTH_SECRET=" + strings.Repeat("s", 32)
	tests := map[string]struct {
		args  []string
		flags []string
	}{
		"gateway":     {[]string{"gateway", "--node=n", "--kafka=127.0.0.1:1"}, []string{"--listen", "--ops-addr"}},
		"whisper dev": {[]string{"dev", "--ephemeral"}, []string{"--listen", "--ops-addr", "--kafka-listen", "--postgres-listen"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args, addrs := tt.args, map[string]string{}
			for _, flag := range tt.flags {
				addrs[flag] = busy()
				args = append(args, flag+"="+addrs[flag])
			}
			got := whisper(t, []string{secret}, args...)
			if got.code != exitError || len(lines(got.stderr)) != len(tt.flags) {
				t.Errorf("exit code %d, want 1 and %d lines: %s", got.code, len(tt.flags), got.stderr)
			}
			for flag, addr := range addrs {
				if !strings.Contains(got.stderr, addr+" is in use") || !strings.Contains(got.stderr, flag) {
					t.Errorf("%q does not say that %s is busy and %s chooses another", got.stderr, addr, flag)
				}
			}
		})
	}
}

// TestPortsAreTakenAllOrNone: what is free is let go again where another is busy.
func TestPortsAreTakenAllOrNone(t *testing.T) {
	t.Parallel()
	busy, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = busy.Close() })
	free := freeAddr(t)
	got := whisper(t, []string{"WHISPER_AUTH_SECRET=" + strings.Repeat("s", 32)}, "gateway", "--node=n", "--kafka=127.0.0.1:1",
		"--ops-addr="+free, "--listen="+busy.Addr().String())
	if got.code != exitError || strings.Contains(got.stderr, "--ops-addr") {
		t.Errorf("exit code %d, %s", got.code, got.stderr)
	}
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", free)
	if err != nil {
		t.Fatalf("the operations port is still taken: %v", err)
	}
	_ = l.Close()
}
