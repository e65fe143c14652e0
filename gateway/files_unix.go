//go:build unix

package gateway

import (
	"math"
	"syscall"
)

// fileLimit is how many descriptors the process may have; Go raises the soft limit to the hard one at start.
func fileLimit() uint64 {
	var l syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l) != nil {
		return math.MaxUint32
	}
	return uint64(l.Cur)
}
