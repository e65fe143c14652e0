package projections

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/klivvr/whisper/projections/postgres"
)

// A store is one schema in Postgres as the writers see it.
type store struct {
	pool   *pgxpool.Pool
	schema string
	// class is the first half of every advisory lock on this schema.
	class int32

	log *slog.Logger

	mu   sync.Mutex
	days map[int32]bool        // whose partitions exist
	held map[int32]time.Time   // old days that are kept for what is pending in them, and when they are looked at again
	told map[waiting]time.Time // when the log was told of it last

	written atomic.Int64 // transactions
}

// The second half of an advisory lock on a schema: a user partition (0 and above), or one of these.
const (
	// lockSwap is held shared by every transaction that writes, and exclusively while another schema
	// takes this one's name.
	lockSwap = -1
	// lockDays is held while daily partitions are created.
	lockDays = -2
	// lockDrop is held while old ones are dropped, which may wait for readers.
	lockDrop = -4
)

// openStore does not connect yet.
func openStore(url, schema string, conns int32) (*store, error) {
	cfg, err := postgres.Config(url)
	if err != nil {
		return nil, err
	}
	cfg.MaxConns = conns
	// Every statement of a transaction looks up keys that it brings along. A plan made while a table was
	// small would read the table instead, and go on doing so when it has grown (a join with UNNEST that was
	// planned so took 20 s where it takes 0.2); and planning anew for each array of ten thousand keys costs
	// more than it can gain. So the statements leave no choice, by LATERAL … OFFSET 0, ANY and ON CONFLICT.
	for name, value := range map[string]string{
		"application_name":            "whisper project",
		"plan_cache_mode":             "force_generic_plan",
		"enable_hashjoin":             "off",
		"enable_mergejoin":            "off",
		"enable_seqscan":              "off",
		"enable_bitmapscan":           "off",
		"jit":                         "off",
		"statement_timeout":           "0",
		"lock_timeout":                strconv.FormatInt(lockTimeout.Milliseconds(), 10),
		"standard_conforming_strings": "on",
	} {
		cfg.ConnConfig.RuntimeParams[name] = value
	}
	cfg.AfterConnect = checkSession
	if cfg.ConnConfig.ValidateConnect == nil { // of several addresses, or after a failover behind one, the server that takes writes
		cfg.ConnConfig.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
	pool, err := pgxpool.NewWithConfig(context.Background(), cfg)
	if err != nil {
		return nil, fmt.Errorf("postgres: %w", err)
	}
	return &store{
		pool: pool, schema: schema, class: lockClass(schema), log: slog.New(slog.DiscardHandler),
		days: map[int32]bool{}, held: map[int32]time.Time{}, told: map[waiting]time.Time{},
	}, nil
}

// checkSession refuses a session in which rows would come out wrong.
func checkSession(ctx context.Context, conn *pgx.Conn) error {
	if err := checkEncoding(conn.PgConn().ParameterStatus("server_encoding")); err != nil {
		return err
	}
	var plans string
	if err := conn.QueryRow(ctx, "SHOW plan_cache_mode").Scan(&plans); err != nil {
		return fmt.Errorf("check the session: %w", err)
	}
	if plans != "force_generic_plan" {
		return &stopError{errors.New("a pooler in front of postgres drops the session's settings: " + postgres.OwnSession)}
	}
	return nil
}

// checkEncoding: in any other encoding than UTF-8 Postgres keeps some texts as others, or not at all.
func checkEncoding(encoding string) error {
	if encoding != "UTF8" {
		return &stopError{fmt.Errorf("the database's encoding is %s, which can't keep every text: create it with ENCODING 'UTF8'", encoding)}
	}
	return nil
}

func lockClass(schema string) int32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte("whisper projections " + schema))
	return int32(h.Sum32())
}

// stripeTurns is how many transactions count into the same rows.
const stripeTurns = 32

// stripe says under which of its partitions a transaction counts. Counts are summed over all partitions when they are read, so one
// row takes what a whole batch adds to a count; and the row changes now and then, since its replaced versions stay, and are looked
// at each time, while somebody holds a snapshot open. The transaction holds the lock of the partition, so nobody else
// counts into the same row meanwhile, projectors of versions before included, which count each partition into its own.
func (s *store) stripe(locked []int32) int32 {
	return locked[int(s.written.Add(1)/stripeTurns)%len(locked)]
}

func (s *store) close() { s.pool.Close() }

// unlock gives a session's advisory lock back, also when ctx is over. A Postgres that does not answer is not waited for: the connection
// is closed then, and the lock ends with it.
func (s *store) unlock(ctx context.Context, conn *pgx.Conn, lock int32) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), postgres.ConnectTimeout)
	defer cancel()
	_, err := conn.Exec(ctx, "SELECT pg_advisory_unlock($1, $2)", s.class, lock)
	return err
}

// sql puts the schema in front of the names that are marked with a dollar and a dot: $.deliveries.
func (s *store) sql(text string) string { return postgres.InSchema(s.schema, text) }

// run executes a prepared statement over columns. Statements are prepared once a connection; after a
// swap of schemas Postgres itself resolves their names anew.
func (s *store) run(ctx context.Context, tx pgx.Tx, text string, params ...[]byte) (*pgconn.Result, error) {
	text = s.sql(text)
	sd, err := tx.Conn().Prepare(ctx, text, text)
	if err != nil {
		return nil, err
	}
	formats := []int16{1}
	res := tx.Conn().PgConn().ExecPrepared(ctx, sd.Name, params, formats, formats).Read()
	return res, res.Err
}

// checkpoints are all offsets of the schema.
func (s *store) checkpoints(ctx context.Context) (map[string]map[int32]int64, error) {
	return postgres.Checkpoints(ctx, s.pool, s.schema)
}

// begin makes the checkpoint of a partition that has none. One that is there stays.
func (s *store) begin(ctx context.Context, topic string, partition int32, at int64) error {
	_, err := s.pool.Exec(ctx, s.sql(`
		INSERT INTO $.checkpoints (topic, partition, next_offset) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`), topic, partition, at)
	if err != nil {
		return fmt.Errorf("begin the checkpoint of %s/%d: %w", topic, partition, err)
	}
	return nil
}

// skip moves a checkpoint over records that the log no longer has, and keeps what is missing in gaps.
func (s *store) skip(ctx context.Context, topic string, partition int32, from, to int64) error {
	_, err := s.pool.Exec(ctx, s.sql(`
		WITH moved AS (
			UPDATE $.checkpoints SET next_offset = $4, updated_at = now()
			WHERE topic = $1 AND partition = $2 AND next_offset = $3 RETURNING record_at
		)
		INSERT INTO $.gaps (topic, partition, from_offset, to_offset, since)
		SELECT $1, $2, $3, $4, record_at FROM moved ON CONFLICT DO NOTHING`), topic, partition, from, to)
	if err != nil {
		return fmt.Errorf("move the checkpoint of %s/%d: %w", topic, partition, err)
	}
	return nil
}
