package roles

import (
	"context"
	"fmt"

	"github.com/klivvr/whisper/cmd/whisper/cli"
	"github.com/klivvr/whisper/migrations"
)

// Migrate is `whisper migrate`: it brings the Postgres schema up to date.
type Migrate struct {
	Dry      bool              `name:"check" help:"Change nothing; exit with 1 if there is something to do."`
	Postgres cli.PostgresFlags `embed:"" group:"postgres"`
}

// Help implements kong.HelpProvider.
func (c *Migrate) Help() string {
	return "Migrations only go forward. Several processes may start it at once: one migrates, the others wait for it."
}

func (c *Migrate) Check() error { return c.Postgres.Check() }

func (c *Migrate) Run(ctx context.Context, p *cli.Process) error {
	if c.Dry {
		return migrations.Check(ctx, c.Postgres.Postgres)
	}
	if err := migrations.Up(ctx, c.Postgres.Postgres, p.Log); err != nil {
		return err
	}
	_, err := fmt.Fprintln(p.Stdout, "the schema whisper is up to date")
	return err
}
