package main

import (
	"bytes"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Every metric of a running system stands in docs/operations.md, says what it is and of which type, and counters that
// matter are there before their first event.
func TestEveryMetricIsExplained(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	operations := startDev(t, "--ephemeral", "--partitions=1").find(t, `operations +(\S+)`)
	status, body, err := get(t.Context(), operations+"/metrics")
	if err != nil || status != http.StatusOK {
		t.Fatalf("%d, %v", status, err)
	}
	text := string(body)
	families := regexp.MustCompile(`(?m)^# TYPE (\S+) (\S+)$`).FindAllStringSubmatch(text, -1)
	own := map[string]bool{}
	for _, family := range families {
		name := family[1]
		explained := regexp.MustCompile(`(?m)^# HELP ` + name + ` (.+)$`).FindStringSubmatch(text)
		if explained == nil {
			t.Errorf("%s has no HELP", name)
			continue
		}
		if !strings.HasPrefix(name, "whisper_") {
			continue
		}
		own[name] = true
		if strings.Contains(explained[1], "docs/operations.md") {
			t.Errorf("%s has no text of its own: add it to ops/metrics.go", name)
		}
		if !regexp.MustCompile("`" + name + "[`{]").Match(page) {
			t.Errorf("%s is not in docs/operations.md", name)
		}
	}
	if len(own) < 40 {
		t.Errorf("only %d families of whisper", len(own))
	}
	for line := range strings.Lines(text) {
		name := regexp.MustCompile(`^whisper_\w+`).FindString(line)
		for _, suffix := range []string{"", "_bucket", "_sum", "_count"} {
			if own[strings.TrimSuffix(name, suffix)] {
				name = ""
			}
		}
		if name != "" {
			t.Errorf("%s has no TYPE", name)
		}
	}
	for _, want := range []string{
		`whisper_deadletters_total{role="intake",reason="invalid"} `, `whisper_deadletters_total{role="dispatch",reason="invalid"} `,
		`whisper_records_lost_total{group="whisper-intake",topic="whisper.requests.high"} 0`, `whisper_build_info{version=`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %s", want)
		}
	}
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		return // Debian's package prometheus has it
	}
	lint := exec.CommandContext(t.Context(), promtool, "check", "metrics")
	lint.Stdin = bytes.NewReader(body)
	if out, err := lint.CombinedOutput(); err != nil {
		for line := range strings.Lines(string(out)) {
			if strings.HasPrefix(line, "whisper_") {
				t.Errorf("promtool: %s", line)
			}
		}
	}
}
