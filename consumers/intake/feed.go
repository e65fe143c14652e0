package intake

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
)

// feed takes the records of one partition, in order, and commits behind the slowest of them.
type feed struct {
	role *Role
	mark *consumers.Watermark
	take func(context.Context, *receipt) error

	mu     sync.Mutex
	owed   int           // records handed to the publisher and not acknowledged yet
	idle   chan struct{} // closed when owed reaches zero, where somebody waits
	failed bool
}

// Handle takes records until the partition is about to go.
func (f *feed) Handle(ctx context.Context, records []*kgo.Record) error {
	for _, rec := range records {
		if ended(ctx) {
			return nil // the rest is handed out again
		}
		f.mark.Take(rec.Offset)
		if err := f.take(ctx, &receipt{feed: f, rec: rec}); err != nil {
			return err
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

func (f *feed) owe(n int) {
	f.mu.Lock()
	f.owed += n
	f.mu.Unlock()
}

func (f *feed) paid(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.owed--
	f.failed = f.failed || err != nil
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
	failed  atomic.Bool
	settled func() // optional, once everything is acknowledged
}

// write hands the n records that make gives over to the publisher. It returns early when the partition
// goes; the receipt is then never settled, and the record is handed out again.
func (r *receipt) write(ctx context.Context, n int, next func(i int) *kgo.Record) {
	r.left.Store(int64(n))
	done := r.done
	for i := range n {
		if ended(ctx) {
			return
		}
		r.feed.owe(1)
		r.feed.role.publisher.Publish(ctx, next(i), done)
	}
}

// refuse sends the record to the dead letters.
func (r *receipt) refuse(ctx context.Context, reason error) {
	r.left.Store(1)
	r.feed.owe(1)
	var invalid *domain.Invalid
	if errors.As(reason, &invalid) {
		reason = &consumers.Reason{Word: invalid.Word, Err: reason}
	}
	rec, reason := fitDeadLetter(r.rec, reason)
	r.feed.role.dead.Put(ctx, rec, reason, r.done)
}

// done counts acknowledgements; on an error the record stays unsettled, and the publisher ends the role.
func (r *receipt) done(err error) {
	if err != nil {
		r.failed.Store(true)
	}
	if r.left.Add(-1) == 0 && !r.failed.Load() {
		if r.settled != nil {
			r.settled()
		}
		r.feed.mark.Done(r.rec.Offset)
	}
	r.feed.paid(err)
}

// The dead-letter topic takes 4 MiB. A broker bounds what it is sent after compression, so upstream can
// write a record that is larger than that.
const (
	mostDeadLetter = 3 << 20
	keptDeadLetter = 1 << 20
)

// fitDeadLetter cuts what no dead letter can hold, and says so in the reason.
func fitDeadLetter(rec *kgo.Record, reason error) (*kgo.Record, error) {
	headers := 0
	for _, h := range rec.Headers {
		headers += len(h.Key) + len(h.Value)
	}
	if len(rec.Key)+len(rec.Value)+headers <= mostDeadLetter {
		return rec, reason
	}
	word := "invalid"
	var r *consumers.Reason
	if errors.As(reason, &r) {
		word = r.Word
	}
	part := *rec
	part.Key = rec.Key[:min(len(rec.Key), keptDeadLetter)]
	part.Value = rec.Value[:min(len(rec.Value), keptDeadLetter)]
	if headers > keptDeadLetter {
		part.Headers = nil
	}
	return &part, &consumers.Reason{Word: word, Err: fmt.Errorf(
		"%w (of its key of %d bytes, value of %d and headers of %d, this dead letter holds at most 1 MiB each)",
		reason, len(rec.Key), len(rec.Value), headers)}
}
