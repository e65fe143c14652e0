package projections

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// verdict is what an error of Postgres means for the batch that got it.
type verdict int

const (
	// wait: Postgres is away or busy; the same batch can succeed later.
	wait verdict = iota
	// lost: somebody else moved a checkpoint; look where it is and go on from there.
	lost
	// poison: Postgres refuses a value of the batch, today and tomorrow.
	poison
	// stop: a person has to change something.
	stop
)

// judge decides once, by SQLSTATE class, what becomes of an error.
func judge(err error) verdict {
	var own *stopError
	if errors.As(err, &own) {
		return stop
	}
	if errors.Is(err, errLost) {
		return lost
	}
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return wait // the network, or a connection that broke
	}
	if pg.Code == "0A000" || pg.Code == "26000" {
		return wait // a prepared statement of before a change of the schema: the next connection prepares anew
	}
	if pg.Code == "08P01" {
		return stop // whoever answers does not speak as Postgres does: a pooler
	}
	switch pg.Code[:2] {
	case "22", "23": // data exception, integrity constraint
		return poison
	case "08", "40", "53", "55", "57", "58", "25", "XX":
		// connection, rollback (deadlock), resources, not in the state, operator intervention (shutdown,
		// starting up), system error, transaction state (read only: a standby), internal error
		return wait
	default: // 28 authorization, 3D and 3F no such database or schema, 42 no right or no such table, …
		return stop
	}
}

// readOnly says that the server does not take writes any more: it was demoted, or made read-only. Sessions that are open stay so, whatever
// becomes of the server; new ones may be better.
func readOnly(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "25006"
}

// backoff is how long to wait before the next try.
type backoff struct{ next time.Duration }

const (
	backoffMin = 100 * time.Millisecond
	backoffMax = 5 * time.Second
)

// wait returns early, with ctx's error, when ctx ends.
func (b *backoff) wait(ctx context.Context) error {
	b.next = min(max(2*b.next, backoffMin), backoffMax)
	timer := time.NewTimer(b.next)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ended says that a clean stop was asked for; what failed because of it is no error.
func ended(ctx context.Context) bool { return ctx.Err() != nil }
