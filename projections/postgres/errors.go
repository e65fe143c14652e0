package postgres

import (
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"
)

// OwnSession is what to do about a pooler that hands out another session for each transaction.
const OwnSession = "`whisper project` and `whisper migrate` need a session of their own: give the address of Postgres itself, or of a pool in session mode (PgBouncer: pool_mode = session)"

// Explain adds to an error of Postgres what a person can do about it.
func Explain(err error) error {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return err
	}
	switch {
	case pg.Code == "08P01":
		return fmt.Errorf("a pooler in front of postgres refuses the session's settings: %s: %w", OwnSession, err)
	case pg.Code[:2] == "28":
		return fmt.Errorf("postgres refuses the credentials (check postgres-url): %w", err)
	case pg.Code == "3D000":
		return fmt.Errorf("the database does not exist (check postgres-url): %w", err)
	case pg.Code == "42501":
		return fmt.Errorf("the postgres user lacks a right: %w", err)
	case pg.Code == "42P01", pg.Code == "3F000", pg.Code == "42703":
		return fmt.Errorf("the schema whisper is not what this program needs, run `whisper migrate` (or, where a rebuild was interrupted, `whisper project --rebuild` again): %w", err)
	}
	return err
}
