//go:build unix

package kafka

import (
	"errors"
	"syscall"
)

// signal sends a signal; a process that is gone is no error.
func signal(pid int, sig syscall.Signal) error {
	if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}
