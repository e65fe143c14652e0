package projections

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/projections/postgres"
)

// A writer gathers the chunks of many partitions and writes them in one transaction: the cost of a
// transaction is shared, and facts of one delivery that lie close together are folded before they reach
// Postgres. Of one user partition all chunks go to the same writer.
type writer struct {
	store  *store
	log    *slog.Logger
	limits limits
	meters *meters
	// deadLetter keeps a record that Postgres refuses; nil means it is kept.
	deadLetter func(ctx context.Context, rec *kgo.Record, reason error) error

	in     chan *chunk
	turn   chan struct{} // one token, of all writers: who holds it may write what is less than full
	hurry  chan struct{} // one token: somebody waits for what is gathered
	down   atomic.Pointer[error]
	failed chan struct{} // closed when run ended with an error
	busy   atomic.Int64  // Unix nanoseconds since when Postgres has a transaction; 0: it has none
	watch  *watch
	last   int  // facts of the transaction before
	gently bool // how the one in hand is written
}

// limits are when a writer stops gathering.
type limits struct {
	facts   int
	wait    time.Duration
	timeout time.Duration // of a transaction's first try; none where 0
}

// longestTimeouts is how many times as long as the first try a later one may take at most.
const longestTimeouts = 16

// busyFacts in a transaction say that much comes: then the next one gathers for busyWaits times as long. Beside a
// broadcast that took Postgres 13.8 CPU-seconds instead of 15.5 for a million facts; at rest nobody waits for it.
const (
	busyFacts = 1_000
	busyWaits = 4
)

// turnWait is how much longer a writer gathers at most while it waits for its turn: one that Postgres holds up does
// not hold up the others.
const turnWait = time.Second

func newWriter(s *store, log *slog.Logger, l limits, turn chan struct{}, m *meters,
	deadLetter func(context.Context, *kgo.Record, error) error,
) *writer {
	return &writer{
		store: s, log: log, limits: l, turn: turn, meters: m, deadLetter: deadLetter,
		watch: newWatch(), in: make(chan *chunk, 16), hurry: make(chan struct{}, 1), failed: make(chan struct{}),
	}
}

// errWriter is what feeds get when their writer ended; the writer's own error ends the role.
var errWriter = consumers.Reaching(consumers.ReachProcess, errors.New("the writer has ended"))

// put hands a chunk over. It blocks while the writer is behind, which pauses the partition.
func (w *writer) put(ctx context.Context, c *chunk) error {
	select {
	case w.in <- c:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-w.failed:
		return errWriter
	}
}

// hasten makes the writer write what it has.
func (w *writer) hasten() {
	select {
	case w.hurry <- struct{}{}:
	default:
	}
}

// run writes until ctx ends; it leaves nothing half-written. An error is one that only a person can mend.
func (w *writer) run(ctx context.Context) error {
	for {
		chunks, turn := w.gather(ctx)
		if chunks == nil {
			return nil
		}
		w.last, w.gently = weight(chunks), turn
		err := w.commit(ctx, chunks)
		if turn {
			<-w.turn
		}
		if err != nil && !ended(ctx) {
			close(w.failed)
			return postgres.Explain(err)
		}
	}
}

// gather waits for a chunk, then for more until there is enough, or it was long enough and no other writer writes.
// So writers that keep up write one after another, each a little more: all at once they would want every core, of
// Postgres and of ours, for the time of a transaction. Writers that have much to catch up write side by side. turn
// says that the turn is to be given back, and that there is time to write gently.
func (w *writer) gather(ctx context.Context) (chunks []*chunk, turn bool) {
	select {
	case c := <-w.in:
		chunks = append(chunks, c)
	case <-ctx.Done():
		return nil, false
	}
	wait := w.limits.wait
	if w.last >= busyFacts {
		wait *= busyWaits
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	var mine chan<- struct{} // nil: not yet
	for n := weight(chunks); n < w.limits.facts; {
		select {
		case c := <-w.in:
			chunks, n = append(chunks, c), n+len(c.facts)
		case <-w.hurry:
			return w.rest(chunks), false
		case <-timer.C:
			if mine != nil {
				return chunks, false
			}
			mine = w.turn
			timer.Reset(turnWait)
		case mine <- struct{}{}:
			return chunks, true
		case <-ctx.Done():
			return nil, false
		}
	}
	return chunks, false
}

// rest takes what is queued already.
func (w *writer) rest(chunks []*chunk) []*chunk {
	for {
		select {
		case c := <-w.in:
			chunks = append(chunks, c)
		default:
			return chunks
		}
	}
}

// commit writes chunks, however long Postgres is away. Chunks that are too many for one value that
// Postgres refuses are halved until it is found.
func (w *writer) commit(ctx context.Context, chunks []*chunk) error {
	var pause backoff
	retriedDay := false
	timeout := w.limits.timeout
	for {
		if chunks = drop(chunks); len(chunks) == 0 {
			return nil
		}
		err := w.try(ctx, chunks, timeout)
		if err == nil {
			w.up()
			w.committed(chunks)
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if missingDay(err) && !retriedDay {
			retriedDay = true
			w.store.forgetDays()
			continue
		}
		switch judge(err) {
		case lost:
			if err := w.lookAgain(ctx, chunks); err != nil && judge(err) == stop {
				return err
			}
		case poison:
			w.up()
			return w.bisect(ctx, chunks, err)
		case wait:
			if readOnly(err) {
				w.store.pool.Reset()
			}
			if errors.Is(err, context.DeadlineExceeded) {
				timeout = min(2*timeout, longestTimeouts*w.limits.timeout)
			}
			w.away(err)
			if err := pause.wait(ctx); err != nil {
				return err
			}
		case stop:
			return err
		}
	}
}

// try writes chunks once, within a time: a server that was stopped, or a network that lost the connection, says nothing at all.
func (w *writer) try(ctx context.Context, chunks []*chunk, timeout time.Duration) error {
	start := time.Now()
	w.busy.Store(start.UnixNano())
	defer w.busy.Store(0)
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	left, err := w.store.leaveOld(ctx, chunks)
	if err != nil {
		return err
	}
	w.meters.aged.Add(left)
	if err := w.store.ensureDays(ctx, daysOf(chunks)); err != nil {
		return err
	}
	if err := w.store.write(ctx, chunks, w.gently); err != nil {
		return err
	}
	w.meters.transactions.Inc()
	w.meters.seconds.UpdateDuration(start)
	return nil
}

// stuck says that Postgres has had a transaction for longer than it may be silent.
func (w *writer) stuck() bool {
	since := w.busy.Load()
	return since > 0 && time.Since(time.Unix(0, since)) > silentAfter
}

// drop leaves out chunks whose partition another process owns now.
func drop(chunks []*chunk) []*chunk {
	kept := chunks[:0:0]
	for _, c := range chunks {
		if c.src.gone() || c.next <= c.src.at {
			c.done()
			continue
		}
		kept = append(kept, c)
	}
	return kept
}

func (w *writer) committed(chunks []*chunk) {
	w.meters.facts.Add(weight(chunks))
	w.watch.commit()
	for _, c := range chunks {
		c.src.moveTo(max(c.src.at, c.next))
		c.src.lastMs.Store(max(c.src.lastMs.Load(), c.lastMs))
		c.done()
	}
}

// errBehind: the tables know less than this process has read, so that going on would leave a hole.
var errBehind = errors.New("the checkpoint in postgres went back (a restored backup?): start again to read on from it")

// lookAgain takes up the checkpoints as they are. What is before them is in the tables already.
func (w *writer) lookAgain(ctx context.Context, chunks []*chunk) error {
	all, err := w.store.checkpoints(ctx)
	if err != nil {
		return err
	}
	w.meters.conflicts.Inc()
	for _, c := range chunks {
		at, ok := all[c.src.topic][c.src.partition]
		if !ok || at < c.src.at {
			return &stopError{fmt.Errorf("%s/%d: %w", c.src.topic, c.src.partition, errBehind)}
		}
		if at > c.src.at {
			w.log.Info("records are in the tables already", "topic", c.src.topic, "partition", c.src.partition, "from", c.src.at, "to", at)
			c.src.moveTo(at)
		}
		c.from(at)
	}
	return nil
}

// stopError is an error of our own that only a person can mend.
type stopError struct{ error }

func (e *stopError) Unwrap() error { return e.error }

// bisect finds what Postgres refuses. Everything else is written.
func (w *writer) bisect(ctx context.Context, chunks []*chunk, reason error) error {
	if weight(chunks) > 1 {
		a, b := split(chunks)
		if err := w.commit(ctx, a); err != nil {
			return err
		}
		return w.commit(ctx, b)
	}
	for _, c := range chunks {
		for _, f := range c.facts {
			w.log.Error("postgres refuses a fact, it goes to the dead letters",
				"topic", f.rec.Topic, "partition", f.rec.Partition, "offset", f.rec.Offset, "error", reason)
			if err := w.deadLetter(ctx, f.rec, reason); err != nil {
				return err
			}
		}
		c.facts = nil // only the checkpoint moves
	}
	return w.commit(ctx, chunks)
}

// away and up log each change once.
func (w *writer) away(err error) {
	if w.down.Swap(&err) == nil {
		w.meters.up.Set(0)
		w.log.Warn("waiting for postgres, deliveries go on without it", "error", err)
	}
}

func (w *writer) up() {
	if w.down.Swap(nil) != nil {
		w.log.Info("postgres answers again")
	}
	w.meters.up.Set(1)
}
