package projections

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// What is missing of a notification is kept: its recipients less what is counted of it. Most transactions write
// requests and deliveries that add up, and nothing here; the others add a row for each notification that they leave
// open, or complete. So `conservation` looks only at what does not add up, and not at every notification there is.

// balanceKey is a notification on one day.
type balanceKey struct {
	notificationID string
	day            int32
}

type balances map[balanceKey]int64

func compareBalances(a, b balanceKey) int {
	return cmp.Or(cmp.Compare(a.day, b.day), cmp.Compare(a.notificationID, b.notificationID))
}

// keepsBalances tells the triggers, which do it for projectors of the version before, that this transaction keeps them itself.
const keepsBalances = "set_config('whisper.balances', 'kept', true)"

// writeBalances adds rows and changes none, so two transactions never wait for each other here.
func (t *transaction) writeBalances(ctx context.Context) error {
	cols := arrays(oidText, oidDate, oidInt8)
	for _, key := range sorted(t.balances, compareBalances) {
		if t.balances[key] == 0 {
			continue
		}
		f := cols.add()
		f[0].text(key.notificationID)
		f[1].day(key.day)
		f[2].int8(t.balances[key])
	}
	if cols.rows == 0 {
		return nil
	}
	_, err := t.run(ctx, t.tx, `
		INSERT INTO $.notification_balances (notification_id, day, balance)
		SELECT * FROM unnest($1::text[], $2::date[], $3::int8[])`, cols.params()...)
	return err
}

const (
	// lockBalance is held by the projector that adds balances up.
	lockBalance = -7

	mergeBalancesSQL = `
		WITH sums AS MATERIALIZED (
			SELECT notification_id, day, sum(balance)::bigint AS balance FROM $.notification_balances
			GROUP BY 1, 2 HAVING count(*) > 1 OR sum(balance) = 0
		), gone AS (
			DELETE FROM $.notification_balances AS b USING sums AS s
			WHERE b.notification_id = s.notification_id AND b.day = s.day RETURNING 1
		), kept AS (
			INSERT INTO $.notification_balances SELECT notification_id, day, balance FROM sums WHERE balance <> 0
		) SELECT count(*) FROM gone`

	// balanceDaysSQL adds what the balances of days lack. It sees one state of all tables, in which balances and what they are of
	// change together; and it only adds, so what is written meanwhile stays counted.
	balanceDaysSQL = `
		INSERT INTO $.notification_balances (notification_id, day, balance)
		SELECT notification_id, day, sum(n)::bigint FROM (
			SELECT notification_id, day, recipients AS n FROM $.notification_requests WHERE day = ANY ($1::date[])
			UNION ALL
			SELECT notification_id, day, -(accepted + scheduled + deferred + unknown + cancelled + suppressed + expired + failed
				+ sent + delivered + read + duplicates)
			FROM $.notification_shards WHERE day = ANY ($1::date[])
			UNION ALL SELECT notification_id, day, matched FROM $.broadcast_shards WHERE day = ANY ($1::date[])
			UNION ALL SELECT notification_id, day, -balance FROM $.notification_balances WHERE day = ANY ($1::date[])
		) AS parts GROUP BY notification_id, day HAVING sum(n) <> 0`
)

// mergeBalances adds up what is kept of each notification and removes what has come to nothing; days from before balances were kept
// are counted once. Only one projector does so at a time; while another does, it returns errElsewhere.
func (s *store) mergeBalances(ctx context.Context) (err error) {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	var alone bool
	if err := conn.QueryRow(ctx, "SELECT pg_try_advisory_lock($1, $2)", s.class, int32(lockBalance)).Scan(&alone); err != nil {
		return fmt.Errorf("take the lock of who adds balances up: %w", err)
	}
	if !alone {
		return errElsewhere
	}
	defer func() { err = errors.Join(err, s.unlock(ctx, conn.Conn(), lockBalance)) }()
	parts, err := s.parts(ctx, conn, "notification_shards")
	if err != nil {
		return err
	}
	for _, p := range parts {
		if err := s.balanceSpan(ctx, conn, p.span); err != nil {
			return fmt.Errorf("count the notifications of %s: %w", p.span, err)
		}
	}
	return s.balanceTurn(ctx, conn, func(tx pgx.Tx) error {
		var merged int64
		if err := tx.QueryRow(ctx, s.sql(mergeBalancesSQL)).Scan(&merged); err != nil {
			return fmt.Errorf("add balances up: %w", err)
		}
		return nil
	})
}

// balanceSpan counts the notifications of a day, or of the days of a month, unless that was done.
func (s *store) balanceSpan(ctx context.Context, conn *pgxpool.Conn, sp span) error {
	from, to := dayTime(sp.first), dayTime(sp.end-1)
	var days []time.Time
	err := conn.QueryRow(ctx, s.sql(`
		SELECT coalesce(array_agg(day), '{}') FROM (
			SELECT d::date AS day FROM generate_series($1::timestamp, $2::timestamp, interval '1 day') AS d
			EXCEPT SELECT day FROM $.balanced_days WHERE day BETWEEN $1::timestamp AND $2::timestamp
		) AS missing`), from, to).Scan(&days)
	if err != nil || len(days) == 0 {
		return err
	}
	return s.balanceTurn(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, s.sql(balanceDaysSQL), days); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, s.sql("INSERT INTO $.balanced_days SELECT unnest($1::date[])"), days)
		return err
	})
}

// balanceTurn does something in a transaction, beside writers but not beside a rebuild's swap.
func (s *store) balanceTurn(ctx context.Context, conn *pgxpool.Conn, do func(pgx.Tx) error) error {
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		defer s.tellBlockers(ctx, tx.Conn(), "add balances up")()
		// Whole tables are added up; the writers' plans look rows up.
		if _, err := tx.Exec(ctx, "SET LOCAL enable_seqscan = on; SET LOCAL enable_bitmapscan = on; SET LOCAL enable_hashjoin = on"); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock_shared($1, $2)", s.class, int32(lockSwap)); err != nil {
			return fmt.Errorf("wait for a rebuild: %w", err)
		}
		return do(tx)
	})
}
