package migrations

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// lockTimeout is how long one statement waits for a lock, and so how long others wait behind it.
const lockTimeout = "1s"

// The pauses between two tries, in which others get the tables.
const (
	firstPause = time.Second
	maxPause   = 10 * time.Second
)

// patience tries again what did not get its lock.
type patience struct {
	db     *sql.DB
	schema string
	log    *slog.Logger
}

// do tries until it is something else than a lock that is missing.
func (p patience) do(ctx context.Context, try func(context.Context) error) error {
	pause := firstPause
	for {
		err := try(ctx)
		if !lockMissing(err) {
			return err
		}
		holders := p.holders(ctx)
		p.log.Warn("the tables are in use, trying again", "schema", p.schema, "held_by", holders, "pause_seconds", pause.Seconds())
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: the tables are held by %s", ctx.Err(), holders)
		case <-time.After(pause):
		}
		pause = min(2*pause, maxPause)
	}
}

func lockMissing(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && (pg.Code == "55P03" || pg.Code == "40P01") // the second: two waited for each other
}

// holders names the sessions that hold a lock on something of the schema, the oldest transaction first.
func (p patience) holders(ctx context.Context) string {
	rows, err := p.db.QueryContext(ctx, `
		SELECT format('pid %s (%s, %s, %s, transaction open for %s s)', a.pid, a.usename, nullif(a.application_name, ''), a.state,
			extract(epoch FROM now() - a.xact_start)::bigint)
		FROM pg_stat_activity AS a
		WHERE a.pid <> pg_backend_pid() AND EXISTS (
			SELECT FROM pg_locks AS l JOIN pg_class AS c ON c.oid = l.relation
			WHERE l.pid = a.pid AND l.granted AND l.locktype = 'relation' AND c.relnamespace = to_regnamespace($1))
		ORDER BY a.xact_start LIMIT 5`, pgx.Identifier{p.schema}.Sanitize())
	if err != nil {
		return "sessions that could not be listed: " + err.Error()
	}
	defer func() { _ = rows.Close() }()
	var all []string
	for rows.Next() {
		var one string
		if err := rows.Scan(&one); err != nil {
			return "sessions that could not be listed: " + err.Error()
		}
		all = append(all, one)
	}
	if err := rows.Err(); err != nil || len(all) == 0 {
		return "sessions that have let go meanwhile"
	}
	return strings.Join(all, ", ")
}
