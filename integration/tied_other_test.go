//go:build !linux

package integration

import (
	"os/exec"
	"syscall"
)

// tie can't tie it here: a role outlives a test that is killed with SIGKILL.
func tie(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
}
