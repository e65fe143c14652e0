//go:build !linux

package gateway

import (
	"errors"
	"net"
)

// poller exists on Linux alone; elsewhere each connection has a goroutine.
type poller struct{}

func newPoller(func() int64) (*poller, error) { return nil, errors.ErrUnsupported }

func (*poller) run() error                             { return nil }
func (*poller) close()                                 {}
func (*poller) adopt(*session, net.Conn) (link, error) { return nil, errors.ErrUnsupported }

func pollable(net.Conn) bool { return false }
