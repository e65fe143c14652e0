package gateway

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// Every metric of a gateway is explained to those who run it.
func TestEveryMetricIsInTheOperatorsPage(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile := pairOf(t)
	n := prepare(t, func(c *Config, _ *fakeBroker) { c.TLSCert, c.TLSKey = certFile, keyFile })
	names := map[string]bool{}
	for line := range strings.Lines(n.exposed()) {
		names[regexp.MustCompile(`^whisper_\w+?(_bucket|_sum|_count)?[{ ]`).FindString(line)] = true
	}
	for name := range names {
		name = regexp.MustCompile(`(_bucket|_sum|_count)?[{ ]$`).ReplaceAllString(name, "")
		if !strings.Contains(string(page), "`"+name) {
			t.Errorf("docs/operations.md does not explain %s", name)
		}
	}
	if len(names) < 20 {
		t.Errorf("only %d metrics were found", len(names))
	}
}
