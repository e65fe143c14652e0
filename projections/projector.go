package projections

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/migrations"
	"github.com/klivvr/whisper/projections/postgres"
)

// Projector is the role: it consumes the log and writes the tables. Any number may run.
type Projector struct {
	cfg       Config
	store     *store
	publisher *consumers.Publisher
	admin     *kadm.Client
	loop      *consumers.Loop
	meters    *meters
	writers   []*writer
	watch     *watch
	room      *semaphore.Weighted

	mu      sync.Mutex
	checked bool
}

// New makes a projector; Run starts it.
func New(cfg Config) (*Projector, error) {
	cfg.setDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	store, err := openStore(cfg.PostgresURL, migrations.Schema, int32(cfg.Writers)+spareConns)
	if err != nil {
		return nil, err
	}
	store.log = cfg.Logger
	p := &Projector{cfg: cfg, store: store, meters: newMeters(), watch: newWatch()}
	if p.publisher, err = consumers.NewPublisher(cfg.Kafka, consumers.LingerBulk); err != nil {
		store.close()
		return nil, err
	}
	if p.admin, err = cfg.Kafka.Admin(); err != nil {
		p.close()
		return nil, err
	}
	client := cfg.Kafka
	client.AcceptLoss = true // it is said and counted; tables without it are worth more than none
	p.loop, err = consumers.NewLoop(consumers.LoopConfig{
		Client:        client,
		Group:         Group,
		Topics:        topics(),
		CoPartitioned: true,
		Handler:       p,
		Starts:        p.starts,
		FetchMinBytes: fetchMinBytes,
		FetchMaxWait:  min(fetchMaxWait, max(cfg.BatchWait, 10*time.Millisecond)),
	})
	if err != nil {
		p.close()
		return nil, err
	}
	p.writers, p.room = newWriters(cfg, store, p.meters, p.deadLetter(consumers.NewDeadLetters(p.publisher, "project")))
	for _, w := range p.writers {
		w.watch = p.watch
	}
	return p, nil
}

// spareConns of a pool are for what goes on beside the writers: days, months, the watch, and asking whom somebody waits for.
const spareConns = 6

// What a broker gathers for one fetch, and for how long: facts are written to Postgres in batches, so nobody waits
// for a single one, and what a fetch costs, it costs by the request.
const (
	fetchMinBytes = 128 << 10
	fetchMaxWait  = 100 * time.Millisecond
)

func newWriters(cfg Config, s *store, m *meters, deadLetter func(context.Context, *kgo.Record, error) error) ([]*writer,
	*semaphore.Weighted,
) {
	writers := make([]*writer, cfg.Writers)
	turn := make(chan struct{}, 1)
	for i := range writers {
		writers[i] = newWriter(s, cfg.Logger, limits{cfg.BatchFacts, cfg.BatchWait, cfg.TransactionTimeout}, turn, m, deadLetter)
	}
	return writers, semaphore.NewWeighted(roomOf(cfg))
}

// roomOf lets each writer gather one batch while it writes another.
func roomOf(cfg Config) int64 { return int64(2 * cfg.Writers * cfg.BatchFacts) }

func (p *Projector) close() {
	p.store.close()
	p.publisher.Close()
	if p.admin != nil {
		p.admin.Close()
	}
}

func (p *Projector) deadLetter(d *consumers.DeadLetters) func(context.Context, *kgo.Record, error) error {
	return func(ctx context.Context, rec *kgo.Record, reason error) error {
		kept := make(chan error, 1)
		d.Put(ctx, rec, reason, func(err error) { kept <- err })
		select {
		case err := <-kept:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Run projects until ctx ends, then writes what it has read and leaves. It waits while Postgres is away,
// and returns an error where only a person can help.
func (p *Projector) Run(ctx context.Context) error {
	defer p.close()
	if err := p.awaitSchema(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	// The writers outlive the loop, which hands them its last chunks while it drains.
	writing, stopWriting := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWriting()
	g, ctx := errgroup.WithContext(ctx)
	for _, w := range p.writers {
		g.Go(func() error { return w.run(writing) })
	}
	g.Go(func() error { return p.maintain(ctx) })
	g.Go(func() error { return p.mergeMonths(ctx) })
	g.Go(func() error { return p.balance(ctx) })
	g.Go(func() error { return p.watching(ctx) })
	g.Go(func() error {
		defer stopWriting()
		err := p.loop.Run(ctx)
		if errors.Is(err, errWriter) {
			return nil // the writer says why
		}
		return err
	})
	return g.Wait()
}

// Stopped are the partitions that can't go on, and why.
func (p *Projector) Stopped() []consumers.Stopped { return p.loop.Stopped() }

// Retry tries the stopped partitions again now and says how many there are.
func (p *Projector) Retry() int { return p.loop.Retry() }

// patiently does something with Postgres until it succeeds, saying once that it waits. An error is one
// that waiting can't mend.
func (p *Projector) patiently(ctx context.Context, do func(context.Context) error) error {
	var pause backoff
	said := false
	for {
		err := do(ctx)
		switch {
		case err == nil:
			if said {
				p.cfg.Logger.Info("postgres answers")
			}
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case judge(err) != wait:
			return postgres.Explain(err)
		}
		if !said {
			said = true
			p.cfg.Logger.Warn("waiting for postgres, deliveries go on without it", "error", err)
		}
		if err := pause.wait(ctx); err != nil {
			return err
		}
	}
}

func (p *Projector) awaitSchema(ctx context.Context) error {
	err := p.patiently(ctx, func(ctx context.Context) error {
		err := migrations.Check(ctx, p.cfg.PostgresURL)
		var outdated *migrations.OutdatedError
		if errors.As(err, &outdated) {
			return &stopError{err}
		}
		return err
	})
	if err != nil {
		return err
	}
	if err := p.firstLook(ctx); err != nil {
		return err
	}
	p.mu.Lock()
	p.checked = true
	p.mu.Unlock()
	return nil
}

// firstLook opens a session as the writers have them, and sets the clocks before anything is called old.
func (p *Projector) firstLook(ctx context.Context) error {
	err := p.patiently(ctx, func(ctx context.Context) error {
		server, err := p.store.serverTime(ctx)
		if err == nil {
			p.watch.serverClock(p.cfg.Now(), server)
		}
		return err
	})
	if err != nil {
		return err
	}
	p.watch.answer()
	p.meters.up.Set(1)
	return nil
}

// ages are the clocks that facts are judged by.
func (p *Projector) ages() ages {
	own := p.cfg.Now()
	return ages{early: p.watch.now(own), late: own}
}

// starts says where each partition goes on: at the checkpoint, which the log must still reach.
func (p *Projector) starts(ctx context.Context, assigned map[string][]int32) (map[string]map[int32]int64, error) {
	starts, ends, err := bounds(ctx, p.admin.ListStartOffsets, p.admin.ListEndOffsets, slices.Collect(maps.Keys(assigned)))
	if err != nil {
		return nil, err
	}
	at := map[string]map[int32]int64{}
	err = p.patiently(ctx, func(ctx context.Context) error {
		known, err := p.store.checkpoints(ctx)
		if err != nil {
			return err
		}
		for topic, ids := range assigned {
			at[topic] = map[int32]int64{}
			for _, id := range ids {
				first, _ := starts.Lookup(topic, id)
				last, _ := ends.Lookup(topic, id)
				next, ok := known[topic][id]
				if at[topic][id], err = p.start(ctx, topic, id, next, ok, first.Offset, last.Offset); err != nil {
					return err
				}
			}
		}
		return nil
	})
	return at, err
}

// start judges one partition's checkpoint against the log, which holds first (inclusive) to last.
func (p *Projector) start(ctx context.Context, topic string, id int32, next int64, known bool, first, last int64) (int64, error) {
	switch {
	case !known:
		return first, p.store.begin(ctx, topic, id, first)
	case next > last:
		return 0, &stopError{fmt.Errorf(
			"the tables are ahead of Kafka: they hold %s/%d up to offset %d, the log ends at %d. Was the topic lost or made anew? "+
				"Restore it, or build the tables anew from what there is with `whisper project --rebuild`", topic, id, next, last,
		)}
	case next < first:
		// Some of these offsets may be of transaction markers, or of records that were aborted: what was removed can't be asked.
		p.cfg.Logger.Error("kafka removed offsets that the tables had not read, going on after them",
			"topic", topic, "partition", id, "first", next, "last", first-1, "offsets", first-next)
		consumers.RecordsLost(Group, topic).AddInt64(first - next)
		return first, p.store.skip(ctx, topic, id, next, first)
	default:
		return next, nil
	}
}

// list asks for one offset of every partition of topics.
type list func(ctx context.Context, topics ...string) (kadm.ListedOffsets, error)

// bounds are the log's first offsets and its ends: with ListEndOffsets the high watermarks, which no checkpoint may
// be above; with ListCommittedOffsets the last stable offsets, which is as far as anybody can read while a
// transaction is open. It waits while Kafka is away.
func bounds(ctx context.Context, first, last list, topics []string) (starts, ends kadm.ListedOffsets, err error) {
	var pause backoff
	for {
		if starts, err = first(ctx, topics...); err == nil {
			err = starts.Error()
		}
		if err == nil {
			if ends, err = last(ctx, topics...); err == nil {
				err = ends.Error()
			}
		}
		if err == nil {
			return starts, ends, nil
		}
		if consumers.IsFatal(err) || errors.Is(err, kerr.UnknownTopicOrPartition) || pause.wait(ctx) != nil {
			return nil, nil, fmt.Errorf("ask Kafka where the log starts and ends: %w", err)
		}
	}
}

// Open implements [consumers.Handler].
func (p *Projector) Open(_ context.Context, part *consumers.Partition) (consumers.Feed, error) {
	f := &feed{
		writer: p.writers[int(part.ID)%len(p.writers)], log: p.cfg.Logger, meters: p.meters,
		now: p.ages, keep: p.cfg.keep(), room: p.room, size: roomOf(p.cfg),
		deadLetter: p.writers[0].deadLetter, next: part.Start,
		missing: func(ctx context.Context, from, to int64) ([]gap, error) {
			return p.missing(ctx, part.Topic, part.ID, from, to)
		},
	}
	f.src = &source{topic: part.Topic, partition: part.ID, at: part.Start, gone: f.gone.Load, moved: part.Commit}
	f.src.written.Store(part.Start)
	p.watch.open(f)
	f.closed = func() { p.watch.close(f) }
	return f, nil
}

// missing asks how much of what was passed over lies before the start of the log.
func (p *Projector) missing(ctx context.Context, topic string, id int32, from, to int64) ([]gap, error) {
	starts, _, err := bounds(ctx, p.admin.ListStartOffsets, p.admin.ListEndOffsets, []string{topic})
	if err != nil {
		return nil, err
	}
	first, _ := starts.Lookup(topic, id)
	if first.Offset <= from {
		return nil, nil
	}
	return []gap{{from, min(first.Offset, to)}}, nil
}

// Lag returns how many offsets of the log are not in the tables yet, over the partitions of all projectors. Markers of transactions have
// offsets too.
func (p *Projector) Lag(ctx context.Context) (int64, error) {
	starts, ends, err := bounds(ctx, p.admin.ListStartOffsets, p.admin.ListCommittedOffsets, topics())
	if err != nil {
		return 0, err
	}
	known, err := p.store.checkpoints(ctx)
	if err != nil {
		return 0, err
	}
	var lag int64
	ends.Each(func(end kadm.ListedOffset) {
		first, _ := starts.Lookup(end.Topic, end.Partition)
		lag += max(end.Offset-max(known[end.Topic][end.Partition], first.Offset), 0)
	})
	return lag, nil
}

// maintainEvery is how often days are made and dropped, and counts merged.
const maintainEvery = 10 * time.Minute

// balanceEvery is how often balances are added up: what is there until then is what `conservation` looks at.
const balanceEvery = time.Minute

func (p *Projector) balance(ctx context.Context) error {
	tick := time.NewTicker(balanceEvery)
	defer tick.Stop()
	for {
		if err := p.store.mergeBalances(ctx); err != nil && !errors.Is(err, errElsewhere) && ctx.Err() == nil {
			p.cfg.Logger.Warn("could not add up the balances of notifications, trying again in a minute", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// maintain makes tomorrow's tables before they are needed, drops what is too old and merges counts. What it can't do
// now it does later; writing goes on without it.
func (p *Projector) maintain(ctx context.Context) error {
	tick := time.NewTicker(maintainEvery)
	defer tick.Stop()
	for {
		r := retention{days: p.cfg.RetentionDays, most: p.cfg.MaxDropDays, dropped: func(string) { p.meters.daysDropped.Inc() }}
		if err := p.store.maintain(ctx, p.ages().early, r); err != nil && !errors.Is(err, errElsewhere) && ctx.Err() == nil {
			p.cfg.Logger.Warn("could not create or drop daily tables, trying again in ten minutes", "error", err)
		}
		merged, err := p.store.mergeStats(ctx, p.ages().early.Add(-mergeAfter))
		p.meters.mergedRows.Add(int(merged))
		if err != nil && !errors.Is(err, errElsewhere) && ctx.Err() == nil {
			p.cfg.Logger.Warn("could not merge the counts of minutes, trying again in ten minutes", "error", err)
		}
		if err := p.store.analyze(ctx); err != nil && ctx.Err() == nil {
			p.cfg.Logger.Warn("could not analyze the tables, trying again in ten minutes", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// mergeMonths merges days that are old, which may take hours: beside maintain, which makes tomorrow's tables.
func (p *Projector) mergeMonths(ctx context.Context) error {
	tick := time.NewTicker(maintainEvery)
	defer tick.Stop()
	which := merging{keep: p.cfg.RetentionDays, daily: p.cfg.DailyDays, blocks: monthBlocks}
	for {
		merged, err := p.store.mergeMonths(ctx, p.ages().early, which)
		p.meters.mergedMonths.Add(merged)
		if err != nil && !errors.Is(err, errElsewhere) && ctx.Err() == nil {
			p.cfg.Logger.Warn("could not merge daily tables into monthly ones, going on in ten minutes", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
