package kafka

import (
	"os/exec"
	"syscall"
)

// tie also gives the process a session of its own: a Ctrl-C is for the test, which then ends it.
func tie(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
}
