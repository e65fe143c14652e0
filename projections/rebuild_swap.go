package projections

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/klivvr/whisper/migrations"
)

// A rebuild swaps contents, not schemas: the parents, views, functions and types of the served schema stay what they
// are, so what others built on them and were granted on them stays too. Two ways were to rename the schemas and make
// again what hung on the old one (views on views, materialised ones, grants, functions, publications: nobody can list
// them all), or to move the days from one parent to the other.

// swapping is what the served checkpoints are called while a swap takes more than one transaction: if it is interrupted, no projector of
// any version writes over days of which some are new and some old.
const swapping = "checkpoints_swapping"

// locksOfTable is how many locks one partition takes at most, with its indexes and those of its TOAST table.
const locksOfTable = 8

// A move is what is swapped in one piece: one table's partition of a day; or that of a month, for which the rebuilt tables have days.
type move struct {
	table string
	span
}

func (m move) locks() int { return locksOfTable * (1 + int(m.end-m.first)) }

// swap makes projectors wait, reads on to where they stand, and moves the days. Should somebody read the tables for long, projectors go on
// and it is tried again.
func (r *rebuild) swap(ctx context.Context) error {
	for {
		err := r.trySwap(ctx)
		if !lockTimedOut(err) {
			return err
		}
		r.cfg.Logger.Warn("somebody reads the tables, the rebuilt ones are swapped in later", "error", err)
		select {
		case <-time.After(5 * time.Second):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (r *rebuild) trySwap(ctx context.Context) (err error) {
	defer r.old.tellBlockers(ctx, r.lock, "swap the rebuilt tables in")()
	for _, lock := range []int32{lockDrop, lockSwap} {
		if _, err := r.lock.Exec(ctx, "SELECT pg_advisory_lock($1, $2)", r.old.class, lock); err != nil {
			return fmt.Errorf("make projectors wait: %w", err)
		}
		defer func() { err = errors.Join(err, r.old.unlock(ctx, r.lock, lock)) }()
	}
	served, err := r.served(ctx)
	if err != nil {
		return err
	}
	if err := r.allow(ctx, served); err != nil {
		return err
	}
	for _, w := range r.writers {
		w.hasten()
	}
	if err := r.reach(ctx, served, 0); err != nil {
		return err
	}
	if err := r.carryMonths(ctx); err != nil { // days may have been merged since the plan was made
		return err
	}
	moves, err := r.movesToSwap(ctx)
	if err != nil {
		return err
	}
	return r.moveDays(ctx, moves)
}

// movesToSwap are all days of either schema but those that are carried over, with the months that they are merged into, if they are.
func (r *rebuild) movesToSwap(ctx context.Context) ([]move, error) {
	all := map[span]bool{}
	inMonth := map[int32]bool{}
	for _, s := range []*store{r.old, r.new} {
		spans, err := s.spans(ctx)
		if err != nil {
			return nil, err
		}
		for _, sp := range spans {
			if r.carried[sp.first] { // then all of a month is
				continue
			}
			all[sp] = true
			for _, day := range sp.days() {
				inMonth[day] = inMonth[day] || sp.month()
			}
		}
	}
	var moves []move
	for _, sp := range sorted(all, compareSpans) {
		if !sp.month() && inMonth[sp.first] {
			continue // it goes with the month
		}
		for _, t := range dailyTables {
			moves = append(moves, move{t.name, sp})
		}
	}
	return moves, nil
}

// spans are the days and months that have a table, the oldest first. A month's table that is being filled is not among them.
func (s *store) spans(ctx context.Context) ([]span, error) {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Release()
	seen := map[span]bool{}
	for _, t := range dailyTables {
		parts, err := s.parts(ctx, conn, t.name)
		if err != nil {
			return nil, err
		}
		for _, p := range parts {
			if p.Attached || !p.month() {
				seen[p.span] = true
			}
		}
	}
	return sorted(seen, compareSpans), nil
}

// allDays are the days that have a table, their own or that of a month.
func (s *store) allDays(ctx context.Context) ([]int32, error) {
	spans, err := s.spans(ctx)
	if err != nil {
		return nil, err
	}
	seen := map[int32]bool{}
	for _, sp := range spans {
		for _, day := range sp.days() {
			seen[day] = true
		}
	}
	return sorted(seen, cmp.Compare), nil
}

// refuseDependents fails if others built on the tables of single days, or of a month, that are going to be swapped.
func (r *rebuild) refuseDependents(ctx context.Context) error {
	moves, err := r.movesToSwap(ctx)
	if err != nil {
		return err
	}
	var names []string
	for _, m := range moves {
		names = append(names, m.tableNames(m.table)...)
	}
	return refuseDependents(ctx, r.lock, r.old.schema, names)
}

// inGroups cuts moves into groups that take so many locks at most, or have one move.
func inGroups(moves []move, locks int) (groups [][]move) {
	left := 0
	for _, m := range moves {
		if left -= m.locks(); left < 0 {
			groups = append(groups, nil)
			left = locks - m.locks()
		}
		groups[len(groups)-1] = append(groups[len(groups)-1], m)
	}
	return groups
}

// moveDays swaps all at once where Postgres has locks for it, else some days at a time.
func (r *rebuild) moveDays(ctx context.Context, moves []move) error {
	var locks int
	if err := r.lock.QueryRow(ctx, `
		SELECT current_setting('max_locks_per_transaction')::int
			* (current_setting('max_connections')::int + current_setting('max_prepared_transactions')::int)`).Scan(&locks); err != nil {
		return fmt.Errorf("ask for the number of locks: %w", err)
	}
	groups := inGroups(moves, locks/2)
	if r.daysAtOnce > 0 {
		groups = inGroups(moves, r.daysAtOnce*len(dailyTables)*2*locksOfTable)
	}
	if len(groups) <= 1 && !r.interrupted {
		return r.inTurn(ctx, func(tx pgx.Tx) error {
			if err := r.moveAll(ctx, tx, moves); err != nil {
				return err
			}
			return r.moveRest(ctx, tx)
		})
	}
	if !r.interrupted {
		if err := r.inTurn(ctx, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, r.old.sql("ALTER TABLE $.checkpoints RENAME TO "+swapping))
			return err
		}); err != nil {
			return err
		}
		r.interrupted = true // from here on a try that fails is taken up where it was
	}
	for _, group := range groups {
		if err := r.inTurn(ctx, func(tx pgx.Tx) error { return r.moveAll(ctx, tx, group) }); err != nil {
			return err
		}
		for _, m := range group {
			for _, day := range m.days() {
				r.swapped[dayTable(m.table, day)] = true
			}
		}
	}
	if err := r.inTurn(ctx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, r.old.sql("ALTER TABLE $."+swapping+" RENAME TO checkpoints")); err != nil {
			return err
		}
		return r.moveRest(ctx, tx)
	}); err != nil {
		return err
	}
	r.interrupted = false
	return nil
}

func (r *rebuild) inTurn(ctx context.Context, do func(pgx.Tx) error) error {
	err := pgx.BeginFunc(ctx, r.lock, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT set_config('lock_timeout', $1, true)", strconv.FormatInt(switchLocks.Milliseconds(), 10)); err != nil {
			return err
		}
		return do(tx)
	})
	if err != nil {
		return fmt.Errorf("swap the tables: %w", err)
	}
	return nil
}

// moveAll moves partitions once nobody reads any of them, nor their tables.
func (r *rebuild) moveAll(ctx context.Context, tx pgx.Tx, moves []move) error {
	tables, names := map[string]bool{}, []string{}
	for _, m := range moves {
		tables[m.table] = true
		names = append(names, m.tableNames(m.table)...)
	}
	rows, err := tx.Query(ctx, `
		SELECT oid::regclass::text FROM pg_class
		WHERE relnamespace = to_regnamespace($1) AND (relkind = 'p' AND relname = ANY ($2) OR relkind IN ('r', 'v') AND relname = ANY ($3))
		ORDER BY relkind <> 'p', relname`, pgx.Identifier{r.old.schema}.Sanitize(), slices.Sorted(maps.Keys(tables)), names)
	if err != nil {
		return fmt.Errorf("look up the tables to swap: %w", err)
	}
	served, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("look up the tables to swap: %w", err)
	}
	if err := lockAll(ctx, tx, time.Now().Add(switchLocks), served); err != nil {
		return err
	}
	for _, m := range moves {
		if err := r.move(ctx, tx, m); err != nil {
			return err
		}
	}
	return nil
}

// move takes served partitions away and puts the rebuilt ones in their place. A month comes back as days, which are merged again later.
func (r *rebuild) move(ctx context.Context, tx pgx.Tx, m move) error {
	if m.month() {
		if err := r.takeMonth(ctx, tx, m); err != nil {
			return fmt.Errorf("%s of %s: %w", m.table, m.span, err)
		}
	}
	for _, day := range m.days() {
		if err := r.moveDay(ctx, tx, m.table, day); err != nil {
			return fmt.Errorf("%s of %s: %w", m.table, daySpan(day), err)
		}
	}
	return nil
}

// takeMonth takes a month's served table away, if this table has it and not its days.
func (r *rebuild) takeMonth(ctx context.Context, tx pgx.Tx, m move) error {
	name := m.span.table(m.table)
	var served bool
	if err := tx.QueryRow(ctx, "SELECT "+isPartition("$1"), r.old.sql("$."+name)).Scan(&served); err != nil || !served {
		return err
	}
	views, err := r.old.dayViews(ctx, tx, m.table, m.span)
	if err != nil {
		return err
	}
	for _, view := range views { // they go with it: somebody may have built on one since the rebuild began
		if _, err := tx.Exec(ctx, "ALTER VIEW "+view+" SET SCHEMA "+OldSchema); err != nil {
			return err
		}
	}
	for _, sql := range []string{
		r.old.sql("ALTER TABLE $." + m.table + " DETACH PARTITION $." + name),
		r.old.sql("ALTER TABLE $." + name + " SET SCHEMA " + OldSchema),
	} {
		if _, err := tx.Exec(ctx, sql); err != nil {
			return err
		}
	}
	return nil
}

func (r *rebuild) moveDay(ctx context.Context, tx pgx.Tx, table string, day int32) error {
	name := dayTable(table, day)
	var served, rebuilt bool
	if err := tx.QueryRow(ctx, "SELECT to_regclass($1) IS NOT NULL, to_regclass($2) IS NOT NULL",
		r.old.sql("$."+name), r.new.sql("$."+name)).Scan(&served, &rebuilt); err != nil {
		return err
	}
	if served && !rebuilt && r.swapped[name] {
		return nil // an earlier try has moved it
	}
	var sqls []string
	if served {
		sqls = append(sqls,
			r.old.sql("ALTER TABLE $."+table+" DETACH PARTITION $."+name),
			r.old.sql("ALTER TABLE $."+name+" SET SCHEMA "+OldSchema))
	}
	if rebuilt {
		sqls = append(sqls,
			r.new.sql("ALTER TABLE $."+table+" DETACH PARTITION $."+name),
			r.new.sql("ALTER TABLE $."+name+" SET SCHEMA "+migrations.Schema),
			// The check says what the partition's bounds say, so nobody has to read the rows for them.
			r.old.sql(daySpan(day).attach(table)),
			r.old.sql("ALTER TABLE $."+name+" DROP CONSTRAINT "+spanCheck))
	}
	for _, sql := range sqls {
		if _, err := tx.Exec(ctx, sql); err != nil {
			return err
		}
	}
	return nil
}

// moveRest takes over the rows of the tables without days. What belongs to days that are carried over stays, and so does what the log can't
// say again: gaps, answers, and who was erased before it begins.
func (r *rebuild) moveRest(ctx context.Context, tx pgx.Tx) error {
	days := make([]time.Time, 0, len(r.carried))
	for day := range r.carried {
		days = append(days, dayTime(day))
	}
	for _, table := range []string{"delivery_stat_hours", "delivery_stat_days"} { // the minutes of a rebuilt day are not merged yet
		if _, err := tx.Exec(ctx, r.old.sql("DELETE FROM $."+table+" WHERE day <> ALL ($1::date[])"), days); err != nil {
			return err
		}
	}
	for _, table := range []string{"duplicates", "broadcast_shards", "broadcast_skips", "template_stat_shards", "notification_balances"} {
		if _, err := tx.Exec(ctx, r.old.sql("DELETE FROM $."+table+" WHERE day <> ALL ($1::date[])"), days); err != nil {
			return err
		}
		from := " SELECT * FROM " + r.new.sql("$."+table) + " WHERE day <> ALL ($1::date[]) ON CONFLICT DO NOTHING"
		if _, err := tx.Exec(ctx, r.old.sql("INSERT INTO $."+table)+from, days); err != nil {
			return err
		}
	}
	topics, ids, starts := r.firstOffsets()
	if _, err := tx.Exec(ctx, r.old.sql(`DELETE FROM $.early_facts AS e WHERE NOT EXISTS (
		SELECT FROM unnest($1::text[], $2::int4[], $3::int8[]) AS s(topic, partition, start)
		WHERE s.topic = e.topic AND s.partition = e.partition AND e."offset" < s.start)`),
		topics, ids, starts); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, r.old.sql("INSERT INTO $.early_facts SELECT * FROM ")+r.new.sql("$.early_facts")+" ON CONFLICT DO NOTHING"); err != nil {
		return err
	}
	// Of a delivery on a day that is carried over, in which it was taken up long ago. Without the days Postgres would lock
	// every day that there is, with its indexes.
	if _, err := tx.Exec(ctx, r.old.sql(`DELETE FROM $.early_facts AS e USING $.deliveries AS d
		WHERE d.notification_id = e.notification_id AND d.user_id = e.user_id AND d.attempts > 0 AND d.day = ANY ($1::date[])`), days); err != nil {
		return err
	}
	for _, sql := range []string{
		r.old.sql("INSERT INTO $.erasures SELECT * FROM ") + r.new.sql("$.erasures") + " ON CONFLICT DO NOTHING",
		r.old.sql("DELETE FROM $.checkpoints"),
		r.old.sql("INSERT INTO $.checkpoints SELECT * FROM ") + r.new.sql("$.checkpoints"),
	} {
		if _, err := tx.Exec(ctx, sql); err != nil {
			return err
		}
	}
	return nil
}

// dropSchema drops a schema's tables one by one: all at once takes more locks than Postgres has, where there are many days. The views of
// days that months had go first.
func dropSchema(ctx context.Context, conn *pgx.Conn, schema string) error {
	rows, err := conn.Query(ctx, `
		SELECT CASE relkind WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END AS kind, relname AS name FROM pg_class
		WHERE relnamespace = to_regnamespace($1) AND relkind IN ('r', 'v') AND relname ~ '_([0-9]{6}|[0-9]{8})$'
		ORDER BY relkind DESC, relname`, schema)
	if err != nil {
		return err
	}
	type relation struct{ Kind, Name string }
	all, err := pgx.CollectRows(rows, pgx.RowToStructByName[relation])
	if err != nil {
		return err
	}
	names := make([]string, len(all))
	for i, rel := range all {
		names[i] = rel.Name
	}
	if err := refuseDependents(ctx, conn, schema, names); err != nil {
		return err
	}
	for _, rel := range all {
		if _, err := conn.Exec(ctx, "DROP "+rel.Kind+" "+pgx.Identifier{schema, rel.Name}.Sanitize()); err != nil {
			return fmt.Errorf("drop %s of %s: %w", rel.Name, schema, err)
		}
	}
	if _, err := conn.Exec(ctx, "DROP SCHEMA IF EXISTS "+pgx.Identifier{schema}.Sanitize()+" CASCADE"); err != nil {
		return fmt.Errorf("drop the schema %s: %w", schema, err)
	}
	return nil
}

// noTable says that a table does not exist.
func noTable(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "42P01" && !strings.Contains(pg.Message, "schema")
}
