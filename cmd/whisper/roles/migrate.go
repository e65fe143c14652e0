package roles

import (
	"context"
	"fmt"

	"github.com/klivvr/whisper/cmd/whisper/cli"
	"github.com/klivvr/whisper/migrations"
)

// Migrate is `whisper migrate`: it brings the Postgres schema up to date.
type Migrate struct {
	Dry      bool              `name:"check" help:"Change nothing; exit code 1 when something is to be done."`
	Postgres cli.PostgresFlags `embed:"" group:"postgres"`
}

// Help implements kong.HelpProvider.
func (c *Migrate) Help() string {
	return "Forward only, and safe when several processes do it at once: one does, the others wait for it."
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
