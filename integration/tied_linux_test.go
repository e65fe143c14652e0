package integration

import (
	"os/exec"
	"syscall"
)

// tie has the process end with the test, also where the test is killed, and gives it a group of its own: a Ctrl-C is
// for the test, which then ends it.
func tie(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
