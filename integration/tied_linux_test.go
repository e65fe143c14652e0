package integration

import (
	"os/exec"
	"syscall"
)

// tie makes the process end with the test, even if the test is killed. It gives it its own process group, so that a
// Ctrl-C reaches only the test, which then ends the process.
func tie(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
