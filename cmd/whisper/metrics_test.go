package main

import (
	"bytes"
	"io/fs"
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
	status, body, err := get(t, operations+"/metrics")
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
		`whisper_partitions_owned{group="whisper-project"} 4`, `whisper_kafka_connections `, `whisper_projections_postgres_connections{state="idle"} `,
		`whisper_dispatch_parked_deliveries `, `whisper_dispatch_in_flight_deliveries `, `whisper_dispatch_timers `,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %s", want)
		}
	}
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		const sentence = "promtool reads the metrics as Prometheus does; install it (Debian: apt-get install prometheus): %v"
		if os.Getenv("WHISPER_REQUIRE_REAL") == "1" {
			t.Fatalf(sentence, err)
		}
		t.Logf(sentence, err)
		return
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

// TestCodeAndPageNameTheSameMetrics: what no running system of a test shows is in both as well, and each has its line of help.
func TestCodeAndPageNameTheSameMetrics(t *testing.T) {
	t.Parallel()
	root := filepath.Join("..", "..")
	name := regexp.MustCompile(`whisper_(?:build|queue|topic|deadletters|gateway|partitions?|publish|kafka|dispatch|records|delivery|intake|projections|push)_[a-z0-9_]+`)
	code, helped, told := map[string]bool{}, map[string]bool{}, map[string]bool{}
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && (strings.HasPrefix(entry.Name(), ".") && path != root || entry.Name() == "node_modules") {
			return fs.SkipDir
		}
		rel := filepath.ToSlash(strings.TrimPrefix(path, root+string(filepath.Separator)))
		if !strings.HasSuffix(rel, ".go") || strings.HasSuffix(rel, "_test.go") {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		names := code
		if rel == "ops/metrics.go" {
			names = helped
			code["whisper_build_info"] = true
		}
		for line := range strings.Lines(string(text)) {
			if strings.HasPrefix(strings.TrimSpace(line), "//") {
				continue
			}
			for _, quoted := range regexp.MustCompile("[`\"]"+name.String()+"[`\"{]").FindAllString(line, -1) {
				names[strings.Trim(quoted, "`\"{")] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	pages, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range name.FindAllString(string(text), -1) {
			told[found] = true
		}
	}
	if len(code) < 60 {
		t.Fatalf("only %d names were found in the code", len(code))
	}
	for where, names := range map[string][2]map[string]bool{
		"docs":                                 {code, told},
		"the texts of ops/metrics.go":          {code, helped},
		"the code, though docs name it":        {told, code},
		"the code, though ops/metrics.go does": {helped, code},
	} {
		for name := range names[0] {
			if !names[1][name] {
				t.Errorf("%s is not in %s", name, where)
			}
		}
	}
}
