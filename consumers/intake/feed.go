package intake

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

// feed takes the records of one partition, in order, and commits behind the slowest of them.
type feed struct {
	role *Role
	part *consumers.Partition
	mark *consumers.Watermark
	take func(context.Context, *receipt) error
	out  *outlet
	work worker

	mu     sync.Mutex
	owed   int           // records handed to the publisher and not acknowledged yet
	idle   chan struct{} // closed when owed reaches zero, where somebody waits
	failed bool
}

// Handle takes records until the partition is about to go.
func (f *feed) Handle(ctx context.Context, records []*kgo.Record) error {
	defer f.work.end()
	for _, rec := range records {
		if !f.part.Await(ctx) || !f.work.begin(ctx) {
			return nil // the rest is handed out again
		}
		f.mark.Take(rec.Offset)
		err := consumers.Contain(func() error { return f.take(ctx, &receipt{feed: f, rec: rec}) })
		if bug := (*consumers.Panic)(nil); errors.As(err, &bug) {
			// There is no state that it could have broken. What of it was written before is told twice to nobody: ids.
			f.role.cfg.Logger.Error("a record met a bug, it goes to the dead letters", "topic", rec.Topic, "partition", rec.Partition,
				"offset", rec.Offset, "error", bug)
			(&receipt{feed: f, rec: rec}).refuse(ctx, &consumers.Reason{Word: "panic", Err: bug})
			continue
		}
		if err != nil {
			return err
		}
		if !f.work.did(ctx, len(rec.Value)) {
			return nil
		}
	}
	return nil
}

// ended: the partition is about to go, which is nobody's error.
func ended(ctx context.Context) bool { return ctx.Err() != nil }

// Close waits until all that was written is acknowledged.
func (f *feed) Close(ctx context.Context) error {
	f.mu.Lock()
	if f.owed == 0 {
		defer f.mu.Unlock()
		return f.result()
	}
	idle := make(chan struct{})
	f.idle = idle
	f.mu.Unlock()
	select {
	case <-idle:
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.result()
	case <-ctx.Done():
		return fmt.Errorf("wait for acknowledgements: %w", context.Cause(ctx))
	}
}

func (f *feed) result() error {
	if f.failed {
		return errors.New("some records could not be written")
	}
	return nil
}

func (f *feed) owe() {
	f.mu.Lock()
	f.owed++
	f.mu.Unlock()
}

func (f *feed) paid(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.owed--
	f.failed = f.failed || consumers.ReachOf(err) > consumers.ReachDelivery // else it is a dead letter
	if f.owed == 0 && f.idle != nil {
		close(f.idle)
		f.idle = nil
	}
}

// receipt is one record on its way: it is settled when all that follows from it is acknowledged.
type receipt struct {
	feed *feed
	rec  *kgo.Record

	left    atomic.Int64 // records still to be acknowledged
	settled func()       // optional, once everything is acknowledged

	mu      sync.Mutex
	failure error // the one that reaches furthest
}

// write hands the n records that make gives over to the publisher. It returns early when the partition
// goes; the receipt is then never settled, and the record is handed out again.
// Many records are written a slice at a time, and no more of them than the outlet has room for.
func (r *receipt) write(ctx context.Context, n int, next func(i int) *kgo.Record) {
	r.left.Add(int64(n))
	done := r.done
	for i := range n {
		if ended(ctx) {
			return
		}
		rec := next(i)
		if n > 1 {
			cost := costOf(rec)
			if !r.feed.work.did(ctx, int(cost)) || !r.room(ctx, cost) {
				return
			}
			done = func(err error) {
				r.feed.out.lists.Release(cost)
				r.done(err)
			}
		}
		r.feed.owe()
		r.feed.out.publisher.Publish(ctx, rec, done)
	}
}

// room waits until the outlet has room for so much of lists; false when ctx ended before.
func (r *receipt) room(ctx context.Context, cost int64) bool {
	lists := r.feed.out.lists
	if lists.TryAcquire(cost) {
		return true
	}
	var err error
	r.feed.work.apart(ctx, func() { err = lists.Acquire(ctx, cost) })
	return err == nil
}

// refusePart sends what of the record was not taken to the dead letters, besides what write writes; it counts among
// write's records, of which there must be one more.
func (r *receipt) refusePart(ctx context.Context, rest []byte, fields []string, reason *record.Invalid) {
	r.feed.owe()
	r.feed.out.dead.PutPart(ctx, r.rec, rest, fields, &consumers.Reason{Word: reason.Word, Err: reason}, r.done)
}

// refuse sends the record to the dead letters.
func (r *receipt) refuse(ctx context.Context, reason error) {
	r.left.Store(1)
	r.feed.owe()
	var invalid *record.Invalid
	if errors.As(reason, &invalid) {
		reason = &consumers.Reason{Word: invalid.Word, Err: reason}
	}
	r.feed.out.dead.Put(ctx, r.rec, reason, r.done)
}

// done counts acknowledgements. What can't be written because of what it is (too large) sends the record to the
// dead letters; any other error leaves it unsettled and stops the partition.
func (r *receipt) done(err error) {
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
	r.feed.paid(err)
}

//
//nolint:contextcheck // the publisher calls it, long after the context of Handle
func (r *receipt) finish() {
	r.mu.Lock()
	failure := r.failure
	r.mu.Unlock()
	switch reach := consumers.ReachOf(failure); {
	case failure == nil:
		if r.settled != nil {
			r.settled()
		}
		r.feed.mark.Done(r.rec.Offset)
	case reach <= consumers.ReachDelivery:
		again := &receipt{feed: r.feed, rec: r.rec}
		again.left.Store(1)
		r.feed.owe()
		// Elsewhere: the publisher, which calls this, must not wait for itself.
		go r.feed.out.dead.Put(context.Background(), r.rec, &consumers.Reason{Word: "too_large", Err: failure}, again.done)
	default:
		r.feed.part.Fail(failure)
	}
}
