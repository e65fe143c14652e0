package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/klivvr/whisper/projections/query"
)

// PostgresFlags say where the read models are.
type PostgresFlags struct {
	Postgres string `default:"postgres://whisper:whisper@127.0.0.1:5433/whisper" placeholder:"URL" help:"URL of Postgres (default: the one of whisper dev). If it has a password, better set it in the environment, because others can see a command line."`
}

// Check parses the URL without repeating it: it holds a password.
func (f PostgresFlags) Check() error {
	if _, err := pgx.ParseConfig(f.Postgres); err != nil {
		return fmt.Errorf("postgres: is not a URL: give one like postgres://user:password@host:5432/database")
	}
	return nil
}

// WithReader opens the tables, calls ask with a reader of them and closes it. All of it has 30 seconds: a person waits.
func (f PostgresFlags) WithReader(ctx context.Context, ask func(context.Context, *query.Reader) error) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	reader, err := query.Open(ctx, f.Postgres)
	if err != nil {
		return err
	}
	defer reader.Close()
	return ask(ctx, reader)
}
