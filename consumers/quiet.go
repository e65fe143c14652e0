package consumers

import (
	"sync/atomic"
	"time"
)

// lingerBusy is how long a record of the way to the socket may wait for others under load. A request to
// Kafka costs the same for one record as for ten, on both sides: at 2,000 records a second this takes an
// eighth off the CPU of roles and broker, and with it more off the latency than it adds.
const lingerBusy = time.Millisecond

// Records are counted in windows. With fewer than quietRecords in this window and the one before, a
// record finds no company worth waiting for.
const (
	quietWindow  = 8 * time.Millisecond
	quietRecords = 10
)

// quiet tells whether records come so rarely that each should go at once. The count is approximate: two
// goroutines at the edge of a window may lose one of each other.
type quiet struct {
	window atomic.Int64 // its number
	now    atomic.Int32
	before atomic.Int32
}

// record counts one and says whether it is quiet.
func (q *quiet) record(at time.Time) bool {
	n := at.UnixNano() / int64(quietWindow)
	if old := q.window.Load(); n != old && q.window.CompareAndSwap(old, n) {
		last := q.now.Swap(0)
		if n != old+1 {
			last = 0
		}
		q.before.Store(last)
	}
	return q.now.Add(1)+q.before.Load() < quietRecords
}
