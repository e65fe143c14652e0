//go:build !unix

package kafka

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
)

// signal can only end a process here, whatever the signal; one that is gone is no error.
func signal(pid int, _ syscall.Signal) error {
	p, err := os.FindProcess(pid)
	if err != nil {
		return nil
	}
	if err := p.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// tie can't tie it here: a broker outlives a test that is killed.
func tie(*exec.Cmd) {}
