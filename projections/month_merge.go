package projections

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	// monthChanges is how many changed keys a statement copies again.
	monthChanges = 10_000
	// switchLocks bounds all waits for readers and writers together when a month takes the place of its days. Others wait behind it for as
	// long.
	switchLocks = 5 * time.Second
	// allBlocks is next_block of a day that is copied: blocks that it gets later have only rows that were noted.
	allBlocks = math.MaxInt64
	// noteTrigger is the trigger that notes what changes while it is copied.
	noteTrigger = "note_month_change"
)

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

// run does all steps of months.go, or what earlier tries left of them.
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
		FROM pg_attribute WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped`,
		m.sql("$."+m.table.name)).Scan(&m.columns); err != nil {
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
	names := make([]string, len(days))
	for i, day := range days {
		names[i] = day.Name
	}
	return refuseDependents(ctx, m.conn.Conn(), m.schema, names)
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
		INSERT INTO $.month_merges (source, name, target, schema_version, file_node)
		SELECT $1, $2, $3, max(version_id), pg_relation_filenode($1::oid) FROM $.schema_version`),
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
// What rewrites the day (VACUUM FULL, CLUSTER, pg_repack) moves rows to earlier blocks and notes nothing, so the copy is of one file only.
func (m *monthMerge) copyBlocks(ctx context.Context, tx pgx.Tx, day part) (done bool, err error) {
	if err := m.lockSwapShared(ctx, tx); err != nil {
		return false, err
	}
	// Nobody rewrites it while blocks are counted and copied.
	if _, err := tx.Exec(ctx, m.sql("LOCK TABLE ONLY $."+day.Name+" IN ACCESS SHARE MODE")); err != nil {
		if noTable(err) {
			return false, errChanged
		}
		return false, err
	}
	var oid uint32
	var same bool
	var next, size int64
	if err := tx.QueryRow(ctx, m.sql(`
		SELECT coalesce(to_regclass($1)::oid, 0), file_node IS NOT DISTINCT FROM pg_relation_filenode(source), next_block,
			coalesce(pg_relation_size(source::regclass), 0) / current_setting('block_size')::int
		FROM $.month_merges WHERE source = $2`), m.sql("$."+day.Name), day.OID).Scan(&oid, &same, &next, &size); err != nil {
		if errors.Is(err, pgx.ErrNoRows) {
			return false, errChanged
		}
		return false, err
	}
	if oid != day.OID || !same {
		return false, errChanged
	}
	if next == allBlocks {
		return true, nil
	}
	if _, err := tx.Exec(ctx, m.sql("INSERT INTO $."+m.target+" ("+m.columns+") SELECT "+m.columns+" FROM $."+day.Name+`
		WHERE ctid >= format('(%s,0)', $1::int8)::tid AND ctid < format('(%s,0)', $2::int8)::tid ON CONFLICT DO NOTHING`),
		next, next+m.blocks); err != nil {
		return false, err
	}
	if next += m.blocks; next >= size {
		next = allBlocks
	}
	_, err = tx.Exec(ctx, m.sql("UPDATE $.month_merges SET next_block = $2 WHERE source = $1"), day.OID, next)
	return next == allBlocks, err
}

// copyChanged copies rows again that changed since their day's copy began, and says whether there may be more. Whoever changes one at
// this moment has noted it, but not committed: it is copied once more the next time. It must not run before all blocks are copied,
// which would bring such rows a second time.
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
	_, err = tx.Exec(ctx, m.sql("INSERT INTO $."+m.target+" ("+m.columns+") SELECT "+m.columns+" FROM $."+day.Name+which),
		keys, dayTime(day.first))
	return true, err
}

// switchOver puts the month in the place of its days. It waits for readers for some seconds only, and writers wait for it.
func (m *monthMerge) switchOver(ctx context.Context) error {
	defer m.tellBlockers(ctx, m.conn.Conn(), "put "+m.target+" in the place of its days")()
	return pgx.BeginFunc(ctx, m.conn, func(tx pgx.Tx) error {
		deadline := time.Now().Add(switchLocks)
		var alone bool
		if err := tx.QueryRow(ctx, "SELECT pg_try_advisory_xact_lock($1, $2)", m.class, int32(lockDrop)).Scan(&alone); err != nil {
			return fmt.Errorf("take the lock of who drops days: %w", err)
		}
		if !alone {
			return errElsewhere
		}
		if err := lockUntil(ctx, tx, deadline, "SELECT pg_advisory_xact_lock($1, $2)", m.class, int32(lockSwap)); err != nil {
			return fmt.Errorf("make projectors wait: %w", err)
		}
		if swapping, err := m.isSwapping(ctx, tx); err != nil || swapping {
			return cmp.Or(err, errElsewhere)
		}
		days, err := m.sources(ctx, tx)
		if err != nil {
			return err
		}
		if err := lockAll(ctx, tx, deadline, m.lockedBySwitch(days)); err != nil {
			return err
		}
		locked, err := m.sources(ctx, tx)
		if err != nil {
			return err
		}
		if !slices.Equal(locked, days) { // somebody made or dropped one meanwhile, by hand
			return errChanged
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
		}, viewsOfDays(m.table.name, m.month)...), "; "))); err != nil {
			return fmt.Errorf("put %s in their place: %w", m.target, err)
		}
		return nil
	})
}

// lockedBySwitch are the table, its days, and the month, which a vacuum may have.
func (m *monthMerge) lockedBySwitch(days []part) []string {
	names := []string{m.sql("$." + m.table.name)}
	for _, day := range days {
		names = append(names, m.sql("$."+day.Name))
	}
	return append(names, m.sql("$."+m.target))
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
			AND g.next_block = $4 AND g.file_node = pg_relation_filenode(g.source)
			AND EXISTS (SELECT FROM pg_trigger WHERE tgrelid = g.source AND tgname = $3 AND tgenabled = 'O'))
		FROM $.month_merges AS g WHERE g.target = $1`), m.target, oids, noteTrigger, int64(allBlocks)).Scan(&begun, &copied); err != nil {
		return fmt.Errorf("look what was copied: %w", err)
	}
	if begun != len(days) || copied != len(days) {
		return errChanged
	}
	return nil
}

// viewsOfDays make a view in the place of each day's table.
func viewsOfDays(table string, month span) []string {
	var sqls []string
	for _, day := range month.days() {
		name, date := dayTable(table, day), daySpan(day).String()
		sqls = append(sqls,
			"CREATE VIEW $."+name+" AS SELECT * FROM $."+month.table(table)+" WHERE day = '"+date+"'",
			"COMMENT ON VIEW $."+name+" IS 'The part of "+table+" of "+date+" (UTC).'")
	}
	return sqls
}

// dayViews are those that are there: a month that was never served has tables by these names, or none.
func (s *store) dayViews(ctx context.Context, tx pgx.Tx, table string, month span) (views []string, err error) {
	names := make([]string, 0, 31)
	for _, day := range month.days() {
		names = append(names, dayTable(table, day))
	}
	if err := tx.QueryRow(ctx, `
		SELECT coalesce(array_agg(oid::regclass::text), '{}') FROM pg_class
		WHERE relnamespace = to_regnamespace($1) AND relkind = 'v' AND relname = ANY ($2)`,
		pgx.Identifier{s.schema}.Sanitize(), names).Scan(&views); err != nil {
		return nil, fmt.Errorf("look for the views of %s: %w", month, err)
	}
	return views, nil
}

func dropViews(ctx context.Context, tx pgx.Tx, views []string) error {
	if len(views) == 0 {
		return nil
	}
	_, err := tx.Exec(ctx, "DROP VIEW "+strings.Join(views, ", "))
	return err
}
