package roles

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
)

// TakePort listens; an error names the flag that chooses another address.
func TakePort(ctx context.Context, what, addr, flag string) (net.Listener, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%s: %s is in use: stop what listens there, or choose another address with %s", what, addr, flag)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w; choose another address with %s", what, err, flag)
	}
	return l, nil
}

// TakePorts takes all ports of a process, or none: then the error has a line for each that could not be taken.
func TakePorts(take ...func() (io.Closer, error)) ([]io.Closer, error) {
	var taken []io.Closer
	var errs []error
	for _, one := range take {
		port, err := one()
		if err != nil {
			errs = append(errs, err)
			continue
		}
		taken = append(taken, port)
	}
	if len(errs) == 0 {
		return taken, nil
	}
	for _, port := range taken {
		_ = port.Close() // nothing was served there
	}
	return nil, errors.Join(errs...)
}
