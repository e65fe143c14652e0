package requests

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain/record"
)

// Writer writes what follows from the records of one partition. Its methods but Close belong to the partition's goroutine.
type Writer struct {
	Out  *Outlet
	Work Worker
	// Done is told of each record once all that follows from it is acknowledged; Fail why the partition can't go on.
	// Both from any goroutine.
	Done func(*Receipt)
	Fail func(error)

	mu     sync.Mutex
	owed   int           // records handed to the publisher and not acknowledged yet
	idle   chan struct{} // closed when owed reaches zero, where somebody waits
	failed bool
}

// Close waits until all that was written is acknowledged.
func (w *Writer) Close(ctx context.Context) error {
	w.mu.Lock()
	if w.owed == 0 {
		defer w.mu.Unlock()
		return w.result()
	}
	idle := make(chan struct{})
	w.idle = idle
	w.mu.Unlock()
	select {
	case <-idle:
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.result()
	case <-ctx.Done():
		return fmt.Errorf("wait for acknowledgements: %w", context.Cause(ctx))
	}
}

func (w *Writer) result() error {
	if w.failed {
		return errors.New("some records could not be written")
	}
	return nil
}

func (w *Writer) owe() {
	w.mu.Lock()
	w.owed++
	w.mu.Unlock()
}

func (w *Writer) paid(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.owed--
	w.failed = w.failed || consumers.ReachOf(err) > consumers.ReachDelivery // else it is a dead letter
	if w.owed == 0 && w.idle != nil {
		close(w.idle)
		w.idle = nil
	}
}

// Take takes one record. A panic sends it to the dead letters: there is no state that it could have broken, and what of it
// was written before is told twice to nobody, by its ids. Any other error of take is returned.
func (w *Writer) Take(ctx context.Context, rc *Receipt, take func(context.Context, *Receipt) error) (*consumers.Panic, error) {
	rc.writer = w
	err := consumers.Contain(func() error { return take(ctx, rc) })
	if bug := (*consumers.Panic)(nil); errors.As(err, &bug) {
		again := &Receipt{Record: rc.Record, writer: w}
		again.Refuse(ctx, &consumers.Reason{Word: "panic", Err: bug})
		return bug, nil
	}
	return nil, err
}

// Receipt is one record on its way: it is settled when all that follows from it is acknowledged.
type Receipt struct {
	Record *kgo.Record
	// Settled, where set, is called once everything is acknowledged.
	Settled func()

	writer *Writer
	left   atomic.Int64 // records still to be acknowledged

	mu      sync.Mutex
	failure error // the one that reaches furthest
}

// More says that so many more records than Write writes follow, by RefusePart.
func (r *Receipt) More(n int64) { r.left.Add(n) }

// Write hands the n records that next makes over to the publisher. It returns early when the partition
// goes; the receipt is then never settled, and the record is handed out again.
// Many records are written a slice at a time, and no more of them than the outlet has room for.
func (r *Receipt) Write(ctx context.Context, n int, next func(i int) *kgo.Record) {
	r.left.Add(int64(n))
	done := r.done
	w := r.writer
	for i := range n {
		if ctx.Err() != nil {
			return
		}
		rec := next(i)
		if n > 1 {
			cost := costOf(rec)
			if !w.Work.Did(ctx, int(cost)) || !r.room(ctx, cost) {
				return
			}
			done = func(err error) {
				w.Out.lists.Release(cost)
				r.done(err)
			}
		}
		w.owe()
		w.Out.Publisher.Publish(ctx, rec, done)
	}
}

// room waits until the outlet has room for so much of lists; false when ctx ended before.
func (r *Receipt) room(ctx context.Context, cost int64) bool {
	lists := r.writer.Out.lists
	if lists.TryAcquire(cost) {
		return true
	}
	var err error
	r.writer.Work.Apart(ctx, func() { err = lists.Acquire(ctx, cost) })
	return err == nil
}

// Nothing says that nothing follows from the record.
func (r *Receipt) Nothing() { r.finish() }

// RefusePart sends what of the record was not taken to the dead letters, besides what Write writes; it counts among
// the receipt's records (More).
func (r *Receipt) RefusePart(ctx context.Context, rest []byte, fields []string, reason *record.Invalid) {
	r.writer.owe()
	r.writer.Out.dead.PutPart(ctx, r.Record, rest, fields, &consumers.Reason{Word: reason.Word, Err: reason}, r.done)
}

// Refuse sends the record to the dead letters.
func (r *Receipt) Refuse(ctx context.Context, reason error) {
	r.left.Store(1)
	r.writer.owe()
	var invalid *record.Invalid
	if errors.As(reason, &invalid) {
		reason = &consumers.Reason{Word: invalid.Word, Err: reason}
	}
	r.writer.Out.dead.Put(ctx, r.Record, reason, r.done)
}

// done counts acknowledgements. What can't be written because of what it is (too large) sends the record to the
// dead letters; any other error leaves it unsettled and stops the partition.
func (r *Receipt) done(err error) {
	if err != nil {
		r.mu.Lock()
		if consumers.ReachOf(err) > consumers.ReachOf(r.failure) {
			r.failure = err
		}
		r.mu.Unlock()
	}
	if r.left.Add(-1) == 0 {
		r.finish()
	}
	r.writer.paid(err)
}

//
//nolint:contextcheck // the publisher calls it, long after the context of Handle
func (r *Receipt) finish() {
	r.mu.Lock()
	failure := r.failure
	r.mu.Unlock()
	switch reach := consumers.ReachOf(failure); {
	case failure == nil:
		if r.Settled != nil {
			r.Settled()
		}
		r.writer.Done(r)
	case reach <= consumers.ReachDelivery:
		again := &Receipt{Record: r.Record, writer: r.writer}
		again.left.Store(1)
		r.writer.owe()
		// Elsewhere: the publisher, which calls this, must not wait for itself.
		go r.writer.Out.dead.Put(context.Background(), r.Record, &consumers.Reason{Word: "too_large", Err: failure}, again.done)
	default:
		r.writer.Fail(failure)
	}
}
