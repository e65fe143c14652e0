//go:build unix

package embedded

import (
	"errors"
	"os"
	"syscall"
)

// errLocked: somebody else has the lock.
var errLocked = errors.New("locked by another process")

// ownSession starts a process in a session of its own: a Ctrl-C in the terminal is for its parent.
func ownSession() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }

// flock takes a lock that the kernel drops when this process ends; without wait it may be errLocked.
func flock(f *os.File, wait bool) error {
	how := syscall.LOCK_EX
	if !wait {
		how |= syscall.LOCK_NB
	}
	err := syscall.Flock(int(f.Fd()), how)
	if !wait && errors.Is(err, syscall.EWOULDBLOCK) {
		return errLocked
	}
	return err
}

func owner(fi os.FileInfo) (uid, gid int) {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return int(st.Uid), int(st.Gid)
	}
	return -1, -1
}

// becomeID gives up root for good.
func becomeID(uid, gid int) error {
	return errors.Join(syscall.Setgroups(nil), syscall.Setgid(gid), syscall.Setuid(uid))
}

// killHard ends a process at once; one that is gone is no error.
func killHard(pid int) error {
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}

// exists counts zombies, too.
func exists(pid int) bool { return !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }
