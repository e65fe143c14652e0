package embedded

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"
)

// downloadVersion is what a machine without PostgreSQL gets: production's major version.
const downloadVersion = embeddedpostgres.V17

// oldestMajor is the oldest that Whisper's SQL is written for.
const oldestMajor = 15

// binaries is one installation of PostgreSQL: dir/bin/postgres and the rest.
type binaries struct {
	dir      string
	version  embeddedpostgres.PostgresVersion
	download bool // dir is not filled yet
}

func (b binaries) major() string {
	m, _, _ := strings.Cut(string(b.version), ".")
	return m
}

// completeMark is written beside downloaded binaries after they have run once; the library's own test
// is one file's existence, which an interrupted extraction passes.
const completeMark = "complete"

// chooseBinaries prefers what was downloaded before, then what the machine has, newest first, and only
// then the network. Data that is there was written by one major version and opens with no other:
// the library would erase it.
func chooseBinaries(ctx context.Context, cacheDir, dataMajor string) (binaries, error) {
	var all []binaries
	marks, _ := filepath.Glob(filepath.Join(cacheDir, "*", completeMark))
	slices.Reverse(marks)
	for _, m := range marks {
		dir := filepath.Dir(m)
		all = append(all, binaries{dir: dir, version: embeddedpostgres.PostgresVersion(filepath.Base(dir))})
	}
	all = append(all, localBinaries(ctx)...)
	for _, v := range []embeddedpostgres.PostgresVersion{
		downloadVersion, embeddedpostgres.V18, embeddedpostgres.V16, embeddedpostgres.V15,
	} {
		all = append(all, binaries{dir: filepath.Join(cacheDir, string(v)), version: v, download: true})
	}
	for _, b := range all {
		if dataMajor == "" || b.major() == dataMajor {
			return b, nil
		}
	}
	return binaries{}, fmt.Errorf("its data was written by PostgreSQL %s, which is not on this machine: "+
		"install that version, or remove the data folder",
		dataMajor)
}

func localBinaries(ctx context.Context) []binaries {
	var dirs []string
	for _, pattern := range []string{
		"/usr/lib/postgresql/*", "/usr/pgsql-*", // Debian, Red Hat
		"/opt/homebrew/opt/postgresql@*", "/usr/local/opt/postgresql@*", // Homebrew
	} {
		found, _ := filepath.Glob(pattern)
		dirs = append(dirs, found...)
	}
	slices.Reverse(dirs)
	if path, err := exec.LookPath("postgres"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil {
			dirs = append(dirs, filepath.Dir(filepath.Dir(path)))
		}
	}
	var all []binaries
	for _, dir := range dirs {
		if !hasPrograms(dir) {
			continue
		}
		v, err := serverVersion(ctx, dir)
		if err != nil {
			continue
		}
		b := binaries{dir: dir, version: v}
		if n, err := strconv.Atoi(b.major()); err == nil && n >= oldestMajor {
			all = append(all, b)
		}
	}
	return all
}

// hasPrograms tells a server's installation from a client's, which also has a bin.
func hasPrograms(dir string) bool {
	for _, name := range []string{"postgres", "initdb", "pg_ctl"} {
		if _, err := os.Stat(filepath.Join(dir, "bin", name)); err != nil {
			return false
		}
	}
	return true
}

// serverVersion reads the 15.18 of "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)".
func serverVersion(ctx context.Context, dir string) (embeddedpostgres.PostgresVersion, error) {
	out, err := exec.CommandContext(ctx, filepath.Join(dir, "bin", "postgres"), "--version").Output()
	if err != nil {
		return "", err
	}
	fields := strings.Fields(string(out))
	if len(fields) < 3 {
		return "", fmt.Errorf("%s/bin/postgres --version says %q", dir, out)
	}
	return embeddedpostgres.PostgresVersion(fields[2]), nil
}
