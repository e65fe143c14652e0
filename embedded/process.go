package embedded

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// process is what the operating system reports about a process.
type process struct {
	pid, parent int
	state       string // Z is a zombie
	name        string
}

// alive is false for a zombie, too: the first process of a container need not reap the processes it inherits.
func alive(pid int) bool {
	if !exists(pid) {
		return false
	}
	for _, p := range processes(pid) {
		return !strings.HasPrefix(p.state, "Z")
	}
	return false
}

func isPostgres(pid int) bool {
	for _, p := range processes(pid) {
		return !strings.HasPrefix(p.state, "Z") && strings.Contains(p.name, "postgres")
	}
	return false
}

func childrenOf(pid int) []int {
	var pids []int
	for _, p := range processes(0) {
		if p.parent == pid {
			pids = append(pids, p.pid)
		}
	}
	return pids
}

// processes lists the one process, or all for 0. Linux has /proc, and slim images of it no ps.
func processes(pid int) []process {
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		return psProcesses(pid)
	}
	pattern := "/proc/[0-9]*/stat"
	if pid != 0 {
		pattern = filepath.Join("/proc", strconv.Itoa(pid), "stat")
	}
	paths, _ := filepath.Glob(pattern)
	var all []process
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // gone since
		}
		// 123 (name, with spaces even) S 1 …
		before, after, ok1 := strings.Cut(string(b), "(")
		i := strings.LastIndex(after, ")")
		if !ok1 || i < 0 {
			continue
		}
		p := process{name: after[:i]}
		_, err1 := fmt.Sscan(before, &p.pid)
		_, err2 := fmt.Sscan(after[i+1:], &p.state, &p.parent)
		if err1 == nil && err2 == nil {
			all = append(all, p)
		}
	}
	return all
}

func psProcesses(pid int) []process {
	args := []string{"-A"}
	if pid != 0 {
		args = []string{"-p", strconv.Itoa(pid)}
	}
	out, err := exec.CommandContext(context.Background(), "ps", append(args, "-o", "pid=,ppid=,stat=,comm=")...).Output()
	if err != nil {
		return nil
	}
	var all []process
	for line := range strings.Lines(string(out)) {
		var p process
		if n, _ := fmt.Sscan(line, &p.pid, &p.parent, &p.state, &p.name); n == 4 {
			all = append(all, p)
		}
	}
	return all
}
