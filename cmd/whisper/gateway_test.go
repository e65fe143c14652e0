package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Every flag of the gateway's own is explained to those who run it.
func TestEveryGatewayFlagIsInTheOperatorsPage(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	help := whisper(t, nil, "gateway", "--help").stdout
	from, to := strings.Index(help, "\nSockets:"), strings.Index(help, "\nKafka:")
	if from < 0 || to < from {
		t.Fatalf("no flags in %s", help)
	}
	flags := regexp.MustCompile(`(?m)^  (--[a-z-]+)`).FindAllStringSubmatch(help[from:to], -1)
	if len(flags) < 25 {
		t.Errorf("only %d flags were found", len(flags))
	}
	for _, flag := range flags {
		if !strings.Contains(string(page), "`"+flag[1]+"`") {
			t.Errorf("docs/operations.md does not explain %s", flag[1])
		}
	}
}

func TestAGatewayIsAdvertisedAtAHostAndPort(t *testing.T) {
	t.Parallel()
	if got := whisper(t, nil, "gateway", "--ops-advertise=:8081"); got.code != exitUsage || !strings.Contains(got.stderr, "ops-advertise") {
		t.Errorf("exit code %d, %s", got.code, got.stderr)
	}
}
