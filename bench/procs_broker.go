package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// What brokers used is reported in three parts: what they did for their clients, what the JVM compiled beside it, and what it
// collected. A young broker compiles for a minute, with most of a core; its compiler is no part of what a delivery costs.
const (
	cpuBroker    = "broker"
	cpuCompiler  = "broker compiler"
	cpuCollector = "broker collector"
	cpuLoad      = "load"
)

// ofRole: the CPU is that of one of Whisper's roles.
func ofRole(name string) bool { return name != cpuLoad && !strings.HasPrefix(name, cpuBroker) }

// addBroker adds the CPU time of a broker's threads. What threads used that have ended counts as the broker's own.
func addBroker(used map[string]time.Duration, pid int) error {
	all, err := cpuOf(pid)
	if err != nil {
		return err
	}
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil {
		return err
	}
	for _, file := range threads {
		raw, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		_, name, _ := strings.Cut(string(raw), "(")
		part := brokerPart(name)
		if part == cpuBroker {
			continue
		}
		d, err := cpuIn(raw)
		if err != nil {
			return fmt.Errorf("read the CPU time of a thread of process %d: %w", pid, err)
		}
		used[part] += d
		all -= d
	}
	used[cpuBroker] += max(all, 0)
	return nil
}

// brokerPart is what one of the JVM's threads works for, by its name, of which the kernel keeps 15 characters.
func brokerPart(thread string) string {
	switch {
	case strings.HasPrefix(thread, "C1 Compiler"), strings.HasPrefix(thread, "C2 Compiler"), strings.HasPrefix(thread, "Sweeper"):
		return cpuCompiler
	case strings.HasPrefix(thread, "G1 "), strings.HasPrefix(thread, "GC Thread"), strings.HasPrefix(thread, "VM Thread"):
		return cpuCollector
	}
	return cpuBroker
}
