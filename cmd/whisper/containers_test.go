package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// On a clone there is nothing but what git has: no image, no binary, no key that somebody made before.
func TestContainersNeedNothingButAClone(t *testing.T) {
	t.Parallel()
	const root = "../.."
	text, err := os.ReadFile(filepath.Join(root, "docker-compose.yml"))
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Services map[string]struct {
			Image       string
			Build       struct{ Context string }
			Command     []string
			Volumes     []string
			Environment map[string]string
		}
		Secrets map[string]any
		Volumes map[string]any
	}
	if err := yaml.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	if len(doc.Secrets) > 0 {
		t.Errorf("secrets that somebody must make: %v", doc.Secrets)
	}
	for name, s := range doc.Services {
		for _, v := range s.Volumes {
			from, _, _ := strings.Cut(v, ":")
			if _, named := doc.Volumes[from]; named {
				continue
			}
			if _, err := os.Stat(filepath.Join(root, from)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if !strings.Contains(s.Image, "whisper:dev") {
			continue
		}
		if s.Build.Context != "." {
			t.Errorf("%s has an image that nobody builds", name)
		}
		got := whisper(t, nil, append(s.Command, "--help")...)
		for variable := range s.Environment {
			flag := "--" + strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(variable, envPrefix), "_", "-"))
			if !strings.Contains(got.stdout, flag) && variable != "WHISPER_OPS_ADDR" { // one-shot commands have no such port
				t.Errorf("%s: %s is no setting of %v", name, variable, s.Command)
			}
		}
	}
	if url := doc.Services["migrate"].Environment["WHISPER_POSTGRES"]; !strings.Contains(url, "//whisper:") ||
		doc.Services["postgres"].Environment["POSTGRES_USER"] == "whisper" {
		t.Errorf("Whisper is the superuser that the image makes, at %s", url)
	}
	dockerfile, err := os.ReadFile(filepath.Join(root, "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	stages := strings.Split(string(dockerfile), "\nFROM ")
	if last := stages[len(stages)-1]; !strings.HasPrefix(last, "base\n") || strings.Contains(last, "COPY bin/") {
		t.Errorf("`docker build .` ends in a stage that is not built from source: %s", last)
	}
}
