//go:build !linux

package integration

import (
	"os/exec"
	"syscall"
)

// tie does nothing on this system: a role outlives a test that is killed with SIGKILL.
func tie(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
}
