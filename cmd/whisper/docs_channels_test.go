package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/klivvr/whisper/consumers/push/channels"
)

func TestThePageOnChannelsIsTrue(t *testing.T) {
	t.Parallel()
	out := runBlocks(t, "channels.md", "whisper push --apps", "WHISPER_KAFKA="+startBroker(t).addr, "WHISPER_PARTITIONS=3", "SIM="+freeAddr(t))
	if !strings.Contains(out, "delivery_sent") {
		t.Errorf("nothing was sent:\n%s", out)
	}
}

// Each channel of the registry has its section, and each field that its table names is one that a file may have.
func TestThePageOnChannelsNamesTheFields(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "channels.md"))
	if err != nil {
		t.Fatal(err)
	}
	sections := regexp.MustCompile(`(?m)^## `).Split(string(page), -1)
	for _, channel := range channels.All() {
		i := slices.IndexFunc(sections, func(s string) bool {
			title, _, _ := strings.Cut(s, "\n")
			return strings.EqualFold(strings.ReplaceAll(title, " ", ""), channel.Name)
		})
		if i < 0 {
			t.Errorf("%s has no section", channel.Name)
			continue
		}
		var named []string
		for line := range strings.Lines(sections[i]) {
			if cells := strings.Split(line, "|"); len(cells) > 3 {
				for _, field := range regexp.MustCompile("`([a-z_]+)`").FindAllStringSubmatch(cells[1], -1) {
					named = append(named, field[1])
				}
			}
		}
		if len(named) == 0 {
			t.Errorf("the fields of %s were not found", channel.Name)
		}
		for _, field := range named {
			if problem := fieldProblem(t, channel.Name, field); strings.Contains(problem, "unknown field") {
				t.Errorf("%s: %s", channel.Name, problem)
			}
		}
	}
}

// fieldProblem is what push says of a file with this field.
func fieldProblem(t *testing.T, channel, field string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "apps.yaml")
	if err := os.WriteFile(file, []byte(channel+":\n  - {apps: [com.example], "+field+": 1}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got := whisper(t, nil, "push", "--apps="+file)
	if got.code != exitUsage {
		t.Errorf("exit code %d: %s", got.code, got.stderr)
	}
	return got.stderr
}
