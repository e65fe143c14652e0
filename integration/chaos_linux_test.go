package integration

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
)

const mountsEnv = "WHISPER_TEST_OWN_MOUNTS" // set once this process has mounts of its own

// ownMounts gives a test run by root its own mount namespace, so that its mounts are private and end with it. It starts
// the process anew, since only a thread could change its own. If it is not allowed to, no disk is filled.
func ownMounts() {
	if os.Geteuid() != 0 || os.Getenv(mountsEnv) != "" {
		return
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	program, err := os.Executable()
	if err != nil || syscall.Unshare(syscall.CLONE_NEWNS) != nil {
		return
	}
	if err := syscall.Mount("none", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		fmt.Fprintln(os.Stderr, "integration: mounts of its own:", err)
		os.Exit(1)
	}
	fmt.Fprintln(os.Stderr, "integration: mounts of its own:", syscall.Exec(program, os.Args, append(os.Environ(), mountsEnv+"=1")))
	os.Exit(1)
}

// disk is a small file system in memory.
type disk string

const diskSize = 4 << 30

// mountDisk mounts a disk at an empty folder.
func mountDisk(folder string) (disk, error) {
	if os.Getenv(mountsEnv) == "" {
		return "", fmt.Errorf("this process may not mount")
	}
	if err := syscall.Mount("tmpfs", folder, "tmpfs", 0, fmt.Sprintf("mode=755,size=%d", diskSize)); err != nil {
		return "", fmt.Errorf("mount a disk: %w", err)
	}
	return disk(folder), nil
}

// fill leaves only some pages free; free restores the size.
func (d disk) fill() error {
	var st syscall.Statfs_t
	if err := syscall.Statfs(string(d), &st); err != nil {
		return err
	}
	// Writes in the meantime could make the disk smaller than its contents, which the kernel refuses.
	return d.resize((st.Blocks-st.Bfree)*uint64(st.Bsize) + 1<<20)
}

func (d disk) free() error { return d.resize(diskSize) }

func (d disk) resize(bytes uint64) error {
	return syscall.Mount("tmpfs", string(d), "tmpfs", syscall.MS_REMOUNT, fmt.Sprintf("size=%d", bytes))
}

func (d disk) unmount() { _ = syscall.Unmount(string(d), syscall.MNT_DETACH) }

// family returns a process and its children.
func family(pid int) []int {
	all := []int{pid}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return all
	}
	for word := range strings.FieldsSeq(string(b)) {
		if child, err := strconv.Atoi(word); err == nil {
			all = append(all, child)
		}
	}
	return all
}
