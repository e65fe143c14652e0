package projections

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// A dailyTable is partitioned by the delivery's day, so that a day goes by dropping its tables. Days that are old share the table of
// their month (months.go).
type dailyTable struct {
	name string
	// with leaves room in the pages of tables whose rows are updated.
	with string
	// key is the column that finds the few rows that belong together, by an index; keyType is its type.
	key, keyType string
}

var dailyTables = []dailyTable{
	{"deliveries", " WITH (fillfactor = 70)", "delivery_id", "uuid"},
	{"attempts", " WITH (fillfactor = 90)", "delivery_id", "uuid"},
	{"timeline", "", "delivery_id", "uuid"},
	{"notification_requests", "", "notification_id", "text"},
	{"notification_shards", " WITH (fillfactor = 70)", "notification_id", "text"},
	{"delivery_stat_shards", " WITH (fillfactor = 40)", "minute", "timestamptz"},
}

// spanCheck says of a table what its bounds as a partition will say, so that it can be attached without being read.
const spanCheck = "of_its_day"

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

// forgetDays makes ensureDays look in Postgres again: a day was dropped, or a rebuild was swapped in.
func (s *store) forgetDays() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.days)
}

// createDay attaches tables that were made beside, which lets reads and writes of other days go on;
// CREATE TABLE … PARTITION OF would wait for them all and stop new ones meanwhile.
func (s *store) createDay(ctx context.Context, day int32) error {
	return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		defer s.tellBlockers(ctx, tx.Conn(), "create daily tables")()
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock_shared($1, $2), pg_advisory_xact_lock($1, $3)",
			s.class, int32(lockSwap), int32(lockDays)); err != nil {
			return err
		}
		for _, t := range dailyTables {
			sp, name := daySpan(day), dayTable(t.name, day)
			var exists bool // itself, or as the view of a day that its month has
			if err := tx.QueryRow(ctx, "SELECT to_regclass($1) IS NOT NULL OR "+isPartition("$2"),
				s.sql("$."+name), s.sql("$."+monthSpan(day).table(t.name))).Scan(&exists); err != nil {
				return err
			}
			if exists {
				continue
			}
			check := ""
			if s.schema == RebuildSchema {
				check = ", " + sp.check()
			}
			for _, sql := range []string{
				"CREATE TABLE $." + name + " (LIKE $." + t.name + " INCLUDING ALL" + check + ")" + t.with,
				"COMMENT ON TABLE $." + name + " IS 'The part of " + t.name + " of " + sp.String() + " (UTC).'",
				sp.attach(t.name),
			} {
				if _, err := tx.Exec(ctx, s.sql(sql)); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// isPartition is the SQL for: the table that a parameter names is there, and is a partition.
func isPartition(param string) string {
	return "coalesce((SELECT relispartition FROM pg_class WHERE oid = to_regclass(" + param + ")), false)"
}

// hasDay says whether a day's deliveries have a table, their own or that of the month.
func (s *store) hasDay(ctx context.Context, day int32) (bool, error) {
	s.mu.Lock()
	known := s.days[day]
	s.mu.Unlock()
	if known {
		return true, nil
	}
	var attached bool
	err := s.pool.QueryRow(ctx, "SELECT "+isPartition("$1")+" OR "+isPartition("$2"),
		s.sql("$."+dayTable("deliveries", day)), s.sql("$."+monthSpan(day).table("deliveries"))).Scan(&attached)
	if err != nil {
		return false, fmt.Errorf("look for the tables of %s: %w", dayTime(day).Format(time.DateOnly), err)
	}
	return attached, nil
}

// leaveOld takes facts out of chunks that are older than what is kept and whose day was dropped, and says how many they
// were. A day that is kept longer, for what is pending in it, takes them.
func (s *store) leaveOld(ctx context.Context, chunks []*chunk) (left int, err error) {
	kept := map[int32]bool{}
	for _, c := range chunks {
		for _, f := range c.facts {
			day := factDay(f)
			if _, asked := kept[day]; !f.old || asked {
				continue
			}
			if kept[day], err = s.hasDay(ctx, day); err != nil {
				return 0, err
			}
		}
	}
	if len(kept) == 0 {
		return 0, nil
	}
	for _, c := range chunks {
		before := len(c.facts)
		c.facts = slices.DeleteFunc(slices.Clone(c.facts), func(f fact) bool { return f.old && !kept[factDay(f)] })
		left += before - len(c.facts)
	}
	return left, nil
}

// missingDay says that a row found no partition: its day was dropped, or was made in another schema.
func missingDay(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "23514" && pg.ConstraintName == ""
}

// daysOf returns the days whose tables the chunks need.
func daysOf(chunks []*chunk) []int32 {
	seen := map[int32]bool{}
	var days []int32
	add := func(day int32) {
		if !seen[day] {
			seen[day] = true
			days = append(days, day)
		}
	}
	for _, c := range chunks {
		for _, f := range c.facts {
			if f.unproven() && !f.timeless() {
				continue // it counts only where its delivery's day is there
			}
			add(factDay(f))
			if f.ev.GetDuplicateDropped() != nil {
				add(duplicateDay(f))
			}
		}
	}
	return days
}
