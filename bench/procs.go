package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a role under measurement.
type process struct {
	name string
	args []string
	cmd  *exec.Cmd
	ops  string
	out  bytes.Buffer
	done chan struct{}
}

// startRole starts this very binary as a role and waits until it is ready.
func startRole(ctx context.Context, env []string, name string, args ...string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	return startRoleOf(ctx, self, env, name, args...)
}

// startRoleOf is startRole of another build of whisper.
func startRoleOf(ctx context.Context, program string, env []string, name string, args ...string) (*process, error) {
	p := &process{name: name, args: args, ops: freeAddr(), done: make(chan struct{})}
	args = append(slices.Clone(args), "--ops-addr", p.ops, "--log-level", "warn")
	p.cmd = exec.Command(program, args...) //nolint:noctx // it is stopped, not killed
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	p.cmd.SysProcAttr = childAttributes()
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		_ = p.cmd.Wait() // how it ended is told by its output
		close(p.done)
	}()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := p.get(ctx, "/readyz"); err == nil {
			return p, nil
		}
		select {
		case <-tick.C:
		case <-p.done:
			return nil, fmt.Errorf("%s ended: %s", name, p.out.String())
		case <-ctx.Done():
			p.stop()
			return nil, fmt.Errorf("%s is not ready: %w", name, ctx.Err())
		}
	}
}

func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(20 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// kill ends the process by SIGKILL, unless it has ended.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// cpuOf is the CPU time that a process has used, by the kernel's account (user and system).
func cpuOf(pid int) (time.Duration, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err == nil {
		var used time.Duration
		if used, err = cpuIn(raw); err == nil {
			return used, nil
		}
	}
	return 0, fmt.Errorf("read the CPU time of process %d: %w", pid, err)
}

// cpuIn reads the stat file of a process or a thread.
func cpuIn(stat []byte) (time.Duration, error) {
	// The second field is the name in parentheses and may hold anything.
	end := bytes.LastIndex(stat, []byte(") "))
	fields := strings.Fields(string(stat[end+1:]))
	if end < 0 || len(fields) < 13 {
		return 0, errors.New("unknown format")
	}
	var ticks int64
	for _, f := range fields[11:13] { // utime, stime
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / clockTicks, nil
}

// clockTicks a second: USER_HZ, which is 100 on every Linux that Go runs on.
const clockTicks = 100

func freeAddr() string {
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // loopback
	if err != nil {
		return "127.0.0.1:0"
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}
