package projections

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Days that are old share one table a month. The planner opens every partition for a question that does not give the day as a
// constant, so its time grows with the partitions: the newest days keep a table each (Config.DailyDays), older ones cost one a month.
//
// Each of the six tables is merged by itself, month by month:
//
//  1. A table of the month is made beside the served ones, with the same columns, indexes and defaults, and a trigger on each of the
//     month's daily tables notes the keys of rows that change from now on (month_changes).
//  2. The daily tables are copied, some blocks in each transaction, which also moves next_block (month_merges).
//  3. Rows that changed meanwhile are copied again.
//  4. In one transaction, in which no projector writes: what is left of 3; the days are detached and dropped, and the month is attached.
//
// Until 4 the daily tables are served and written as ever. What a crash leaves is in the two tables, which only ever change in the
// transactions that do the work, so any projector goes on from there. Whoever finds that a daily table was dropped or replaced meanwhile
// (retention, a rebuild), or that a migration changed it, begins that month again.
//
// A view with the name of each daily table stays. It serves those who read a day by that name, and it keeps projectors of the
// version before from making the day again: they look whether the name is taken.

// lockMonths is held by the projector that merges days.
const lockMonths = -8

// monthBlocks is how many blocks of a daily table a transaction copies usually: some 10,000 deliveries.
const monthBlocks = 512

// errChanged says that daily tables are not those that were copied. What is different is found, and mended, from the beginning.
var errChanged = errors.New("the daily tables have changed")

// A merging says which days are merged.
type merging struct {
	keep   int   // how many days are kept at all
	daily  int   // how many keep their own tables
	blocks int64 // how many blocks of a table a transaction copies
}

// mergeMonths merges the days of each month that ended long enough ago, and says how many tables it has made. While another projector
// or a rebuild does, it returns errElsewhere. It ends at the first lock that it does not get in time: who holds that may hold the next
// one too, and each try makes others wait.
func (s *store) mergeMonths(ctx context.Context, now time.Time, which merging) (merged int, err error) {
	newest, err := s.newestDay(ctx)
	if err != nil {
		return 0, err
	}
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return 0, err
	}
	defer conn.Release()
	var alone bool
	if err := conn.QueryRow(ctx, "SELECT pg_try_advisory_lock($1, $2)", s.class, int32(lockMonths)).Scan(&alone); err != nil {
		return 0, fmt.Errorf("take the lock of who merges days: %w", err)
	}
	if !alone {
		return 0, errElsewhere
	}
	defer func() { err = errors.Join(err, s.unlock(ctx, conn.Conn(), lockMonths)) }()
	if swapping, err := s.isSwapping(ctx, conn); err != nil || swapping {
		return 0, cmp.Or(err, errElsewhere)
	}
	today := min(int32(now.Unix()/86_400), newest)
	var failed []error
	for _, t := range dailyTables {
		parts, err := s.parts(ctx, conn, t.name)
		if err != nil {
			return merged, errors.Join(append(failed, err)...)
		}
		var months []span
		if which.keep > which.daily { // else merging is off
			months = monthsToMerge(parts, today-int32(which.keep), today-int32(which.daily))
		}
		if err := s.forgetMerges(ctx, conn, t.name, parts, months); err != nil {
			failed = append(failed, err)
			if lockTimedOut(err) {
				break
			}
			continue
		}
		for _, month := range months {
			m := &monthMerge{store: s, merging: which, conn: conn, table: t, month: month, target: month.table(t.name)}
			err := m.run(ctx)
			if err == nil {
				merged++
				s.log.Info("the daily tables of a month were merged into one", "table", t.name, "month", month.String())
				continue
			}
			if ctx.Err() != nil {
				return merged, ctx.Err()
			}
			if errors.Is(err, errElsewhere) {
				continue // whoever else it is says what fails
			}
			failed = append(failed, fmt.Errorf("merge the days of %s of %s: %w", month, t.name, err))
			if lockTimedOut(err) {
				return merged, errors.Join(failed...)
			}
		}
	}
	return merged, errors.Join(failed...)
}

// monthsToMerge are the months from a day to before another that have several daily tables. One whose days are being dropped is not
// among them.
func monthsToMerge(parts []part, from, before int32) (months []span) {
	days, broken := map[span]int{}, map[span]bool{}
	for _, p := range parts {
		month := monthSpan(p.first)
		if p.month() {
			broken[month] = broken[month] || p.Attached // it has no daily tables
			continue
		}
		days[month]++
		broken[month] = broken[month] || !p.served()
	}
	for _, month := range sorted(days, compareSpans) {
		if days[month] > 1 && !broken[month] && month.first >= from && month.end <= before {
			months = append(months, month)
		}
	}
	return months
}

// isSwapping says that a rebuild has swapped some of the days, but not all yet.
func (s *store) isSwapping(ctx context.Context, conn rowQuerier) (is bool, err error) {
	if err := conn.QueryRow(ctx, "SELECT to_regclass($1) IS NOT NULL", s.sql("$."+swapping)).Scan(&is); err != nil {
		return false, fmt.Errorf("look for a swap: %w", err)
	}
	return is, nil
}

// forgetMerges ends the merges of a table whose daily tables were dropped, replaced or rewritten, and those of other months than these:
// nobody erases users from a copy that was left.
func (s *store) forgetMerges(ctx context.Context, conn *pgxpool.Conn, table string, parts []part, months []span) error {
	wanted := []string{}
	for _, month := range months {
		wanted = append(wanted, month.table(table))
	}
	served := []uint32{}
	for _, p := range parts {
		if p.served() {
			served = append(served, p.OID)
		}
	}
	rows, err := conn.Query(ctx, s.sql(`
		SELECT DISTINCT target FROM $.month_merges
		WHERE target ~ ('^' || $1::text || '_[0-9]{6}$') AND (source <> ALL ($2::oid[]) OR target <> ALL ($3::text[])
			OR file_node IS DISTINCT FROM pg_relation_filenode(source)
			OR schema_version <> (SELECT max(version_id) FROM $.schema_version))`), table, served, wanted)
	if err != nil {
		return fmt.Errorf("look for merges of %s: %w", table, err)
	}
	targets, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("look for merges of %s: %w", table, err)
	}
	for _, target := range targets {
		if err := s.forgetMerge(ctx, conn, target); err != nil {
			return fmt.Errorf("forget the merge into %s: %w", target, err)
		}
		s.log.Info("daily tables changed while they were merged, or are not merged any more: their copy was dropped", "table", target)
	}
	return s.dropNotes(ctx, conn, parts, months)
}

// dropNotes takes the trigger from days that are not merged any more: nobody needs what it notes.
func (s *store) dropNotes(ctx context.Context, conn *pgxpool.Conn, parts []part, months []span) error {
	names := map[uint32]string{}
	oids := []uint32{}
	for _, p := range parts {
		if !p.month() && !slices.Contains(months, monthSpan(p.first)) {
			names[p.OID] = p.Name
			oids = append(oids, p.OID)
		}
	}
	rows, err := conn.Query(ctx, "SELECT tgrelid FROM pg_trigger WHERE tgname = $1 AND tgrelid = ANY ($2::oid[])", noteTrigger, oids)
	if err != nil {
		return fmt.Errorf("look for days that note changes: %w", err)
	}
	noting, err := pgx.CollectRows(rows, pgx.RowTo[uint32])
	if err != nil {
		return fmt.Errorf("look for days that note changes: %w", err)
	}
	for _, oid := range noting {
		if err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, s.sql("DROP TRIGGER IF EXISTS "+noteTrigger+" ON $."+names[oid])); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, s.sql("DELETE FROM $.month_changes WHERE source = $1"), oid)
			return err
		}); err != nil {
			return fmt.Errorf("note no more changes of %s: %w", names[oid], err)
		}
	}
	return nil
}

func (s *store) forgetMerge(ctx context.Context, conn *pgxpool.Conn, target string) error {
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		var served bool
		if err := tx.QueryRow(ctx, "SELECT "+isPartition("$1"), s.sql("$."+target)).Scan(&served); err != nil {
			return err
		}
		if !served {
			if _, err := tx.Exec(ctx, s.sql("DROP TABLE IF EXISTS $."+target)); err != nil {
				return err
			}
		}
		if _, err := tx.Exec(ctx, s.sql(
			"DELETE FROM $.month_changes WHERE source IN (SELECT source FROM $.month_merges WHERE target = $1)"), target); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, s.sql("DELETE FROM $.month_merges WHERE target = $1"), target)
		return err
	})
}
