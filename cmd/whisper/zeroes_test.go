package main

import (
	"regexp"
	"strings"
	"testing"
)

// A setting of 0 is refused where 0 means nothing: none is silently taken for the default.
func TestZeroIsNotTheDefault(t *testing.T) {
	t.Parallel()
	for _, role := range []string{"gateway", "dispatch", "push", "project", "intake"} {
		t.Run(role, func(t *testing.T) {
			t.Parallel()
			help := whisper(t, nil, role, "--help").stdout
			flags := regexp.MustCompile(`(?m)^  --([a-z-]+)=(N|DURATION|BYTES|DAYS|RATIO)(?:\s)`).FindAllStringSubmatch(help, -1)
			if len(flags) < 3 {
				t.Fatalf("only %d numbers among the flags of %s", len(flags), help)
			}
			tried := 0
			for _, flag := range flags {
				name := flag[1]
				switch name {
				case "max-per-address", "min-isr": // 0 is their default
					continue
				case "receipt-hold", "auth-leeway", "spread": // 0 means none
					continue
				}
				tried++
				args := []string{role, "--" + name + "=0", "--kafka=127.0.0.1:1"}
				got := whisper(t, []string{"WHISPER_AUTH_SECRET=a secret of at least thirty-two bytes"}, args...)
				if got.code != exitUsage || !strings.Contains(got.stderr, name+":") {
					t.Errorf("%s: code %d, %s", name, got.code, got.stderr)
				}
			}
			if tried == 0 {
				t.Error("nothing was tried")
			}
		})
	}
}
