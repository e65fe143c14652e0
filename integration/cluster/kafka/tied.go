package kafka

import (
	"os/exec"
	"runtime"
)

// startTied starts a process that ends with this one, and reaps it. exited is closed when it is gone.
//
// The kernel ties a child to the thread that started it, not to the process, so that thread has to stay:
// the goroutine locks it and waits on it.
func startTied(cmd *exec.Cmd) (exited chan struct{}, err error) {
	exited = make(chan struct{})
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		tie(cmd)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended is in its output
			close(exited)
		}
	}()
	return exited, <-started
}
