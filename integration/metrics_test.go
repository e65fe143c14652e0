package integration

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// TestMetricsOfEveryRole: Prometheus's own tool finds nothing to say about what each process tells, and every family says what it is.
func TestMetricsOfEveryRole(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		const sentence = "promtool reads the metrics as Prometheus does; install it (Debian: apt-get install prometheus): %v"
		if os.Getenv("WHISPER_REQUIRE_REAL") == "1" {
			t.Fatalf(sentence, err)
		}
		t.Skipf(sentence, err)
	}
	seen := map[string]bool{}
	for name, address := range sys.operations() {
		role, _, _ := strings.Cut(name, "-")
		resp, err := http.Get("http://" + address + "/metrics") //nolint:noctx // it ends with the process
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		seen[role] = true
		for _, family := range regexp.MustCompile(`(?m)^# TYPE (whisper_\S+) `).FindAllSubmatch(body, -1) {
			help := regexp.MustCompile(`(?m)^# HELP ` + string(family[1]) + ` (.+)$`).FindSubmatch(body)
			if help == nil || bytes.Contains(help[1], []byte("docs/operations.md")) {
				t.Errorf("%s: %s has no text of its own", name, family[1])
			}
		}
		if !bytes.Contains(body, []byte("\nwhisper_build_info{")) || !bytes.Contains(body, []byte("\nwhisper_kafka_connections ")) {
			t.Errorf("%s tells neither what it is nor how many connections it has", name)
		}
		lint := exec.CommandContext(t.Context(), promtool, "check", "metrics")
		lint.Stdin = bytes.NewReader(body)
		if out, err := lint.CombinedOutput(); err != nil {
			for line := range strings.Lines(string(out)) {
				if strings.HasPrefix(line, "whisper_") || strings.HasPrefix(line, "error") {
					t.Errorf("%s: promtool: %s", name, line)
				}
			}
		}
	}
	for _, role := range []string{"intake", "dispatch", "gateway", "push", "project"} {
		if !seen[role] {
			t.Errorf("no %s was asked", role)
		}
	}
}
