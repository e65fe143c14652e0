package main

import (
	"context"

	"github.com/klivvr/whisper/consumers/intake"
)

type intakeCmd struct {
	Role roleFlags `embed:""`
}

// Help implements kong.HelpProvider.
func (c *intakeCmd) Help() string {
	return `Reads requests and profiles, refuses what is wrong with a reason, and hands each recipient's delivery to dispatch. Keeps no state. Example:

    whisper intake --kafka kafka:9092`
}

func (c *intakeCmd) Check() error { return c.Role.Check() }

func (c *intakeCmd) Run(ctx context.Context, p *process) error {
	return c.Role.run(ctx, p, "intake", func(_ context.Context, r role) ([]component, error) {
		return intakeRole(r)
	})
}

func intakeRole(r role) ([]component, error) {
	in, err := intake.New(intake.Config{Client: r.client, Partitions: r.topology.Partitions, Now: r.now, Logger: r.log})
	if err != nil {
		return nil, err
	}
	r.server.Partitions("intake", in)
	return []component{{"intake", in.Run, in.Ready}}, nil
}
