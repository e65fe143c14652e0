package projections

import (
	"context"
	"errors"
	"maps"
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

// lockTimedOut says that somebody else held a lock for longer than lockTimeout.
func lockTimedOut(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "55P03"
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
