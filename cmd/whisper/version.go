package main

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
)

// version is set by the build of a release (-ldflags "-X main.version=…").
var version = ""

type versionCmd struct {
	JSON bool `name:"json" help:"Print JSON."`
}

func (c *versionCmd) Run(_ context.Context, p *process) error {
	doc := buildVersion()
	if c.JSON {
		return printJSON(p.stdout, doc)
	}
	_, err := fmt.Fprintf(p.stdout, "whisper %s (%s, %s)\n", doc.Version, doc.Commit, doc.Go)
	return err
}

type versionDoc struct {
	Version string `json:"version"`
	Commit  string `json:"commit"`
	Go      string `json:"go"`
}

// buildVersion is what the linker or the toolchain noted.
func buildVersion() versionDoc {
	doc := versionDoc{Version: version, Commit: "unknown", Go: runtime.Version()}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return doc
	}
	if doc.Version == "" {
		doc.Version = info.Main.Version
	}
	changed := false
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			doc.Commit = s.Value[:min(12, len(s.Value))]
		case "vcs.modified":
			changed = s.Value == "true"
		}
	}
	if changed {
		doc.Commit += ", changed"
	}
	return doc
}
