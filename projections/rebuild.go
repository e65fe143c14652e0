package projections

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/migrations"
)

// The schemas of a rebuild: the one that is filled, and the one that was served before.
const (
	RebuildSchema = "whisper_rebuild"
	OldSchema     = "whisper_old"
)

// RebuildConfig says what a rebuild may do.
type RebuildConfig struct {
	Config
	// AllowTruncated lets the rebuild go on where Kafka has dropped records that the served tables hold:
	// the new tables begin later then. Without it the rebuild refuses.
	AllowTruncated bool
	// KeepOld leaves the schema that was served before as whisper_old, for a comparison; it is dropped by
	// the next rebuild.
	KeepOld bool
	// Progress is told, some times a second, how many records of how many are read.
	Progress func(done, total int64)
}

// Rebuild fills a schema beside the served one from everything that Kafka has, and swaps it in by
// renaming, in one transaction. The old tables are served and followed by running projectors meanwhile.
//
// While the names change, no projector writes. The swap comes only when the new tables are at least as
// far as the old in every partition, so a running projector finds its checkpoints moved ahead, skips
// what they cover, and goes on; it need not be told.
func Rebuild(ctx context.Context, cfg RebuildConfig) error {
	cfg.setDefaults()
	if err := cfg.Validate(); err != nil {
		return err
	}
	if err := migrations.Check(ctx, cfg.PostgresURL); err != nil {
		return explain(err)
	}
	r := &rebuild{cfg: cfg, feeds: map[string]map[int32]*feed{}, moved: make(chan struct{}, 1)}
	defer r.close()
	if err := r.open(ctx); err != nil {
		return explain(err)
	}
	return explain(r.run(ctx))
}

type rebuild struct {
	cfg      RebuildConfig
	old, new *store
	lock     *pgx.Conn // holds the session's locks
	admin    *kadm.Client
	client   *kgo.Client
	writers  []*writer
	feeds    map[string]map[int32]*feed

	mu    sync.Mutex
	at    map[string]map[int32]int64 // what the new tables have
	moved chan struct{}              // one token: at has changed
}

// errAnother: one rebuild at a time.
var errAnother = errors.New("another rebuild is running on this database")

const lockRebuild = -3

func (r *rebuild) open(ctx context.Context) (err error) {
	if r.old, err = openStore(r.cfg.PostgresURL, migrations.Schema, 2); err != nil {
		return err
	}
	if r.new, err = openStore(r.cfg.PostgresURL, RebuildSchema, int32(r.cfg.Writers)+spareConns); err != nil {
		return err
	}
	r.old.log, r.new.log = r.cfg.Logger, r.cfg.Logger
	if r.lock, err = pgx.Connect(ctx, r.cfg.PostgresURL); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	var alone bool
	if err := r.lock.QueryRow(ctx, "SELECT pg_try_advisory_lock($1, $2)", r.old.class, int32(lockRebuild)).Scan(&alone); err != nil {
		return fmt.Errorf("take the lock: %w", err)
	}
	if !alone {
		return errAnother
	}
	for _, left := range []string{RebuildSchema, OldSchema} {
		if _, err := r.lock.Exec(ctx, "DROP SCHEMA IF EXISTS "+left+" CASCADE"); err != nil {
			return fmt.Errorf("drop what an earlier rebuild left: %w", err)
		}
	}
	if err := migrations.UpSchema(ctx, r.cfg.PostgresURL, RebuildSchema, r.cfg.Logger); err != nil {
		return err
	}
	r.admin, err = r.cfg.Kafka.Admin()
	return err
}

func (r *rebuild) close() {
	if r.client != nil {
		r.client.Close()
	}
	if r.admin != nil {
		r.admin.Close()
	}
	if r.lock != nil {
		_ = r.lock.Close(context.Background()) // its locks end with it
	}
	for _, s := range []*store{r.old, r.new} {
		if s != nil {
			s.close()
		}
	}
}

func (r *rebuild) run(ctx context.Context) error {
	starts, ends, err := bounds(ctx, r.admin.ListStartOffsets, r.admin.ListCommittedOffsets, topics())
	if err != nil {
		return err
	}
	served, err := r.old.checkpoints(ctx)
	if err != nil {
		return err
	}
	if err := r.checkTruncated(starts, served); err != nil {
		return err
	}
	if err := r.follow(ctx, starts); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	for _, w := range r.writers {
		g.Go(func() error { return w.run(ctx) })
	}
	g.Go(func() error { return r.read(ctx) })
	g.Go(func() error {
		defer stop()
		return r.finish(ctx, starts, ends)
	})
	return g.Wait()
}

// checkTruncated compares what the log still has with what the served tables hold. A log that has lost
// its start can't give back what it began with.
func (r *rebuild) checkTruncated(starts kadm.ListedOffsets, served map[string]map[int32]int64) error {
	var gone int64
	starts.Each(func(o kadm.ListedOffset) { gone += min(o.Offset, served[o.Topic][o.Partition]) })
	switch {
	case gone == 0:
	case r.cfg.AllowTruncated:
		r.cfg.Logger.Warn("kafka has dropped records that the served tables hold, the new ones begin later", "records", gone)
	default:
		return fmt.Errorf("kafka has dropped %d records that the tables hold: the new tables would lack them; allow it with --allow-truncated", gone)
	}
	return nil
}

// follow reads every partition from its start.
func (r *rebuild) follow(ctx context.Context, starts kadm.ListedOffsets) error {
	m := newMeters()
	// What is no fact was put to the dead letters when it was first read.
	deadLetter := func(context.Context, *kgo.Record, error) error { return nil }
	writers, room := newWriters(r.cfg.Config, r.new, m, deadLetter)
	r.writers = writers
	r.at = map[string]map[int32]int64{}
	from := map[string]map[int32]kgo.Offset{}
	var err error
	starts.Each(func(o kadm.ListedOffset) {
		if err != nil {
			return
		}
		err = r.new.begin(ctx, o.Topic, o.Partition, o.Offset)
		if r.feeds[o.Topic] == nil {
			r.feeds[o.Topic], r.at[o.Topic], from[o.Topic] = map[int32]*feed{}, map[int32]int64{}, map[int32]kgo.Offset{}
		}
		f := &feed{
			writer: writers[int(o.Partition)%len(writers)], log: r.cfg.Logger, meters: m,
			now: func() ages { return ages{early: r.cfg.Now(), late: r.cfg.Now()} }, keep: r.cfg.keep(), room: room, size: roomOf(r.cfg.Config), deadLetter: deadLetter, next: o.Offset,
		}
		f.src = &source{topic: o.Topic, partition: o.Partition, at: o.Offset, gone: f.gone.Load, moved: r.movedTo(o.Topic, o.Partition)}
		r.feeds[o.Topic][o.Partition] = f
		r.at[o.Topic][o.Partition] = o.Offset
		from[o.Topic][o.Partition] = kgo.NewOffset().At(o.Offset)
	})
	if err != nil {
		return err
	}
	// Control records move the offset without being facts; the end of a partition may be one.
	r.client, err = kgo.NewClient(append(r.cfg.Kafka.Options(), kgo.ConsumePartitions(from), kgo.KeepControlRecords())...)
	if err != nil {
		return fmt.Errorf("kafka consumer: %w", err)
	}
	return nil
}

func (r *rebuild) movedTo(topic string, partition int32) func(int64) {
	return func(next int64) {
		r.mu.Lock()
		r.at[topic][partition] = next
		r.mu.Unlock()
		select {
		case r.moved <- struct{}{}:
		default:
		}
	}
}

func (r *rebuild) read(ctx context.Context) error {
	for {
		fetches := r.client.PollRecords(ctx, 10_000)
		if ended(ctx) {
			return nil
		}
		for _, e := range fetches.Errors() {
			if consumers.IsFatal(e.Err) {
				return fmt.Errorf("read %s/%d: %w", e.Topic, e.Partition, e.Err)
			}
		}
		var err error
		for _, big := range consumers.SkipOversized(r.client, fetches) { // its dead letter is the projector's
			if err == nil {
				err = r.feeds[big.Topic][big.Partition].Passed(ctx, big.NextOffset)
			}
		}
		fetches.EachPartition(func(p kgo.FetchTopicPartition) {
			if err == nil && len(p.Records) > 0 {
				err = r.feeds[p.Topic][p.Partition].Handle(ctx, p.Records)
			}
		})
		switch {
		case err == nil:
		case ended(ctx), errors.Is(err, errWriter):
			return nil // whoever ended it says why
		default:
			return err
		}
	}
}

// closeEnough is how many records the new tables may be behind when projectors are made to wait: about a
// second of work.
const closeEnough = 20_000

// finish waits until the new tables have caught up, then swaps.
func (r *rebuild) finish(ctx context.Context, starts, ends kadm.ListedOffsets) error {
	targets := map[string]map[int32]int64{}
	ends.Each(func(o kadm.ListedOffset) {
		if targets[o.Topic] == nil {
			targets[o.Topic] = map[int32]int64{}
		}
		targets[o.Topic][o.Partition] = o.Offset
	})
	var total int64
	ends.Each(func(end kadm.ListedOffset) {
		start, _ := starts.Lookup(end.Topic, end.Partition)
		total += end.Offset - start.Offset
	})
	for {
		if err := r.reach(ctx, targets, total); err != nil {
			return err
		}
		served, err := r.old.checkpoints(ctx)
		if err != nil {
			return err
		}
		if r.behind(served) <= closeEnough {
			break
		}
		targets = served
	}
	return r.swap(ctx)
}

// reach waits until the new tables have every target.
func (r *rebuild) reach(ctx context.Context, targets map[string]map[int32]int64, total int64) error {
	for {
		behind := r.behind(targets)
		if r.cfg.Progress != nil {
			r.cfg.Progress(max(total-behind, 0), total)
		}
		if behind == 0 {
			return nil
		}
		select {
		case <-r.moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (r *rebuild) behind(targets map[string]map[int32]int64) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	var n int64
	for topic, parts := range targets {
		for id, target := range parts {
			at, followed := r.at[topic][id]
			if followed { // a checkpoint of a partition that the log does not have holds up nothing
				n += max(target-at, 0)
			}
		}
	}
	return n
}

// swap makes projectors wait, reads on to where they stand, and renames.
func (r *rebuild) swap(ctx context.Context) error {
	if _, err := r.lock.Exec(ctx, "SELECT pg_advisory_lock($1, $2)", r.old.class, int32(lockSwap)); err != nil {
		return fmt.Errorf("make projectors wait: %w", err)
	}
	served, err := r.old.checkpoints(ctx)
	if err != nil {
		return err
	}
	for _, w := range r.writers {
		w.hasten()
	}
	if err := r.reach(ctx, served, 0); err != nil {
		return err
	}
	err = pgx.BeginFunc(ctx, r.lock, func(tx pgx.Tx) error {
		for _, sql := range []string{
			"ALTER SCHEMA " + migrations.Schema + " RENAME TO " + OldSchema,
			"ALTER SCHEMA " + RebuildSchema + " RENAME TO " + migrations.Schema,
		} {
			if _, err := tx.Exec(ctx, sql); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("swap the schemas: %w", err)
	}
	if _, err := r.lock.Exec(ctx, "SELECT pg_advisory_unlock($1, $2)", r.old.class, int32(lockSwap)); err != nil {
		return fmt.Errorf("let projectors go on: %w", err)
	}
	r.cfg.Logger.Info("the rebuilt tables are served")
	if r.cfg.KeepOld {
		return nil
	}
	if _, err := r.lock.Exec(ctx, "DROP SCHEMA "+OldSchema+" CASCADE"); err != nil {
		return fmt.Errorf("drop the old tables: %w", err)
	}
	return nil
}
