package dispatch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/decide"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// recalls reads whisper.events back for retractions: nobody keeps who was pushed to, so the facts are asked. One
// goroutine reads one partition at a time, whatever the process owns, so it takes a core at the most, and what came
// for the partition meanwhile is read together. It has a client of its own while it reads, since the role's reader
// holds up presence and heartbeats while a sink runs. What it finds waits for the partition's loop, a batch ahead.
//
// Nothing it does is kept: a retraction whose reading did not come to its end is read again by whoever has the
// partition next.
type recalls struct {
	client consumers.ClientConfig
	bounds *consumers.Reader // asked for offsets only
	log    *slog.Logger
	m      recallMetrics

	mu    sync.Mutex
	queue []*partition // that have something to read, each once
	asked map[*partition]map[string]recall
	wake  chan struct{} // one token: the queue is not empty
}

// recall is what a retraction asks for: the facts from a time on, before an offset.
type recall struct {
	from time.Time
	end  int64
}

type recallMetrics struct{ records, done, truncated *metrics.Counter }

// recallBatch is how many facts the loop takes at once, 0.5 ms of its time. recallSlack is how far upstream's clock,
// which the time of a notification is by, may be ahead of those that wrote the facts.
const (
	recallBatch = 128
	recallSlack = 5 * time.Minute
	recallLog   = 10 * time.Second
)

func newRecalls(client consumers.ClientConfig, bounds *consumers.Reader, log *slog.Logger) *recalls {
	return &recalls{
		client: client, bounds: bounds, log: log, asked: map[*partition]map[string]recall{}, wake: make(chan struct{}, 1),
		m: recallMetrics{
			records:   metrics.GetOrCreateCounter(`whisper_dispatch_recall_records_total`),
			done:      metrics.GetOrCreateCounter(`whisper_dispatch_recalls_total`),
			truncated: metrics.GetOrCreateCounter(`whisper_dispatch_recalls_truncated_total`),
		},
	}
}

// ask never blocks: the loop calls it. What is asked is bounded by the retractions that the partition holds.
func (r *recalls) ask(p *partition, o decide.Recall, end int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.asked[p] == nil {
		r.asked[p] = map[string]recall{}
		r.queue = append(r.queue, p)
	}
	r.asked[p][o.Notification] = recall{from: o.From, end: end}
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// forget drops what a partition that ended had asked for.
func (r *recalls) forget(p *partition) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.asked, p)
	r.queue = slices.DeleteFunc(r.queue, func(q *partition) bool { return q == p })
}

func (r *recalls) next() (*partition, map[string]recall) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.queue) == 0 {
		return nil, nil
	}
	p := r.queue[0]
	r.queue = r.queue[1:]
	notes := r.asked[p]
	delete(r.asked, p)
	return p, notes
}

// run reads what is asked for until ctx ends.
func (r *recalls) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.wake:
		}
		for p, notes := r.next(); p != nil && ctx.Err() == nil; p, notes = r.next() {
			if err := r.read(ctx, p, notes); err != nil {
				p.fail(fmt.Errorf("read the facts of partition %d back: %w", p.id, err))
			}
		}
	}
}

// read ends with the partition, which is no error: whoever gets it reads again.
func (r *recalls) read(ctx context.Context, p *partition, notes map[string]recall) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(p.ctx, cancel)() //nolint:contextcheck // it ends with the partition, too
	b := &readBack{recalls: r, part: p, notes: notes, began: time.Now()}
	b.logged = b.began
	err := b.run(ctx)
	if ctx.Err() != nil {
		return nil // the partition goes, or the process does
	}
	return err
}

// readBack is one reading of a partition.
type readBack struct {
	*recalls
	part  *partition
	notes map[string]recall

	next, end int64
	records   int64
	found     int
	lost      bool
	batch     []decide.Input
	began     time.Time
	logged    time.Time
}

func (b *readBack) run(ctx context.Context) error {
	if err := b.begin(ctx); err != nil {
		return err
	}
	if b.next < b.end {
		if err := b.consume(ctx); err != nil {
			return err
		}
	}
	for _, note := range slices.Sorted(maps.Keys(b.notes)) {
		b.batch = append(b.batch, decide.RecallRead{Notification: note})
	}
	if !b.hand(ctx) {
		return ctx.Err()
	}
	b.m.done.Add(len(b.notes))
	b.log.Info("facts were read back for retractions", "partition", b.part.id, "retractions", len(b.notes), "records", b.records,
		"pushes_found", b.found, "took", time.Since(b.began))
	return nil
}

// begin finds out where to read, and whether that is all of it.
func (b *readBack) begin(ctx context.Context) error {
	var from time.Time
	for _, n := range b.notes {
		if b.end = max(b.end, n.end); from.IsZero() || n.from.Before(from) {
			from = n.from
		}
	}
	from = from.Add(-recallSlack)
	start, _, err := b.bounds.Bounds(ctx, consumers.TopicEvents, b.part.id)
	if err != nil {
		return err
	}
	if b.next, err = b.bounds.Since(ctx, consumers.TopicEvents, b.part.id, from); err != nil {
		return err
	}
	if start > 0 && b.next <= start {
		b.truncated(from)
	}
	return nil
}

// truncated: who was pushed to before what is there now is not known any more.
func (b *readBack) truncated(from time.Time) {
	if b.lost {
		return
	}
	b.lost = true
	b.m.truncated.Add(len(b.notes))
	b.log.Warn("the log of facts begins after a retracted notification: pushes from before are not taken back",
		"partition", b.part.id, "retractions", len(b.notes), "from", from)
}

// recallPoll is how long nothing may come before it is looked at whether anything can.
const recallPoll = time.Second

func (b *readBack) consume(ctx context.Context) error {
	cl, err := kgo.NewClient(append(
		b.client.Options(),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{consumers.TopicEvents: {b.part.id: kgo.NewOffset().At(b.next)}}),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchMaxWait(recallPoll/2),
		kgo.MaxConcurrentFetches(1),
		kgo.KeepControlRecords(), // they move the position
	)...)
	if err != nil {
		return fmt.Errorf("kafka client: %w", err)
	}
	defer cl.Close()
	for b.next < b.end {
		poll, cancel := context.WithTimeout(ctx, recallPoll)
		fetches := cl.PollRecords(poll, 10_000)
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := b.failed(fetches); err != nil {
			return err
		}
		for _, big := range consumers.SkipOversized(cl, fetches) {
			b.next = max(b.next, big.NextOffset)
		}
		if fetches.NumRecords() > 0 {
			if !b.take(ctx, fetches) {
				return ctx.Err()
			}
			continue
		}
		if b.next, err = b.bounds.Passed(ctx, consumers.TopicEvents, b.part.id, b.next); err != nil {
			return err
		}
	}
	return nil
}

// failed is an error that trying again can't mend; the client does so with all others.
func (b *readBack) failed(fetches kgo.Fetches) (fatal error) {
	fetches.EachError(func(_ string, _ int32, err error) {
		switch loss := (*kgo.ErrDataLoss)(nil); {
		case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		case errors.As(err, &loss):
			b.truncated(b.began)
		case consumers.IsFatal(err):
			fatal = err
		default:
			b.log.Warn("read the facts back", "partition", b.part.id, "error", err)
		}
	})
	return fatal
}

// take looks at what came, and hands over what it finds. It says false when the reading is to end.
func (b *readBack) take(ctx context.Context, fetches kgo.Fetches) bool {
	// A hole within the log is none of records: markers have offsets, and so have aborted transactions.
	fetches.EachPartition(func(f kgo.FetchTopicPartition) {
		if len(f.Records) > 0 && min(f.LogStartOffset, f.Records[0].Offset) > b.next {
			b.truncated(f.Records[0].Timestamp)
		}
	})
	for it := fetches.RecordIter(); !it.Done(); {
		rec := it.Next()
		if rec.Offset >= b.end {
			b.next = b.end
			break
		}
		b.next = rec.Offset + 1
		if rec.Attrs.IsControl() {
			continue
		}
		b.records++
		b.m.records.Inc()
		if in, ok := b.fact(rec); ok {
			b.found++
			b.batch = append(b.batch, in)
		}
		if len(b.batch) == recallBatch && !b.hand(ctx) {
			return false
		}
	}
	if len(b.batch) > 0 && !b.hand(ctx) {
		return false
	}
	if now := time.Now(); now.Sub(b.logged) >= recallLog {
		b.logged = now
		b.log.Info("facts are being read back for retractions", "partition", b.part.id, "retractions", len(b.notes),
			"records", b.records, "left", b.end-b.next, "pushes_found", b.found)
	}
	return true
}

// fact is what a record says of a push of one of the notifications. What else it is, its header and its first bytes tell.
func (b *readBack) fact(rec *kgo.Record) (decide.Input, bool) {
	switch consumers.KindOfRecord(rec) {
	case "delivery_sent", "attempt_failed":
	default:
		return nil, false
	}
	if _, of := b.notes[string(notificationOf(rec.Value))]; !of {
		return nil, false
	}
	ev := &whisperv1.Event{}
	if err := proto.Unmarshal(rec.Value, ev); err != nil || !decide.MayHaveShown(ev) {
		return nil, false
	}
	return decide.FactRecalled{Event: ev, Cause: consumers.PositionOf(rec)}, true
}

// notificationOf finds the field notification_id of an Event without decoding the rest; nil where there is none.
func notificationOf(event []byte) []byte {
	const field = 2
	for len(event) > 0 {
		number, kind, n := protowire.ConsumeTag(event)
		if n < 0 {
			return nil
		}
		event = event[n:]
		if number == field && kind == protowire.BytesType {
			v, n := protowire.ConsumeBytes(event)
			if n < 0 {
				return nil
			}
			return v
		}
		if n = protowire.ConsumeFieldValue(number, kind, event); n < 0 {
			return nil
		}
		event = event[n:]
	}
	return nil
}

// hand gives the loop what was found, waiting for it to have taken what came before.
func (b *readBack) hand(ctx context.Context) bool {
	batch := b.batch
	b.batch = nil
	select {
	case b.part.recalled <- batch:
		b.part.mail.signal()
		return true
	case <-ctx.Done():
		return false
	}
}

// takeBack decides about a batch that was read back, where there is room for what comes of it: alerts come first.
func (p *partition) takeBack(now time.Time) (more bool) {
	if p.role.free() < laneRoom[domain.Low] || p.outstanding() > maxOutstanding {
		return false
	}
	select {
	case batch := <-p.recalled:
		for _, in := range batch {
			p.write(nil, p.state.Decide(in, now))
		}
		return true
	default:
		return false
	}
}
