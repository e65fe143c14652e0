package projections

import (
	"context"
	"fmt"
)

// lockAnalyze is held by the projector that looks at the tables.
const lockAnalyze = -5

// analyze has Postgres look at the partitioned tables as a whole, some times a day: its own autovacuum looks at the
// days only, and without this the planner guesses how many users and notifications there are in all of them.
func (s *store) analyze(ctx context.Context) error {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	var alone bool
	if err := conn.QueryRow(ctx, "SELECT pg_try_advisory_lock($1, $2)", s.class, int32(lockAnalyze)).Scan(&alone); err != nil || !alone {
		return err // another projector is at it
	}
	defer func() { _ = s.unlock(ctx, conn.Conn(), lockAnalyze) }()
	for _, t := range dailyTables {
		var due bool
		err := conn.QueryRow(ctx, `
			SELECT coalesce(max(last_analyze), '-infinity') < now() - interval '6 hours'
			FROM pg_stat_user_tables WHERE relid = to_regclass($1)`, s.sql("$."+t.name)).Scan(&due)
		if err != nil {
			return err
		}
		if !due {
			continue
		}
		if _, err := conn.Exec(ctx, s.sql("ANALYZE $."+t.name)); err != nil {
			return fmt.Errorf("analyze %s: %w", t.name, err)
		}
	}
	return nil
}
