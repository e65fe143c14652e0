package main

import (
	"context"
	"fmt"

	"github.com/klivvr/whisper/migrations"
)

type migrateCmd struct {
	Dry      bool          `name:"check" help:"Change nothing; exit code 1 when something is to be done."`
	Postgres postgresFlags `embed:"" group:"postgres"`
}

// Help implements kong.HelpProvider.
func (c *migrateCmd) Help() string {
	return "Forward only, and safe when several processes do it at once: one does, the others wait for it."
}

func (c *migrateCmd) Check() error { return c.Postgres.Check() }

func (c *migrateCmd) Run(ctx context.Context, p *process) error {
	if c.Dry {
		return migrations.Check(ctx, c.Postgres.Postgres)
	}
	if err := migrations.Up(ctx, c.Postgres.Postgres, p.log); err != nil {
		return err
	}
	_, err := fmt.Fprintln(p.stdout, "the schema whisper is up to date")
	return err
}
