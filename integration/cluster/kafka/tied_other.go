//go:build unix && !linux

package kafka

import (
	"os/exec"
	"syscall"
)

// tie can't tie it here: a broker outlives a test that is killed with SIGKILL.
func tie(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
}
