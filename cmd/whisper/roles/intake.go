package roles

import (
	"context"
	"errors"

	"github.com/klivvr/whisper/cmd/whisper/cli"
	"github.com/klivvr/whisper/consumers/intake"
)

// Intake is `whisper intake`: it takes requests and profiles from upstream.
type Intake struct {
	Member memberFlags `embed:""`
	Role   roleFlags   `embed:""`
}

// Help implements kong.HelpProvider.
func (c *Intake) Help() string {
	return `Reads requests and profiles, refuses invalid ones with a reason, and hands each recipient's delivery to dispatch.
Keeps no state. Example:

    whisper intake --kafka kafka:9092`
}

func (c *Intake) Check() error { return errors.Join(c.Role.Check(), c.Member.Check()) }

func (c *Intake) Run(ctx context.Context, p *cli.Process) error {
	return c.Role.run(ctx, p, "intake", func(_ context.Context, r Base) ([]Component, error) {
		r.Client = c.Member.of(r.Client)
		return BuildIntake(r)
	})
}

// BuildIntake makes the components of the role intake.
func BuildIntake(r Base) ([]Component, error) {
	in, err := intake.New(intake.Config{Client: r.Client, Partitions: r.Topology.Partitions, Now: r.Now, Logger: r.Log})
	if err != nil {
		return nil, err
	}
	r.Server.Partitions("intake", in)
	return []Component{{"intake", in.Run, in.Ready}}, nil
}
