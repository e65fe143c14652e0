package consumers

import (
	"context"
	"errors"

	"golang.org/x/sync/errgroup"
)

// Loops are several loops of one role that run side by side.
type Loops []*Loop

// Run runs them all. It returns when each has ended; an error of one ends the others.
func (l Loops) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, loop := range l {
		g.Go(func() error { return loop.Run(ctx) })
	}
	return g.Wait()
}

// Ready is nil when each is, else all that they lack.
func (l Loops) Ready() error {
	var errs []error
	for _, loop := range l {
		errs = append(errs, loop.Ready())
	}
	return errors.Join(errs...)
}

// Stopped are the partitions that can't go on, and why.
func (l Loops) Stopped() (all []Stopped) {
	for _, loop := range l {
		all = append(all, loop.Stopped()...)
	}
	return all
}

// Retry tries the stopped partitions again now and says how many there are.
func (l Loops) Retry() (n int) {
	for _, loop := range l {
		n += loop.Retry()
	}
	return n
}
