package cli

import (
	"runtime"
	"runtime/debug"
)

// version is set by the build of a release (-ldflags "-X main.version=…").
var version = ""

// Build is what the linker or the toolchain noted about this program.
type Build struct {
	Version string `json:"version"`
	Commit  string `json:"commit"`
	Go      string `json:"go"`
}

// ThisBuild is what the linker or the toolchain noted.
func ThisBuild() Build {
	doc := Build{Version: version, Commit: "unknown", Go: runtime.Version()}
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
