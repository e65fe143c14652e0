package projections

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/klivvr/whisper/domain/request"
)

// maxLife is how long a delivery can be pending at most: it waits for its send_at, then for its recipient until its ttl
// is over; two days are for clocks and for the last facts.
const maxLife = request.MaxSchedule + request.MaxTTL + 48*time.Hour

// heldFor is how long a day that is kept for what is pending in it is not looked at again.
const heldFor = 6 * time.Hour

// A retention says which days are dropped.
type retention struct {
	days int // how many are kept
	// most is how many days may be dropped at once. More than that is taken for a mistake, such as a clock that is ahead.
	most int
	// dropped is told of each day that went.
	dropped func(day string)
}

// serverTime is Postgres's clock.
func (s *store) serverTime(ctx context.Context) (at time.Time, err error) {
	err = s.pool.QueryRow(ctx, "SELECT clock_timestamp()").Scan(&at)
	return at, err
}

// errElsewhere says that another projector, or a rebuild, is doing the same. Nothing was done.
var errElsewhere = errors.New("another projector or a rebuild is doing it")

// maintain makes the tables of the days to come and drops those that are too old at a time. now must not be ahead; what is newest in the
// tables bounds it as well. While somebody else drops days it returns errElsewhere.
func (s *store) maintain(ctx context.Context, now time.Time, r retention) error {
	today := int32(now.Unix() / 86_400)
	if err := s.ensureDays(ctx, []int32{today, today + 1, today + 2}); err != nil {
		return err
	}
	newest, err := s.newestDay(ctx)
	if err != nil {
		return err
	}
	if _, err := s.pool.Exec(ctx, s.sql(keyErasures)); err != nil {
		return fmt.Errorf("give hashes of erased users the key: %w", err)
	}
	// One day more than facts are taken for, so that no fact finds its day gone.
	return s.dropDays(ctx, min(today, newest)-int32(r.days)-1, r)
}

// newestDay is the newest day that has a delivery; where none has, no day is old.
func (s *store) newestDay(ctx context.Context) (int32, error) {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return 0, err
	}
	defer conn.Release()
	parts, err := s.parts(ctx, conn, "deliveries")
	if err != nil {
		return 0, err
	}
	for _, p := range slices.Backward(parts) {
		if !p.served() {
			continue
		}
		var any bool
		if err := conn.QueryRow(ctx, s.sql("SELECT EXISTS (SELECT FROM $."+p.Name+")")).Scan(&any); err != nil {
			return 0, fmt.Errorf("look for the newest delivery: %w", err)
		}
		if any {
			return p.first, nil // of a month the first day, so that too little is called old, not too much
		}
	}
	return 0, nil
}

// dropDays drops the partitions that have only days before a day, and such rows of the tables without partitions. A month stays
// until its last day is old. Only one projector does so at a time; its lock is not the one under which days are made, so whoever
// waits here holds nobody up.
func (s *store) dropDays(ctx context.Context, before int32, r retention) (err error) {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	var alone bool
	if err := conn.QueryRow(ctx, "SELECT pg_try_advisory_lock($1, $2)", s.class, int32(lockDrop)).Scan(&alone); err != nil {
		return fmt.Errorf("take the lock of who drops days: %w", err)
	}
	if !alone {
		return errElsewhere
	}
	defer func() { err = errors.Join(err, s.unlock(ctx, conn.Conn(), lockDrop)) }()
	old, err := s.oldSpans(ctx, conn, before)
	if err != nil {
		return err
	}
	var due []span
	var held []int32
	var failed []error
	overdue := 0
	for _, sp := range old {
		stays := sp.end > before // a month whose last days are kept
		if !stays {
			if stays, err = s.heldSpan(ctx, conn, sp, before-int32(maxLife/(24*time.Hour))); err != nil {
				return err
			}
		}
		if !stays {
			// Before any of its tables is taken away: what others built on one keeps all of them served, and drops nothing else later.
			if err := s.refuseDrop(ctx, conn, sp); err != nil {
				failed = append(failed, fmt.Errorf("drop the tables of %s: %w", sp, err))
				stays = true
			}
		}
		if stays {
			held = append(held, sp.days()...)
			continue
		}
		due = append(due, sp)
		overdue += int(min(sp.end-sp.first, before-sp.end+1)) // a month counts the days for which it could have been dropped
	}
	if overdue > r.most {
		return errors.Join(append(failed, fmt.Errorf("%d days of deliveries, %s to %s, are older than %d days: "+
			"more than %d at once are not dropped, unless --max-drop-days says so; are the clocks right?",
			overdue, due[0], due[len(due)-1], r.days, r.most))...)
	}
	for _, sp := range due {
		if err := s.dropSpan(ctx, conn, sp); err != nil {
			failed = append(failed, fmt.Errorf("drop the tables of %s: %w", sp, err))
			continue
		}
		s.log.Info("a day of deliveries is older than what is kept and was dropped", "day", sp.String())
		if r.dropped != nil {
			r.dropped(sp.String())
		}
	}
	failed = append(failed, s.deleteOld(ctx, conn, before, held))
	return errors.Join(failed...)
}

// oldSpans are those with days before a day that have a table left, the oldest first.
func (s *store) oldSpans(ctx context.Context, conn *pgxpool.Conn, before int32) ([]span, error) {
	seen := map[span]bool{}
	for _, t := range dailyTables {
		parts, err := s.parts(ctx, conn, t.name)
		if err != nil {
			return nil, err
		}
		for _, p := range parts {
			if p.first < before {
				seen[p.span] = true
			}
		}
	}
	return sorted(seen, compareSpans), nil
}

// heldSpan says whether something of a day or month is pending that can still come to an end: a delivery that waits for its send_at
// lives longer than the days that are kept. Before limit nothing can; what is pending then lost its facts.
func (s *store) heldSpan(ctx context.Context, conn *pgxpool.Conn, sp span, limit int32) (held bool, err error) {
	if sp.end <= limit {
		return false, nil
	}
	s.mu.Lock()
	until := s.held[sp.first]
	s.mu.Unlock()
	if time.Now().Before(until) {
		return true, nil
	}
	there, err := s.hasDay(ctx, sp.first)
	if err != nil || !there {
		return false, err
	}
	// What is pending was neither sent nor ended: the index deliveries_pending has it.
	err = conn.QueryRow(ctx, s.sql(`
		SELECT EXISTS (
			SELECT FROM $.deliveries
			WHERE day >= $1 AND day < $2 AND sent_at IS NULL AND ended_at IS NULL AND status IN ('accepted', 'scheduled', 'deferred', 'unknown')
		) OR EXISTS (SELECT FROM $.broadcast_shards WHERE day >= $1 AND day < $2 AND NOT settled)`),
		dayTime(max(sp.first, limit)), dayTime(sp.end)).Scan(&held)
	if err != nil {
		return false, fmt.Errorf("look for pending deliveries of %s: %w", sp, err)
	}
	if held {
		s.mu.Lock()
		s.held[sp.first] = time.Now().Add(heldFor)
		s.mu.Unlock()
	}
	return held, nil
}

// refuseDrop fails if others built on a table of a day or month.
func (s *store) refuseDrop(ctx context.Context, conn *pgxpool.Conn, sp span) error {
	var names []string
	for _, t := range dailyTables {
		names = append(names, sp.tableNames(t.name)...)
	}
	return refuseDependents(ctx, conn, s.schema, names)
}

// dropSpan drops the tables of one day or month. Detaching CONCURRENTLY stops nobody; it waits for those who read the table, for
// lockTimeout at most. It needs a connection without transaction, and a try that was interrupted has to be finished: the next time.
func (s *store) dropSpan(ctx context.Context, conn *pgxpool.Conn, sp span) error {
	s.mu.Lock()
	for _, day := range sp.days() {
		delete(s.days, day)
	}
	s.mu.Unlock()
	for _, t := range dailyTables {
		parts, err := s.parts(ctx, conn, t.name)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(parts, func(p part) bool { return p.span == sp })
		if i < 0 {
			continue
		}
		if err := s.dropPart(ctx, conn, t.name, parts[i]); err != nil {
			return err
		}
	}
	return nil
}

func (s *store) dropPart(ctx context.Context, conn *pgxpool.Conn, table string, p part) error {
	defer s.tellBlockers(ctx, conn.Conn(), "drop "+p.Name)()
	if p.Attached {
		how := "CONCURRENTLY"
		if p.Pending {
			how = "FINALIZE"
		}
		if _, err := conn.Exec(ctx, s.sql("ALTER TABLE $."+table+" DETACH PARTITION $."+p.Name+" "+how)); err != nil {
			return err
		}
	}
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if p.month() {
			views, err := s.dayViews(ctx, tx, table, p.span)
			if err != nil {
				return err
			}
			if err := lockAll(ctx, tx, time.Now().Add(lockTimeout), append([]string{s.sql("$." + p.Name)}, views...)); err != nil {
				return err
			}
			if err := dropViews(ctx, tx, views); err != nil {
				return err
			}
		}
		_, err := tx.Exec(ctx, s.sql("DROP TABLE $."+p.Name))
		return err
	})
}

// deleteOld deletes from the tables without partitions, but what belongs to a day whose deliveries stay.
func (s *store) deleteOld(ctx context.Context, conn *pgxpool.Conn, before int32, held []int32) error {
	days := make([]time.Time, len(held))
	oldest := before
	for i, day := range held {
		days[i] = dayTime(day)
		oldest = min(oldest, day)
	}
	for _, table := range []string{
		"duplicates", "broadcast_shards", "broadcast_skips", "delivery_stat_hours", "delivery_stat_days", "template_stat_shards",
		"notification_balances", "balanced_days",
	} {
		if _, err := conn.Exec(ctx, s.sql("DELETE FROM $."+table+" WHERE day < $1 AND day <> ALL ($2::date[])"), dayTime(before),
			days); err != nil {
			return fmt.Errorf("delete old rows of %s: %w", table, err)
		}
	}
	// Facts about a held day still come; whoever was erased stays so.
	for _, table := range []string{"early_facts", "erasures", "gaps"} {
		if _, err := conn.Exec(ctx, s.sql("DELETE FROM $."+table+" WHERE at < $1"), dayTime(oldest)); err != nil {
			return fmt.Errorf("delete old rows of %s: %w", table, err)
		}
	}
	if _, err := conn.Exec(ctx, s.sql("DELETE FROM $.answer_shards WHERE minute < $1"), dayTime(before)); err != nil {
		return fmt.Errorf("delete old rows of answer_shards: %w", err)
	}
	return nil
}
