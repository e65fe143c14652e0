package bench

import "syscall"

// childAttributes: roles end with the benchmark, also when that is killed. Each has a session of its own, as Kafka and
// Postgres have: Linux shares the cores out by session (autogroup), and would count all roles and the load as one.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGTERM}
}
