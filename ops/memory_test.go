package ops

import (
	"bytes"
	"errors"
	"log/slog"
	"math"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

// The limit is the process's, so these are one test and not parallel.
func TestTheMemoryLimitIsTheContainers(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	t.Cleanup(func() { debug.SetMemoryLimit(before) })
	for _, c := range []struct {
		name      string
		env       string
		container memlimit.Provider
		want      int64
		said      string
	}{
		{"a container of 1 GB", "", memlimit.Limit(1_000_000_000), 900_000_000, "msg=\"memory limit\" by=container bytes=900000000"},
		{"GOMEMLIMIT goes before it", "700MiB", memlimit.Limit(1_000_000_000), 700 << 20, "by=GOMEMLIMIT bytes=734003200"},
		{"no limit", "", func() (uint64, error) { return 0, memlimit.ErrNoLimit }, math.MaxInt64, "memory is not limited"},
		{"no limit as an old kernel says it", "", memlimit.Limit(math.MaxInt64 &^ 0xfff), math.MaxInt64, "memory is not limited"},
		{"no container", "", func() (uint64, error) { return 0, memlimit.ErrNoCgroup }, math.MaxInt64, "memory is not limited"},
		{"unreadable", "", func() (uint64, error) { return 0, errors.New("broken") }, math.MaxInt64, "broken"},
	} {
		t.Setenv("GOMEMLIMIT", c.env)
		debug.SetMemoryLimit(math.MaxInt64)
		if c.env != "" {
			debug.SetMemoryLimit(c.want) // as the runtime does at its start
		}
		var said bytes.Buffer
		limitMemory(slog.New(slog.NewTextHandler(&said, nil)), c.container)
		if got := debug.SetMemoryLimit(-1); got != c.want {
			t.Errorf("%s: the limit is %d, not %d", c.name, got, c.want)
		}
		if !strings.Contains(said.String(), c.said) {
			t.Errorf("%s: it says %q, not %q", c.name, said.String(), c.said)
		}
		if strings.Contains(said.String(), "level=WARN") != (c.name == "unreadable") {
			t.Errorf("%s: %s", c.name, said.String())
		}
	}
}
