package bench

import "syscall"

// childAttributes: roles end with the benchmark, also when that is killed.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
}
