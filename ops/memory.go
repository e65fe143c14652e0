package ops

import (
	"errors"
	"log/slog"
	"math"
	"os"
	"runtime/debug"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

// memoryShare is the part of a container's memory that the Go runtime may use: the rest is for what it does not count, the
// kernel's socket buffers and the program itself.
const memoryShare = 0.9

// unlimited: cgroups of version 1 have a number of their own for no limit, close to 2^63.
const unlimited = 1 << 60

// LimitMemory has the garbage collector keep the process under nine tenths of the memory that its container may have, so
// that a burst makes it collect more often rather than be killed. GOMEMLIMIT goes before it. It says in one line what
// holds. Call it once, at the start of a process.
func LimitMemory(log *slog.Logger) { limitMemory(log, memlimit.FromCgroup) }

func limitMemory(log *slog.Logger, container memlimit.Provider) {
	from := "GOMEMLIMIT"
	if os.Getenv("GOMEMLIMIT") == "" {
		from = limitTo(log, container)
	}
	limit := debug.SetMemoryLimit(-1)
	if limit == math.MaxInt64 {
		log.Info("memory is not limited", "by", from)
		return
	}
	log.Info("memory limit", "by", from, "bytes", limit)
}

func limitTo(log *slog.Logger, container memlimit.Provider) (from string) {
	limit, err := memlimit.ApplyRatio(container, memoryShare)()
	switch {
	case err == nil && limit < unlimited:
		debug.SetMemoryLimit(int64(limit))
		return "container"
	case err != nil && !errors.Is(err, memlimit.ErrNoLimit) && !errors.Is(err, memlimit.ErrNoCgroup) &&
		!errors.Is(err, memlimit.ErrCgroupsNotSupported):
		log.Warn("the container's memory limit can't be read; set GOMEMLIMIT", "error", err)
	}
	return "nothing"
}
