package projections

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// dailyTables are partitioned by the delivery's day, so that a day goes by dropping its tables. Tables
// whose rows are updated leave room for that in their pages.
var dailyTables = []struct{ name, with string }{
	{"deliveries", " WITH (fillfactor = 70)"},
	{"attempts", " WITH (fillfactor = 90)"},
	{"timeline", ""},
	{"notification_requests", ""},
	{"notification_shards", " WITH (fillfactor = 70)"},
	{"delivery_stat_shards", " WITH (fillfactor = 40)"},
}

func dayTable(table string, day int32) string { return table + "_" + dayTime(day).Format("20060102") }

// ensureDays makes the partitions of days, where they are missing. It remembers those it has seen.
func (s *store) ensureDays(ctx context.Context, days []int32) error {
	for _, day := range days {
		s.mu.Lock()
		known := s.days[day]
		s.mu.Unlock()
		if known {
			continue
		}
		if err := s.createDay(ctx, day); err != nil {
			return fmt.Errorf("create the tables of %s: %w", dayTime(day).Format(time.DateOnly), err)
		}
		s.mu.Lock()
		s.days[day] = true
		s.mu.Unlock()
	}
	return nil
}

// forgetDays makes ensureDays look again: somebody dropped a day, or another schema took the name.
func (s *store) forgetDays() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.days)
}

// createDay attaches tables that were made beside, which lets reads and writes of other days go on;
// CREATE TABLE … PARTITION OF would wait for them all and stop new ones meanwhile.
func (s *store) createDay(ctx context.Context, day int32) error {
	return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock_shared($1, $2), pg_advisory_xact_lock($1, $3)", s.class, int32(lockSwap), int32(lockDays)); err != nil {
			return err
		}
		for _, t := range dailyTables {
			name := dayTable(t.name, day)
			var exists bool
			if err := tx.QueryRow(ctx, "SELECT to_regclass($1) IS NOT NULL", s.sql("$."+name)).Scan(&exists); err != nil {
				return err
			}
			if exists {
				continue
			}
			from, to := dayTime(day).Format(time.DateOnly), dayTime(day+1).Format(time.DateOnly)
			for _, sql := range []string{
				"CREATE TABLE $." + name + " (LIKE $." + t.name + " INCLUDING ALL)" + t.with,
				"COMMENT ON TABLE $." + name + " IS 'The part of " + t.name + " of " + from + " (UTC).'",
				"ALTER TABLE $." + t.name + " ATTACH PARTITION $." + name + " FOR VALUES FROM ('" + from + "') TO ('" + to + "')",
			} {
				if _, err := tx.Exec(ctx, s.sql(sql)); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// dropDays drops the partitions of days before a day, and the rows of the tables without partitions.
// Detaching CONCURRENTLY waits for nobody and stops nobody; it needs a connection without transaction,
// and a try that was interrupted has to be finished.
func (s *store) dropDays(ctx context.Context, before int32) (dropped int, err error) {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return 0, err
	}
	defer conn.Release()
	var alone bool
	if err := conn.QueryRow(ctx, "SELECT pg_try_advisory_lock($1, $2)", s.class, int32(lockDays)).Scan(&alone); err != nil || !alone {
		return 0, err // another projector is at it
	}
	defer func() {
		_, unlockErr := conn.Exec(context.WithoutCancel(ctx), "SELECT pg_advisory_unlock($1, $2)", s.class, int32(lockDays))
		err = errors.Join(err, unlockErr)
	}()
	for _, t := range dailyTables {
		n, err := s.dropDaysOf(ctx, conn, t.name, before)
		if dropped += n; err != nil {
			return dropped, fmt.Errorf("drop old days of %s: %w", t.name, err)
		}
	}
	for _, sql := range []string{"DELETE FROM $.duplicates WHERE day < $1", "DELETE FROM $.early_facts WHERE at < $1", "DELETE FROM $.erasures WHERE at < $1", "DELETE FROM $.broadcast_shards WHERE day < $1", "DELETE FROM $.broadcast_skips WHERE day < $1", "DELETE FROM $.answer_shards WHERE minute < $1"} {
		if _, err := conn.Exec(ctx, s.sql(sql), dayTime(before)); err != nil {
			return dropped, fmt.Errorf("delete old rows: %w", err)
		}
	}
	return dropped, nil
}

func (s *store) dropDaysOf(ctx context.Context, conn *pgxpool.Conn, table string, before int32) (dropped int, err error) {
	// A table that was detached but not dropped yet is among them.
	rows, err := conn.Query(ctx, `
		SELECT c.relname, c.relispartition, coalesce(i.inhdetachpending, false)
		FROM pg_class c LEFT JOIN pg_inherits i ON i.inhrelid = c.oid
		WHERE c.relnamespace = to_regnamespace($1) AND c.relkind = 'r' AND c.relname ~ ('^' || $2::text || '_[0-9]{8}$')
		ORDER BY c.relname`, pgx.Identifier{s.schema}.Sanitize(), table)
	if err != nil {
		return 0, err
	}
	type part struct {
		Name              string
		Attached, Pending bool
	}
	parts, err := pgx.CollectRows(rows, pgx.RowToStructByPos[part])
	if err != nil {
		return 0, err
	}
	for _, p := range parts {
		if p.Name[len(table)+1:] >= dayTime(before).Format("20060102") {
			continue
		}
		if p.Attached {
			how := "CONCURRENTLY"
			if p.Pending {
				how = "FINALIZE"
			}
			if _, err := conn.Exec(ctx, s.sql("ALTER TABLE $."+table+" DETACH PARTITION $."+p.Name+" "+how)); err != nil {
				return dropped, err
			}
		}
		if _, err := conn.Exec(ctx, s.sql("DROP TABLE $."+p.Name)); err != nil {
			return dropped, err
		}
		dropped++
	}
	return dropped, nil
}

// missingDay says that a row found no partition: its day was dropped, or was made in another schema.
func missingDay(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "23514" && pg.ConstraintName == ""
}

// daysOf are the days that chunks write.
func daysOf(chunks []*chunk) []int32 {
	seen := map[int32]bool{}
	var days []int32
	for _, c := range chunks {
		for _, f := range c.facts {
			if day := factDay(f); !seen[day] {
				seen[day] = true
				days = append(days, day)
			}
		}
	}
	return days
}
