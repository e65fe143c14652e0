package main

import (
	"fmt"

	"github.com/jackc/pgx/v5"
)

// postgresFlags say where the read models are.
type postgresFlags struct {
	Postgres string `default:"postgres://whisper:whisper@127.0.0.1:5433/whisper" placeholder:"URL" help:"Where Postgres is (default: the one of whisper dev); better given in the environment if it has a password, since others can see a command line."`
}

// Check parses the URL without repeating it: it holds a password.
func (f postgresFlags) Check() error {
	if _, err := pgx.ParseConfig(f.Postgres); err != nil {
		return fmt.Errorf("postgres: is not a URL like postgres://user:password@host:5432/database")
	}
	return nil
}
