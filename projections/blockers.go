package projections

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	// lockTimeout bounds every wait for somebody else's lock. What could not be done is tried again, and all else goes on.
	lockTimeout = 10 * time.Second
	// tellAfter is how long a statement runs before it is asked whom it waits for.
	tellAfter = 2 * time.Second
	// toldEvery is how often the same wait is told of in the log.
	toldEvery = time.Minute
)

// lockTimedOut says that somebody else held a lock for too long, or that Postgres ended this transaction, and no other one, because two
// waited for each other. Both pass.
func lockTimedOut(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && (pg.Code == "55P03" || pg.Code == "40P01")
}

// lockAll takes the lock that stops everybody on tables and views, which must be there, until a deadline. It waits for one only while it
// has none of the others: a reader who has one of them and then asks for another would wait for this transaction, and this one for the
// reader, until Postgres ends one of them, most often the reader. Whoever reads a partitioned table asks for that first, then for its
// partitions, so the first of the names should be that: those readers are waited for, and the others are hardly ever met.
//
// What somebody has is waited for, and named in the log meanwhile, as the first one of the next try: it is kept then, so where one table
// is always read, by one after the other, nobody comes between. Where that is so of two of them, the deadline ends it.
func lockAll(ctx context.Context, tx pgx.Tx, deadline time.Time, names []string) error {
	names = slices.Clone(names)
	for {
		busy, err := tryLockAll(ctx, tx, deadline, names)
		if err == nil || busy == 0 || !time.Now().Before(deadline) {
			return err
		}
		name := names[busy]
		names = slices.Insert(slices.Delete(names, busy, busy+1), 0, name)
	}
}

// tryLockAll waits for the first lock only, and says which of the others somebody has (0: none); it keeps none then.
func tryLockAll(ctx context.Context, tx pgx.Tx, deadline time.Time, names []string) (busy int, err error) {
	err = inSavepoint(ctx, tx, func() error {
		for i, name := range names {
			var err error
			if i == 0 {
				err = lockUntil(ctx, tx, deadline, lockTable(name))
			} else if _, err = tx.Exec(ctx, lockTable(name)+" NOWAIT"); lockTimedOut(err) {
				busy = i
			}
			if err != nil {
				return fmt.Errorf("make readers of %s wait: %w", name, err)
			}
		}
		return nil
	})
	return busy, err
}

func lockTable(name string) string { return "LOCK TABLE ONLY " + name + " IN ACCESS EXCLUSIVE MODE" }

// inSavepoint does something and gives back the locks that it took if it fails.
func inSavepoint(ctx context.Context, tx pgx.Tx, do func() error) error {
	return pgx.BeginFunc(ctx, tx, func(pgx.Tx) error { return do() })
}

// lockUntil runs a statement that takes a lock. lock_timeout is for one lock, so each gets what is left.
func lockUntil(ctx context.Context, tx pgx.Tx, deadline time.Time, sql string, args ...any) error {
	left := max(time.Until(deadline).Milliseconds(), 1) // 0 would be no limit
	if _, err := tx.Exec(ctx, "SELECT set_config('lock_timeout', $1, true)", strconv.FormatInt(left, 10)); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, sql, args...)
	return err
}

// waiting is what is waited to do, and for whose session.
type waiting struct {
	doing string
	pid   int32
}

// tellBlockers logs whom the connection waits for, should what it does now take long, until the returned function is called. It asks
// again and again: what takes long may wait for nobody at first, and for another one later.
func (s *store) tellBlockers(ctx context.Context, conn *pgx.Conn, doing string) (stop func()) {
	pid := conn.PgConn().PID()
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		tick := time.NewTicker(tellAfter)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				s.logBlockers(ctx, pid, doing)
			case <-ctx.Done():
				return
			}
		}
	}()
	return cancel
}

func (s *store) logBlockers(ctx context.Context, pid uint32, doing string) {
	rows, err := s.pool.Query(ctx, `
		SELECT a.pid, coalesce(a.usename, ''), coalesce(a.application_name, ''), coalesce(a.state, ''),
			coalesce(extract(epoch FROM now() - a.xact_start), 0)::float8
		FROM unnest(pg_blocking_pids($1)) AS b(pid) JOIN pg_stat_activity AS a USING (pid)`, int32(pid))
	if err != nil {
		return // whoever waits tells of Postgres's absence
	}
	type blocker struct {
		PID                      int32
		User, Application, State string
		Seconds                  float64
	}
	blockers, err := pgx.CollectRows(rows, pgx.RowToStructByPos[blocker])
	if err != nil {
		return
	}
	for _, b := range blockers {
		if s.toldOf(waiting{doing, b.PID}) {
			continue
		}
		s.log.Warn("waiting for somebody else's transaction in postgres",
			"to", doing, "pid", b.PID, "user", b.User, "application", b.Application, "state", b.State, "transaction_seconds", b.Seconds)
	}
}

// toldOf says whether the log was told of a wait within toldEvery; if not, it is now.
func (s *store) toldOf(w waiting) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	maps.DeleteFunc(s.told, func(_ waiting, at time.Time) bool { return now.Sub(at) >= toldEvery })
	if _, told := s.told[w]; told {
		return true
	}
	s.told[w] = now
	return false
}
