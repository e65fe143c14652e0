package consumers

import (
	"context"
	"time"
)

// Retry is how something that needs Kafka is tried again.
type Retry struct {
	// First is the wait after the first failure; it doubles up to Most.
	First, Most time.Duration
	// Over says that trying again can't help.
	Over func(error) bool
	// Tell is told of each failure after which it is tried again, and of the wait.
	Tell func(err error, next time.Duration)
}

// Do calls do until it succeeds, its error is over, or ctx ends, and returns its last error. It is called at least once.
func (r Retry) Do(ctx context.Context, do func() error) error {
	for wait := r.First; ; wait = min(2*wait, r.Most) {
		err := do()
		if err == nil || ctx.Err() != nil || r.Over(err) {
			return err
		}
		r.Tell(err, wait)
		select {
		case <-ctx.Done():
			return err
		case <-time.After(wait):
		}
	}
}
