package gateway

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// receipts holds back delivery_sent for a moment: most acknowledgements come within a few milliseconds,
// and then one fact tells both. The hold is the same for all, so a queue in order of arrival and one
// timer serve any number.
//
// How long it is follows the acknowledgements. One that came after its delivery_sent has cost a fact that could have been
// saved, a record that dispatch and the projector read as well. In a broadcast to thousands who answer at once,
// that is most of them where the hold stays what suits a quiet hour.
type receipts struct {
	least, most time.Duration
	now         func() int64
	after       atomic.Int64 // the hold; two changes at once may lose one, which harms nobody

	mu   sync.Mutex
	held []held
	head int
	last int64 // the latest due
	wake chan struct{}
}

const (
	// holdTimes and holdMost bound the hold, in least ones and absolutely: the fact of a delivery that nobody acknowledges is
	// late by a second, far within what dispatch waits for an acknowledgement.
	holdTimes = 20
	holdMost  = time.Second
	// Of ten acknowledgements one may come too late: one late one lengthens the hold as much as nine others shorten it.
	holdLonger, holdShorter = 1 + 9./512, 1 - 1./512
)

type held struct {
	d   *delivery
	due int64
}

// keptReceipts is the room that is kept for the next ones: 256 KiB.
const keptReceipts = 16 << 10

// receiptGrain: how late a fact may be at most, to wake up less often.
const receiptGrain = 2 * time.Millisecond

func newReceipts(hold time.Duration, now func() int64) *receipts {
	least := max(hold, 0)
	r := &receipts{least: least, most: max(least, min(holdTimes*least, holdMost)), now: now, wake: make(chan struct{}, 1)}
	r.after.Store(int64(r.least))
	return r
}

// answered adjusts the hold to a client's acknowledgement: took is how long after the sending it came, and told says that the
// fact of the sending was already written. An acknowledgement after r.most is ignored, since no hold would have waited for it.
func (r *receipts) answered(took time.Duration, told bool) {
	if took > r.most {
		return
	}
	after, change := float64(r.after.Load()), holdShorter
	if told {
		change = holdLonger
	}
	r.after.Store(int64(min(max(after*change, float64(r.least)), float64(r.most))))
}

func (r *receipts) hold(d *delivery) {
	due := r.now() + r.after.Load()
	r.mu.Lock()
	due = max(due, r.last) // they are in order of it
	r.last = due
	r.held = append(r.held, held{d, due})
	first := len(r.held)-r.head == 1
	r.mu.Unlock()
	if first {
		select {
		case r.wake <- struct{}{}:
		default:
		}
	}
}

// receiptLag is how much later than meant a receipt may be until no more deliveries are handed over.
const receiptLag = time.Second

// overdue: Kafka takes no facts, or more slowly than deliveries come.
func (r *receipts) overdue() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.head < len(r.held) && r.now()-r.held[r.head].due > int64(receiptLag)
}

func (r *receipts) waiting() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.held) - r.head
}

// run publishes what was held long enough, until ctx ends; flush publishes the rest.
func (r *receipts) run(ctx context.Context) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.wake:
		case <-timer.C:
		}
		if next := r.publish(r.now()); next > 0 {
			timer.Reset(max(time.Duration(next-r.now()), receiptGrain))
		}
	}
}

func (r *receipts) flush() { r.publish(1<<63 - 1) }

// publish tells all that are due and returns when the next one is; 0: none.
func (r *receipts) publish(now int64) (next int64) {
	for {
		d, next := r.pop(now)
		if d == nil {
			return next
		}
		d.sentFact()
	}
}

func (r *receipts) pop(now int64) (d *delivery, next int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.head == len(r.held) {
		if r.held, r.head = r.held[:0], 0; cap(r.held) > keptReceipts {
			r.held = nil // a burst is over
		}
		return nil, 0
	}
	if due := r.held[r.head].due; due > now {
		return nil, due
	}
	d = r.held[r.head].d
	r.held[r.head] = held{}
	r.head++
	if r.head > 1024 && r.head*2 > len(r.held) {
		n := copy(r.held, r.held[r.head:])
		clear(r.held[n:])
		r.held, r.head = r.held[:n], 0
	}
	return d, 0
}
