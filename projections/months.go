package projections

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
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

const (
	// monthBlocks is how many blocks of a daily table a transaction copies usually: some 10,000 deliveries.
	monthBlocks = 512
	// monthChanges is how many changed keys a statement copies again.
	monthChanges = 10_000
	// switchLocks bounds the wait for readers and writers in step 4. Others wait behind it for as long.
	switchLocks = "5s"
	// noteTrigger is the trigger of step 1.
	noteTrigger = "note_month_change"
)

// errChanged says that daily tables are not those that were copied. What is different is found, and mended, from the beginning.
var errChanged = errors.New("the daily tables have changed")

// A merging says which days are merged.
type merging struct {
	keep   int   // how many days are kept at all
	daily  int   // how many keep their own tables
	blocks int64 // how many blocks of a table a transaction copies
}

// A monthMerge merges days of one table.
type monthMerge struct {
	*store
	merging
	conn    *pgxpool.Conn
	table   dailyTable
	month   span
	target  string // the month's table
	columns string
}

// mergeMonths merges the days of each month that ended long enough ago, and says how many tables it has made. While another projector
// does, it returns errElsewhere.
func (s *store) mergeMonths(ctx context.Context, now time.Time, which merging) (merged int, err error) {
	if which.keep <= which.daily {
		return 0, nil
	}
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
	today := min(int32(now.Unix()/86_400), newest)
	var failed []error
	for _, t := range dailyTables {
		parts, err := s.parts(ctx, conn, t.name)
		if err != nil {
			return merged, errors.Join(append(failed, err)...)
		}
		if err := s.forgetMerges(ctx, conn, t.name, parts); err != nil {
			failed = append(failed, err)
			continue
		}
		for _, month := range monthsToMerge(parts, today-int32(which.keep), today-int32(which.daily)) {
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
			failed = append(failed, fmt.Errorf("merge the days of %s of %s: %w", month, t.name, err))
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

// forgetMerges ends the merges of a table whose daily tables were dropped or replaced.
func (s *store) forgetMerges(ctx context.Context, conn *pgxpool.Conn, table string, parts []part) error {
	served := []uint32{}
	for _, p := range parts {
		if p.served() {
			served = append(served, p.OID)
		}
	}
	rows, err := conn.Query(ctx, s.sql(`
		SELECT DISTINCT target FROM $.month_merges
		WHERE target ~ ('^' || $1::text || '_[0-9]{6}$') AND (source <> ALL ($2::oid[])
			OR schema_version <> (SELECT max(version_id) FROM $.schema_version))`), table, served)
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
		s.log.Info("daily tables changed while they were merged, it begins again", "table", target)
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

func (m *monthMerge) run(ctx context.Context) error {
	if err := m.begin(ctx); err != nil {
		return err
	}
	days, err := m.sources(ctx, m.conn)
	if err != nil {
		return err
	}
	for _, day := range days {
		if err := m.copyDay(ctx, day); err != nil {
			return fmt.Errorf("copy %s: %w", day.Name, err)
		}
	}
	// Under the lock of the switch only little is left to do.
	for _, day := range days {
		for more := true; more; {
			if err := pgx.BeginFunc(ctx, m.conn, func(tx pgx.Tx) (err error) {
				more, err = m.copyChanged(ctx, tx, day)
				return err
			}); err != nil {
				return fmt.Errorf("copy what changed of %s: %w", day.Name, err)
			}
		}
	}
	if _, err := m.conn.Exec(ctx, m.sql("ANALYZE $."+m.target)); err != nil {
		return fmt.Errorf("analyze: %w", err)
	}
	return m.switchOver(ctx)
}

// sources are the month's daily tables; each must be served.
func (m *monthMerge) sources(ctx context.Context, conn querier) ([]part, error) {
	parts, err := m.parts(ctx, conn, m.table.name)
	if err != nil {
		return nil, err
	}
	parts = slices.DeleteFunc(parts, func(p part) bool { return p.month() || p.first < m.month.first || p.first >= m.month.end })
	if slices.ContainsFunc(parts, func(p part) bool { return !p.served() }) {
		return nil, errChanged
	}
	return parts, nil
}

// begin makes the month's table and has changes noted, as far as a try before has not.
func (m *monthMerge) begin(ctx context.Context) error {
	if err := m.conn.QueryRow(ctx, `
		SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum)
		FROM pg_attribute WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped`, m.sql("$."+m.table.name)).Scan(&m.columns); err != nil {
		return fmt.Errorf("look up the columns: %w", err)
	}
	days, err := m.sources(ctx, m.conn)
	if err != nil {
		return err
	}
	if err := m.refuseViews(ctx, days); err != nil {
		return err
	}
	defer m.tellBlockers(ctx, m.conn.Conn(), "merge days into "+m.target)()
	for _, day := range days {
		if err := pgx.BeginFunc(ctx, m.conn, func(tx pgx.Tx) error { return m.beginDay(ctx, tx, day) }); err != nil {
			return fmt.Errorf("have changes of %s noted: %w", day.Name, err)
		}
	}
	return nil
}

// refuseViews: a daily table that others built on can't be dropped.
func (m *monthMerge) refuseViews(ctx context.Context, days []part) error {
	oids := make([]uint32, len(days))
	for i, day := range days {
		oids[i] = day.OID
	}
	var views []string
	if err := m.conn.QueryRow(ctx, `
		SELECT coalesce(array_agg(DISTINCT r.ev_class::regclass::text), '{}')
		FROM pg_depend AS d JOIN pg_rewrite AS r ON r.oid = d.objid
		WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = ANY ($1::oid[])`, oids).Scan(&views); err != nil {
		return fmt.Errorf("look for views on the daily tables: %w", err)
	}
	if len(views) > 0 {
		return fmt.Errorf("these stand on daily tables, build them on %s instead: %s", m.table.name, strings.Join(views, ", "))
	}
	return nil
}

// lockSwapShared keeps a rebuild from replacing tables until the transaction ends.
func (m *monthMerge) lockSwapShared(ctx context.Context, tx pgx.Tx) error {
	if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock_shared($1, $2)", m.class, int32(lockSwap)); err != nil {
		return fmt.Errorf("wait for a rebuild: %w", err)
	}
	return nil
}

// beginDay waits, for the trigger, until nobody writes to the day; who writes later has its changes noted.
func (m *monthMerge) beginDay(ctx context.Context, tx pgx.Tx, day part) error {
	if err := m.lockSwapShared(ctx, tx); err != nil {
		return err
	}
	var begun, made, noted bool
	if err := tx.QueryRow(ctx, m.sql(`
		SELECT EXISTS (SELECT FROM $.month_merges WHERE source = $1), to_regclass($2) IS NOT NULL,
			EXISTS (SELECT FROM pg_trigger WHERE tgrelid = $1 AND tgname = $3)`),
		day.OID, m.sql("$."+m.target), noteTrigger).Scan(&begun, &made, &noted); err != nil || begun {
		return err
	}
	var sqls []string
	if !made { // rows of the month hardly change, so its pages are filled
		sqls = append(sqls,
			"CREATE TABLE $."+m.target+" (LIKE $."+m.table.name+" INCLUDING ALL, "+m.month.check()+")",
			"COMMENT ON TABLE $."+m.target+" IS 'The part of "+m.table.name+" of "+m.month.String()+" (UTC).'")
	}
	if !noted {
		sqls = append(sqls, "CREATE TRIGGER "+noteTrigger+" AFTER INSERT OR UPDATE OR DELETE ON $."+day.Name+
			" FOR EACH ROW EXECUTE FUNCTION $.note_month_change('"+m.table.key+"')")
	}
	for _, sql := range sqls {
		if _, err := tx.Exec(ctx, m.sql(sql)); err != nil {
			return err
		}
	}
	// Noted before its copy begins: what a try before has noted is copied anyway.
	if _, err := tx.Exec(ctx, m.sql("DELETE FROM $.month_changes WHERE source = $1"), day.OID); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, m.sql(`
		INSERT INTO $.month_merges (source, name, target, schema_version) SELECT $1, $2, $3, max(version_id) FROM $.schema_version`),
		day.OID, day.Name, m.target)
	return err
}

// copyDay copies a day's blocks. It rests for as long as it works, which leaves half of its core and of the disk's time to others.
func (m *monthMerge) copyDay(ctx context.Context, day part) error {
	for {
		start := time.Now()
		var done bool
		if err := pgx.BeginFunc(ctx, m.conn, func(tx pgx.Tx) (err error) {
			done, err = m.copyBlocks(ctx, tx, day)
			return err
		}); err != nil {
			return err
		}
		if done {
			return nil
		}
		rest := time.NewTimer(time.Since(start))
		select {
		case <-rest.C:
		case <-ctx.Done():
			rest.Stop()
			return ctx.Err()
		}
	}
}

// copyBlocks copies some blocks as they are now. A row that moved to a later block meanwhile may be there twice, or old: its key was noted.
func (m *monthMerge) copyBlocks(ctx context.Context, tx pgx.Tx, day part) (done bool, err error) {
	if err := m.lockSwapShared(ctx, tx); err != nil {
		return false, err
	}
	var oid uint32
	var next, size int64
	if err := tx.QueryRow(ctx, m.sql(`
		SELECT coalesce(to_regclass($1)::oid, 0), next_block, coalesce(pg_relation_size(source::regclass), 0) / current_setting('block_size')::int
		FROM $.month_merges WHERE source = $2`), m.sql("$."+day.Name), day.OID).Scan(&oid, &next, &size); err != nil {
		if errors.Is(err, pgx.ErrNoRows) {
			return false, errChanged
		}
		return false, err
	}
	if oid != day.OID {
		return false, errChanged
	}
	if next >= size {
		return true, nil
	}
	if _, err := tx.Exec(ctx, m.sql("INSERT INTO $."+m.target+" ("+m.columns+") SELECT "+m.columns+" FROM $."+day.Name+`
		WHERE ctid >= format('(%s,0)', $1::int8)::tid AND ctid < format('(%s,0)', $2::int8)::tid ON CONFLICT DO NOTHING`),
		next, next+m.blocks); err != nil {
		return false, err
	}
	_, err = tx.Exec(ctx, m.sql("UPDATE $.month_merges SET next_block = $2 WHERE source = $1"), day.OID, next+m.blocks)
	return next+m.blocks >= size, err
}

// copyChanged copies rows again that changed since their day's copy began, and says whether there may be more. Whoever changes one at this moment
// has noted it, but not committed: it is copied once more the next time. It must not run before all blocks are copied, which
// would bring such rows a second time.
func (m *monthMerge) copyChanged(ctx context.Context, tx pgx.Tx, day part) (more bool, err error) {
	if err := m.lockSwapShared(ctx, tx); err != nil {
		return false, err
	}
	var keys []string
	if err := tx.QueryRow(ctx, m.sql(`
		WITH noted AS MATERIALIZED (SELECT ctid FROM $.month_changes WHERE source = $1 LIMIT $2),
		gone AS (DELETE FROM $.month_changes WHERE ctid = ANY (ARRAY(SELECT ctid FROM noted)) RETURNING key)
		SELECT coalesce(array_agg(DISTINCT key), '{}') FROM gone`), day.OID, monthChanges).Scan(&keys); err != nil {
		return false, err
	}
	if len(keys) == 0 {
		return false, nil
	}
	which := " WHERE " + m.table.key + " = ANY ($1::text[]::" + m.table.keyType + "[]) AND day = $2"
	if _, err := tx.Exec(ctx, m.sql("DELETE FROM $."+m.target+which), keys, dayTime(day.first)); err != nil {
		return false, err
	}
	_, err = tx.Exec(ctx, m.sql("INSERT INTO $."+m.target+" ("+m.columns+") SELECT "+m.columns+" FROM $."+day.Name+which), keys, dayTime(day.first))
	return true, err
}

// switchOver puts the month in the place of its days. It waits for readers for some seconds only, and writers wait for it.
func (m *monthMerge) switchOver(ctx context.Context) error {
	defer m.tellBlockers(ctx, m.conn.Conn(), "put "+m.target+" in the place of its days")()
	return pgx.BeginFunc(ctx, m.conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT set_config('lock_timeout', $1, true)", switchLocks); err != nil {
			return err
		}
		var alone bool
		if err := tx.QueryRow(ctx, "SELECT pg_try_advisory_xact_lock($1, $2)", m.class, int32(lockDrop)).Scan(&alone); err != nil {
			return fmt.Errorf("take the lock of who drops days: %w", err)
		}
		if !alone {
			return errElsewhere
		}
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1, $2)", m.class, int32(lockSwap)); err != nil {
			return fmt.Errorf("make projectors wait: %w", err)
		}
		if _, err := tx.Exec(ctx, m.sql("LOCK TABLE ONLY $."+m.table.name+" IN ACCESS EXCLUSIVE MODE")); err != nil {
			return fmt.Errorf("make readers wait: %w", err)
		}
		days, err := m.sources(ctx, tx)
		if err != nil {
			return err
		}
		if err := m.complete(ctx, tx, days); err != nil {
			return err
		}
		for _, day := range days {
			if _, err := tx.Exec(ctx, m.sql("ALTER TABLE $."+m.table.name+" DETACH PARTITION $."+day.Name)); err != nil {
				return fmt.Errorf("take %s away: %w", day.Name, err)
			}
			for more := true; more; { // now nobody can change it, whatever they write by
				if more, err = m.copyChanged(ctx, tx, day); err != nil {
					return fmt.Errorf("copy what changed of %s: %w", day.Name, err)
				}
			}
			if _, err := tx.Exec(ctx, m.sql("DROP TABLE $."+day.Name)); err != nil {
				return fmt.Errorf("drop %s: %w", day.Name, err)
			}
		}
		if _, err := tx.Exec(ctx, m.sql(strings.Join(append([]string{
			m.month.attach(m.table.name),
			"ALTER TABLE $." + m.target + " DROP CONSTRAINT " + spanCheck,
			"DELETE FROM $.month_merges WHERE target = '" + m.target + "'",
		}, dayViews(m.table.name, m.month)...), "; "))); err != nil {
			return fmt.Errorf("put %s in their place: %w", m.target, err)
		}
		return nil
	})
}

// complete says whether all blocks of just these days were copied, and every change since was noted.
func (m *monthMerge) complete(ctx context.Context, tx pgx.Tx, days []part) error {
	oids := make([]uint32, len(days))
	for i, day := range days {
		oids[i] = day.OID
	}
	var copied, begun int
	if err := tx.QueryRow(ctx, m.sql(`
		SELECT count(*), count(*) FILTER (WHERE g.source = ANY ($2::oid[])
			AND g.schema_version = (SELECT max(version_id) FROM $.schema_version)
			AND EXISTS (SELECT FROM pg_trigger WHERE tgrelid = g.source AND tgname = $3 AND tgenabled = 'O'))
		FROM $.month_merges AS g WHERE g.target = $1`), m.target, oids, noteTrigger).Scan(&begun, &copied); err != nil {
		return fmt.Errorf("look what was copied: %w", err)
	}
	if begun != len(days) || copied != len(days) {
		return errChanged
	}
	return nil
}

// dayViews make a view in the place of each day's table.
func dayViews(table string, month span) []string {
	var sqls []string
	for _, day := range month.days() {
		name, date := dayTable(table, day), daySpan(day).String()
		sqls = append(sqls,
			"CREATE VIEW $."+name+" AS SELECT * FROM $."+month.table(table)+" WHERE day = '"+date+"'",
			"COMMENT ON VIEW $."+name+" IS 'The part of "+table+" of "+date+" (UTC).'")
	}
	return sqls
}

// dropDayViews drops those that are there: a month that was never served has tables by these names, or none.
func (s *store) dropDayViews(ctx context.Context, tx pgx.Tx, table string, month span) error {
	names := make([]string, 0, 31)
	for _, day := range month.days() {
		names = append(names, dayTable(table, day))
	}
	var views *string
	if err := tx.QueryRow(ctx, `
		SELECT string_agg(oid::regclass::text, ', ') FROM pg_class
		WHERE relnamespace = to_regnamespace($1) AND relkind = 'v' AND relname = ANY ($2)`, pgx.Identifier{s.schema}.Sanitize(), names).Scan(&views); err != nil {
		return fmt.Errorf("look for the views of %s: %w", month, err)
	}
	if views == nil {
		return nil
	}
	_, err := tx.Exec(ctx, "DROP VIEW "+*views)
	return err
}
