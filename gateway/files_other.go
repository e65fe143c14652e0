//go:build !unix

package gateway

import "math"

func fileLimit() uint64 { return math.MaxUint32 }
