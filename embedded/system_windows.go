package embedded

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/windows"
)

// errLocked: somebody else has the lock.
var errLocked = errors.New("locked by another process")

// ownSession starts a process in a group of its own: a Ctrl-C in the terminal is for its parent.
func ownSession() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{CreationFlags: windows.CREATE_NEW_PROCESS_GROUP}
}

// flock takes a lock that the kernel drops when this process ends; without wait it may be errLocked. It locks a byte
// far behind the file's end: others could not read what is locked.
func flock(f *os.File, wait bool) error {
	how := uint32(windows.LOCKFILE_EXCLUSIVE_LOCK)
	if !wait {
		how |= windows.LOCKFILE_FAIL_IMMEDIATELY
	}
	err := windows.LockFileEx(windows.Handle(f.Fd()), how, 0, 1, 0, &windows.Overlapped{Offset: 1 << 30})
	if !wait && errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		return errLocked
	}
	return err
}

// owner: there is no root whose files others can't reach.
func owner(os.FileInfo) (uid, gid int) { return -1, -1 }

func becomeID(int, int) error { return errors.New("there are no user ids on Windows") }

// killHard ends a process at once; one that is gone is no error.
func killHard(pid int) error {
	p, err := os.FindProcess(pid)
	if err != nil {
		return nil
	}
	defer func() { _ = p.Release() }()
	if err := p.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

func exists(pid int) bool {
	p, err := os.FindProcess(pid)
	if err != nil {
		return false
	}
	_ = p.Release()
	return true
}
