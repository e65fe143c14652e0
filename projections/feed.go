package projections

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/semaphore"
)

// A feed reads the records of one partition and hands their facts to its writer.
type feed struct {
	src    *source
	writer *writer
	log    *slog.Logger
	meters *meters
	now    func() ages
	// leaves says which facts are not taken; nil: none.
	leaves func(fact) bool
	keep   time.Duration
	// missing are the offsets from one to another that the log had lost when the second was read; most gaps are none: control
	// records and aborted transactions have offsets as well.
	missing func(ctx context.Context, from, to int64) ([]gap, error)
	// room bounds the facts that are read but not written, over all partitions.
	room *semaphore.Weighted
	size int64
	// deadLetter keeps a record that is no fact.
	deadLetter func(ctx context.Context, rec *kgo.Record, reason error) error

	next    int64 // behind the last record that was handled
	begun   bool  // the first record was handled
	gaps    []gap // before it, and not handed over yet
	gone    atomic.Bool
	closed  func()         // nil: nobody wants to know
	pending sync.WaitGroup // chunks on their way
}

// maxChunk bounds the facts of a chunk, so that many partitions have their turn.
const maxChunk = 2_000

func (f *feed) Handle(ctx context.Context, records []*kgo.Record) error {
	for len(records) > 0 {
		n := min(len(records), maxChunk)
		if err := f.handle(ctx, records[:n]); err != nil {
			return err
		}
		records = records[n:]
	}
	return nil
}

func (f *feed) handle(ctx context.Context, records []*kgo.Record) error {
	now := f.now()
	if from, to := f.next, records[0].Offset; to > from && f.missing != nil {
		gaps, err := f.missing(ctx, from, to)
		if err != nil {
			return err
		}
		f.gaps = append(f.gaps, gaps...)
	}
	var begins *kgo.Record
	if !f.begun || len(f.gaps) > 0 {
		f.begun, begins = true, records[0]
	}
	facts := make([]fact, 0, len(records))
	for _, rec := range records {
		if rec.Offset < f.next {
			continue // handed out again
		}
		fa, err := decode(rec, now, f.keep)
		switch {
		case err == nil && f.leaves != nil && f.leaves(fa):
		case err == nil:
			facts = append(facts, fa)
		case errors.Is(err, errSkip):
		case errors.Is(err, errAged):
			f.meters.aged.Inc()
		default:
			f.log.Warn("a record is no fact, it goes to the dead letters",
				"topic", rec.Topic, "partition", rec.Partition, "offset", rec.Offset, "error", err)
			if err := f.deadLetter(ctx, rec, err); err != nil {
				return err
			}
		}
	}
	next := records[len(records)-1].Offset + 1
	if next <= f.next {
		return nil
	}
	f.next = next
	return f.put(ctx, facts, next, records[len(records)-1].Timestamp.UnixMilli(), begins)
}

// Passed implements consumers.Passer: the checkpoint moves past offsets that hold no record.
func (f *feed) Passed(ctx context.Context, next int64) error {
	if next <= f.next {
		return nil
	}
	f.next = next
	return f.put(ctx, nil, next, 0, nil)
}

func (f *feed) put(ctx context.Context, facts []fact, next, lastMs int64, begins *kgo.Record) error {
	weight := min(max(int64(len(facts)), 1), f.size)
	if err := f.room.Acquire(ctx, weight); err != nil {
		return err
	}
	f.pending.Add(1)
	done := func() {
		f.room.Release(weight)
		f.pending.Done()
	}
	c := &chunk{src: f.src, facts: facts, next: next, lastMs: lastMs, gaps: f.gaps, done: done}
	if begins != nil {
		c.begins.offset, c.begins.ms = begins.Offset, begins.Timestamp.UnixMilli()
	}
	if err := f.writer.put(ctx, c); err != nil {
		done()
		return err
	}
	f.gaps = nil
	return nil
}

// Close waits until what was handled is written. While Postgres is away nothing is waited for: what is
// dropped here is read again from the checkpoint, by whoever has the partition then.
func (f *feed) Close(ctx context.Context) error {
	if f.closed != nil {
		defer f.closed()
	}
	written := make(chan struct{})
	go func() {
		f.pending.Wait()
		close(written)
	}()
	f.writer.hasten()
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	for {
		select {
		case <-written:
			return nil
		case <-f.writer.failed:
			f.gone.Store(true)
			return nil
		case <-ctx.Done():
			f.gone.Store(true)
			return fmt.Errorf("what was read last is not in postgres yet: %w", ctx.Err())
		case <-look.C:
			if f.writer.down.Load() != nil || f.writer.stuck() {
				f.gone.Store(true)
				return nil
			}
		}
	}
}
