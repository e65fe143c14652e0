//go:build !linux

package bench

import (
	"context"
	"errors"
	"io"
)

// RunSocketsFloor exists on Linux alone.
func RunSocketsFloor(context.Context, io.Reader, io.Writer) error {
	return errors.New("the floor of the sockets' benchmark runs on Linux alone")
}
