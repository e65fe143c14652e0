//go:build !linux

package integration

import "errors"

func ownMounts() {}

// disk can't be mounted on this system, so none is filled.
type disk string

func mountDisk(string) (disk, error) { return "", errors.New("only Linux has a disk in memory") }

func (d disk) fill() error { return errors.ErrUnsupported }
func (d disk) free() error { return errors.ErrUnsupported }
func (d disk) unmount()    {}

func family(pid int) []int { return []int{pid} }
