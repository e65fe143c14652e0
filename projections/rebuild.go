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
	"github.com/klivvr/whisper/projections/postgres"
)

// The schemas of a rebuild: the one that is filled, and the one that takes what was served before.
const (
	RebuildSchema = "whisper_rebuild"
	OldSchema     = "whisper_old"
)

// RebuildConfig says what a rebuild may do.
type RebuildConfig struct {
	Config
	// AllowTruncated builds the tables from the log alone, where Kafka has removed records that the served ones hold: the new tables
	// begin later then. Without it, days of which the log no longer has everything stay as they are.
	AllowTruncated bool
	// KeepOld leaves what was served before in the schema whisper_old, for a comparison: the tables of each day that was rebuilt. It is
	// dropped by the next rebuild.
	KeepOld bool
	// Progress is told, some times a second, how many offsets of how many are read.
	Progress func(done, total int64)
}

// Rebuild fills tables beside the served ones from everything that Kafka has, and swaps the days of both. The old
// tables are served and followed by running projectors meanwhile. Days of which the log no longer has all facts stay as
// they are, and so does who was erased before it begins.
//
// While days change places, no projector writes. The new tables are read exactly as far as the old ones are in every
// partition, so both are the same fold, and a running projector goes on; it need not be told.
func Rebuild(ctx context.Context, cfg RebuildConfig) error {
	cfg.setDefaults()
	if err := cfg.Validate(); err != nil {
		return err
	}
	if err := migrations.Check(ctx, cfg.PostgresURL); err != nil {
		return postgres.Explain(err)
	}
	r := newRebuild(cfg)
	defer r.close()
	if err := r.connect(ctx); err != nil {
		return postgres.Explain(err)
	}
	if err := r.open(ctx); err != nil {
		return postgres.Explain(err)
	}
	return postgres.Explain(r.run(ctx))
}

type rebuild struct {
	cfg          RebuildConfig
	old, new     *store
	lock         *pgx.Conn // holds the session's locks
	admin        *kadm.Client
	client       *kgo.Client
	writers      []*writer
	feeds        map[string]map[int32]*feed
	starts, ends kadm.ListedOffsets
	ahead        map[string]map[int32]bool // partitions whose checkpoint the log does not reach
	lost         int64
	carried      map[int32]bool  // days that stay as they are
	swapped      map[string]bool // daily tables that are served already
	interrupted  bool            // a swap that takes more than one transaction has begun
	daysAtOnce   int             // of a swap; 0: as many as Postgres has locks for

	mu    sync.Mutex
	at    map[string]map[int32]int64 // what the new tables have
	moved chan struct{}              // one token: at has changed

	handing sync.Mutex
	limits  map[string]map[int32]int64         // how far the new tables may be read
	held    map[string]map[int32][]*kgo.Record // what was read from there on
}

func newRebuild(cfg RebuildConfig) *rebuild {
	return &rebuild{
		cfg: cfg, feeds: map[string]map[int32]*feed{}, moved: make(chan struct{}, 1),
		ahead: map[string]map[int32]bool{}, carried: map[int32]bool{}, swapped: map[string]bool{},
		limits: map[string]map[int32]int64{}, held: map[string]map[int32][]*kgo.Record{},
	}
}

// errAnother: one rebuild at a time.
var errAnother = errors.New("another rebuild is running on this database")

const lockRebuild = -3

func (r *rebuild) connect(ctx context.Context) (err error) {
	if r.old, err = openStore(r.cfg.PostgresURL, migrations.Schema, 3); err != nil {
		return err
	}
	if r.new, err = openStore(r.cfg.PostgresURL, RebuildSchema, int32(r.cfg.Writers)+spareConns); err != nil {
		return err
	}
	r.old.log, r.new.log = r.cfg.Logger, r.cfg.Logger
	if r.lock, err = pgx.Connect(ctx, r.cfg.PostgresURL); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	r.admin, err = r.cfg.Kafka.Admin()
	return err
}

func (r *rebuild) open(ctx context.Context) error {
	var alone bool
	if err := r.lock.QueryRow(ctx, "SELECT pg_try_advisory_lock($1, $2)", r.old.class, int32(lockRebuild)).Scan(&alone); err != nil {
		return fmt.Errorf("take the lock: %w", err)
	}
	if !alone {
		return errAnother
	}
	for _, left := range []string{RebuildSchema, OldSchema} {
		if err := dropSchema(ctx, r.lock, left); err != nil {
			return fmt.Errorf("drop what an earlier rebuild left: %w", err)
		}
	}
	if err := migrations.UpSchema(ctx, r.cfg.PostgresURL, RebuildSchema, r.cfg.Logger); err != nil {
		return err
	}
	if _, err := r.lock.Exec(ctx, "CREATE SCHEMA "+OldSchema); err != nil {
		return fmt.Errorf("make room for the old tables: %w", err)
	}
	if err := r.adopt(ctx); err != nil {
		return fmt.Errorf("prepare the new tables: %w", err)
	}
	if err := r.plan(ctx); err != nil {
		return err
	}
	return r.refuseDependents(ctx)
}

// adopt makes the new tables such that their days fit the served ones: of the served type, under no view; and gives them who was erased.
func (r *rebuild) adopt(ctx context.Context) error {
	rows, err := r.lock.Query(ctx, `
		SELECT format('DROP VIEW IF EXISTS %I.%I CASCADE', $1::text, relname) FROM pg_class
		WHERE relnamespace = to_regnamespace($1) AND relkind = 'v'
		UNION ALL
		(SELECT format('ALTER TABLE %I.%I ALTER COLUMN %I TYPE %I.delivery_status USING %3$I::text::%4$I.delivery_status',
			$1::text, c.relname, a.attname, $2::text)
		FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid
		WHERE c.relnamespace = to_regnamespace($1) AND c.relkind = 'p' AND NOT a.attisdropped
			AND a.atttypid = to_regtype(format('%I.delivery_status', $1::text)))`,
		RebuildSchema, migrations.Schema)
	if err != nil {
		return err
	}
	sqls, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	for _, sql := range append(
		sqls,
		r.new.sql("DELETE FROM $.erasure_keys"),
		r.new.sql("INSERT INTO $.erasure_keys SELECT * FROM ")+r.old.sql("$.erasure_keys"),
		r.new.sql("INSERT INTO $.erasures SELECT * FROM ")+r.old.sql("$.erasures"),
	) {
		if _, err := r.lock.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
	}
	return nil
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
	switch {
	case r.lost > 0 && r.cfg.AllowTruncated:
		r.cfg.Logger.Warn("kafka no longer has the beginning of what the served tables hold, the new ones begin later", "offsets", r.lost)
	case r.lost > 0:
		r.cfg.Logger.Info("kafka no longer has the beginning of what the served tables hold, its days stay as they are", "offsets", r.lost,
			"days", len(r.carried))
	}
	served, err := r.served(ctx)
	if err != nil {
		return err
	}
	if err := r.follow(ctx); err != nil {
		return err
	}
	r.limits = served
	g, ctx := errgroup.WithContext(ctx)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	for _, w := range r.writers {
		g.Go(func() error { return w.run(ctx) })
	}
	g.Go(func() error { return r.read(ctx) })
	g.Go(func() error {
		defer stop()
		return r.finish(ctx, served)
	})
	return g.Wait()
}

// leaves says that a fact belongs to a day that is carried over, which has it. A dropped duplicate may be of another
// day than the delivery that it names; what it adds to a day that is carried over is not served.
func (r *rebuild) leaves(f fact) bool {
	if f.timeless() || f.ev.GetUserErased() != nil || f.ev.GetDuplicateDropped() != nil {
		return false
	}
	return r.carried[factDay(f)]
}

// follow reads every partition from its start.
func (r *rebuild) follow(ctx context.Context) error {
	m := newMeters()
	// What is no fact was put to the dead letters when it was first read.
	deadLetter := func(context.Context, *kgo.Record, error) error { return nil }
	writers, room := newWriters(r.cfg.Config, r.new, m, deadLetter)
	r.writers = writers
	r.at = map[string]map[int32]int64{}
	from := map[string]map[int32]kgo.Offset{}
	var err error
	r.starts.Each(func(o kadm.ListedOffset) {
		if err != nil {
			return
		}
		err = r.new.begin(ctx, o.Topic, o.Partition, o.Offset)
		if r.feeds[o.Topic] == nil {
			r.feeds[o.Topic], r.at[o.Topic] = map[int32]*feed{}, map[int32]int64{}
			from[o.Topic], r.held[o.Topic] = map[int32]kgo.Offset{}, map[int32][]*kgo.Record{}
		}
		f := &feed{
			writer: writers[int(o.Partition)%len(writers)], log: r.cfg.Logger, meters: m,
			now: func() ages { return ages{early: r.cfg.Now(), late: r.cfg.Now()} }, keep: r.cfg.keep(),
			room: room, size: roomOf(r.cfg.Config), deadLetter: deadLetter, next: o.Offset,
			leaves: r.leaves,
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

// hand gives a partition's feed what it may have, and holds the rest. Whoever calls it has r.handing.
func (r *rebuild) hand(ctx context.Context, topic string, id int32, records []*kgo.Record) error {
	f, limit := r.feeds[topic][id], r.limits[topic][id]
	records = append(r.held[topic][id], records...)
	n := 0
	for n < len(records) && records[n].Offset < limit {
		n++
	}
	if n > 0 {
		if err := f.Handle(ctx, records[:n]); err != nil {
			return err
		}
	}
	rest := records[n:]
	r.held[topic][id] = rest
	parts := map[string][]int32{topic: {id}}
	if len(rest) == 0 {
		r.client.ResumeFetchPartitions(parts)
		return nil
	}
	r.client.PauseFetchPartitions(parts)
	return f.Passed(ctx, limit) // what lies between is no record
}

// allow lets the new tables be read up to where the served ones are.
func (r *rebuild) allow(ctx context.Context, served map[string]map[int32]int64) error {
	r.handing.Lock()
	defer r.handing.Unlock()
	r.limits = served
	for topic, parts := range r.held {
		for id, held := range parts {
			if len(held) == 0 {
				continue
			}
			if err := r.hand(ctx, topic, id, nil); err != nil {
				return err
			}
		}
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
				r.handing.Lock()
				err = r.hand(ctx, p.Topic, p.Partition, p.Records)
				r.handing.Unlock()
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
func (r *rebuild) finish(ctx context.Context, targets map[string]map[int32]int64) error {
	var total int64
	for topic, parts := range targets {
		for id, end := range parts {
			start, _ := r.starts.Lookup(topic, id)
			total += max(end-start.Offset, 0)
		}
	}
	for {
		if err := r.reach(ctx, targets, total); err != nil {
			return err
		}
		served, err := r.served(ctx)
		if err != nil {
			return err
		}
		if err := r.allow(ctx, served); err != nil {
			return err
		}
		if r.behind(served) <= closeEnough {
			break
		}
		targets = served
	}
	if err := r.swap(ctx); err != nil {
		return err
	}
	r.cfg.Logger.Info("the rebuilt tables are served")
	for _, schema := range []string{RebuildSchema, OldSchema} {
		if schema == OldSchema && r.cfg.KeepOld {
			continue
		}
		if err := dropSchema(ctx, r.lock, schema); err != nil {
			return fmt.Errorf("drop the old tables: %w", err)
		}
	}
	return nil
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
