package postgres

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/klivvr/whisper/migrations"
)

// ConnectTimeout bounds one try to connect where the address says nothing of it.
const ConnectTimeout = 5 * time.Second

// Config reads the address of a pool. A try to connect, and the question whether an idle connection lives, end after
// [ConnectTimeout] unless the address says otherwise.
func Config(url string) (*pgxpool.Config, error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("postgres address: %w", err)
	}
	if cfg.ConnConfig.ConnectTimeout == 0 {
		cfg.ConnConfig.ConnectTimeout = ConnectTimeout
	}
	// The pool asks a connection that was idle whether it lives; without a bound of its own it goes on asking for a minute after
	// whoever wanted the connection has left, and closing the pool waits for that.
	if cfg.PingTimeout == 0 {
		cfg.PingTimeout = ConnectTimeout
	}
	return cfg, nil
}

// InSchema puts the schema in front of the names that are marked with a dollar and a dot: $.deliveries.
func InSchema(schema, text string) string {
	// One type, also while a rebuild fills tables.
	text = strings.ReplaceAll(text, "$.delivery_status", pgx.Identifier{migrations.Schema}.Sanitize()+".delivery_status")
	return strings.ReplaceAll(text, "$.", pgx.Identifier{schema}.Sanitize()+".")
}

// Checkpoints returns the checkpoints of a schema: by topic and partition, the first offset whose record is not in its tables.
func Checkpoints(ctx context.Context, pool *pgxpool.Pool, schema string) (map[string]map[int32]int64, error) {
	// From the end of the key: of a partition's versions the first one that is seen is the one that lives.
	rows, err := pool.Query(ctx, InSchema(schema, `
		WITH RECURSIVE c AS (
			(SELECT topic, partition, next_offset FROM $.checkpoints ORDER BY topic DESC, partition DESC, next_offset DESC LIMIT 1)
			UNION ALL
			SELECT n.* FROM c CROSS JOIN LATERAL (
				SELECT topic, partition, next_offset FROM $.checkpoints AS n WHERE (n.topic, n.partition) < (c.topic, c.partition)
				ORDER BY topic DESC, partition DESC, next_offset DESC LIMIT 1
			) AS n
		) SELECT topic, partition, next_offset FROM c`))
	if err != nil {
		return nil, fmt.Errorf("read the checkpoints: %w", err)
	}
	all := map[string]map[int32]int64{}
	var topic string
	var partition int32
	var next int64
	_, err = pgx.ForEachRow(rows, []any{&topic, &partition, &next}, func() error {
		if all[topic] == nil {
			all[topic] = map[int32]int64{}
		}
		all[topic][partition] = next
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the checkpoints: %w", err)
	}
	return all, nil
}
