package projections

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/klivvr/whisper/projections/postgres"
)

// errLost says that a checkpoint is not where it was expected: somebody else wrote the records, or this
// process did and did not hear of it. Nothing was written.
var errLost = errors.New("a checkpoint is not where it was")

// A transaction writes one batch.
type transaction struct {
	*store
	tx pgx.Tx
	*folded
	gently bool // see write
	stripe int32
	shards shards
	stats  stats
	// templates are changes of template_stat_shards.
	templates map[templateKey]int64
	balances  balances
	skips     map[skipKey]int64
	// known are the batch's users who were erased.
	known map[string][]alias
}

// write puts the chunks' facts and checkpoints into Postgres, in one transaction: all or nothing. Gently, it leaves
// Postgres and the machine room for others in between.
func (s *store) write(ctx context.Context, chunks []*chunk, gently bool) error {
	tx, err := s.pool.Begin(ctx)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	// A rollback after the commit does nothing; one that fails closes the connection, which rolls back.
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), postgres.ConnectTimeout)
		defer cancel()
		_ = tx.Rollback(ctx)
	}()
	defer s.tellBlockers(ctx, tx.Conn(), "write")()
	t := &transaction{
		store: s, tx: tx, gently: gently, stripe: s.stripe(partitions(chunks)),
		shards: shards{}, stats: stats{}, templates: map[templateKey]int64{}, balances: balances{}, skips: map[skipKey]int64{},
	}
	if err := t.claim(ctx, chunks); err != nil {
		return err
	}
	if err := t.forget(ctx, chunks); err != nil {
		return fmt.Errorf("forget erased users: %w", err)
	}
	t.folded = fold(chunks)
	steps := []struct {
		doing string
		do    func(context.Context) error
	}{
		{"find the deliveries of late reads", t.resolve},
		{"take up early facts", t.takeEarly},
		{"write broadcasts", t.writeBroadcasts},
		{"find the broadcasts of deliveries", t.joinBroadcasts},
		{"write duplicates", t.writeDuplicates},
		{"write deliveries", t.writeDeliveries},
		{"write attempts", t.writeAttempts},
		{"write the timeline", t.writeTimeline},
		{"write answers", t.writeAnswers},
		{"write requests", t.writeRequests},
		{"write counts", t.writeShards},
		{"write balances", t.writeBalances},
		{"write statistics", t.writeStats},
		{"write counts of templates", t.writeTemplates},
		{"write why broadcasts skipped", t.writeSkips},
	}
	for _, step := range steps {
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.doing, err)
		}
	}
	if err := tx.Commit(ctx); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// copy sends rows by COPY.
func (t *transaction) copy(ctx context.Context, into string, rows *copyRows) error {
	rows.field = append(rows.field, copyTrailer...)
	whole := bytes.NewReader(rows.field)
	var r io.Reader = whole
	if t.gently {
		r = pacedReader{whole}
	}
	_, err := t.tx.Conn().PgConn().CopyFrom(ctx, r, t.sql("COPY $."+into+" FROM STDIN (FORMAT binary)"))
	return err
}

// A pacedReader reads in pieces, with a pause between two. The server of a COPY that comes so works for
// one or two milliseconds at a time, and not for half a second, in which others wait for its core: beside a broadcast it took
// a sixth off the p99 of alerts. Pieces of 16 KiB were no better and took us a quarter more CPU, of 64 KiB not as good.
type pacedReader struct{ of *bytes.Reader }

const (
	pacedPiece = 32 << 10
	pacedPause = 2 * time.Millisecond
)

func (p pacedReader) Read(b []byte) (int, error) {
	if left := int64(p.of.Len()); left > 0 && left < p.of.Size() {
		time.Sleep(pacedPause)
	}
	return p.of.Read(b[:min(len(b), pacedPiece)])
}

// moveCheckpoints is the compare-and-set. It finds each row by its whole key, next_offset included, so what it costs does not
// depend on the versions that it leaves behind, which stay while somebody holds a snapshot open.
const moveCheckpoints = `
	UPDATE $.checkpoints AS c SET next_offset = k.next, updated_at = now(), record_at = coalesce(k.record_at, c.record_at)
	FROM unnest($1::text[], $2::int4[], $3::int8[], $4::int8[], $5::timestamptz[]) AS k(topic, partition, expected, next, record_at)
	WHERE c.topic = k.topic AND c.partition = k.partition AND c.next_offset = k.expected`

// claim takes the locks and moves the checkpoints. Waiting for another projector's transaction on the
// same partitions happens here, so that everything after sees what it wrote.
func (t *transaction) claim(ctx context.Context, chunks []*chunk) error {
	if _, err := t.tx.Exec(ctx, "SELECT pg_advisory_xact_lock_shared($1, $2), "+keepsBalances, t.class, int32(lockSwap)); err != nil {
		return fmt.Errorf("wait for a rebuild: %w", err)
	}
	// unnest hands its rows out in order, so every transaction takes the locks ascending.
	if _, err := t.tx.Exec(ctx, "SELECT count(pg_advisory_xact_lock($1, p)) FROM unnest($2::int4[]) AS p", t.class,
		partitions(chunks)); err != nil {
		return fmt.Errorf("lock the partitions: %w", err)
	}
	if err := t.writeGaps(ctx, chunks); err != nil { // which asks for the checkpoint's record_at
		return err
	}
	moves, times := map[*source]int64{}, map[*source]int64{}
	for _, c := range chunks {
		moves[c.src] = max(moves[c.src], c.next)
		times[c.src] = max(times[c.src], c.lastMs)
	}
	cols := arrays(oidText, oidInt4, oidInt8, oidInt8, oidTimestamp)
	for src, next := range moves {
		f := cols.add()
		f[0].text(src.topic)
		f[1].int4(src.partition)
		f[2].int8(src.at)
		f[3].int8(next)
		f[4].time(times[src] * 1000)
	}
	res, err := t.run(ctx, t.tx, moveCheckpoints, cols.params()...)
	if err != nil {
		return fmt.Errorf("move the checkpoints: %w", err)
	}
	if res.CommandTag.RowsAffected() != int64(len(moves)) {
		return errLost
	}
	return nil
}

// writeGaps keeps what retention had removed before it was read, and between which times it was written.
func (t *transaction) writeGaps(ctx context.Context, chunks []*chunk) error {
	for _, c := range chunks {
		for _, g := range c.gaps {
			if _, err := t.tx.Exec(ctx, t.sql(`INSERT INTO $.gaps (topic, partition, from_offset, to_offset, since)
				SELECT $1, $2, $3, $4, (SELECT record_at FROM $.checkpoints WHERE topic = $1 AND partition = $2 LIMIT 1)
				ON CONFLICT DO NOTHING`),
				c.src.topic, c.src.partition, g.from, g.to); err != nil {
				return fmt.Errorf("keep what the log had lost: %w", err)
			}
		}
		if c.begins.offset == 0 {
			continue // nothing can be missing before it
		}
		if _, err := t.tx.Exec(ctx, t.sql("UPDATE $.gaps SET until = $4 WHERE topic = $1 AND partition = $2 AND to_offset <= $3 AND until IS NULL"),
			c.src.topic, c.src.partition, c.begins.offset, time.UnixMilli(c.begins.ms)); err != nil {
			return fmt.Errorf("keep when what the log had lost was written: %w", err)
		}
	}
	return nil
}
