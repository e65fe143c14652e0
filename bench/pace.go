package bench

import (
	"context"
	"time"
)

// pace calls send for every number as it falls due, perSecond of them, in ticks of a millisecond; it
// says when each was due. What is late is sent at once.
func pace(ctx context.Context, n, perSecond int, send func(i int, due time.Time)) error {
	begin := time.Now()
	gap := float64(time.Second) / float64(perSecond)
	for i := 0; i < n; {
		due := begin.Add(time.Duration(float64(i) * gap))
		if wait := time.Until(due); wait > 0 {
			select {
			case <-time.After(max(wait, time.Millisecond)):
			case <-ctx.Done():
				return ctx.Err()
			}
			continue
		}
		send(i, due)
		i++
	}
	return nil
}
