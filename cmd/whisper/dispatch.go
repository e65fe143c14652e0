package main

import (
	"context"
	"errors"
	"time"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/consumers/dispatch"
	"github.com/klivvr/whisper/domain/decide"
)

type dispatchCmd struct {
	Policy      policyFlags `embed:"" group:"policy"`
	WalkRecords int         `default:"40000" placeholder:"N" help:"How many records a second broadcasts may write and cause, in this process (a connected user counts as 16): less is gentler to what else Kafka does (default ${default})."`
	Role        roleFlags   `embed:""`
}

// policyFlags are what an operator may set of the policy; they must be the same for all dispatch processes.
type policyFlags struct {
	AckTimeout time.Duration `default:"10s" placeholder:"DURATION" help:"How long a client has to acknowledge before the next channel is tried (default ${default})."`
	Spread     time.Duration `default:"15m" zero:"at once" placeholder:"DURATION" help:"Over how long what waited for the same hour (the end of quiet hours, a new day) is let out (default ${default})."`
}

func (f policyFlags) policy(window time.Duration) decide.Policy {
	policy := decide.DefaultPolicy()
	policy.AckTimeout, policy.Spread, policy.Window = f.AckTimeout, f.Spread, window
	return policy
}

// Help implements kong.HelpProvider.
func (c *dispatchCmd) Help() string {
	return `Owns users' partitions and decides what is sent when over which channel. All processes of one cluster share the partitions. Example:

    whisper dispatch --kafka kafka:9092`
}

func (c *dispatchCmd) config(client consumers.ClientConfig) dispatch.Config {
	return dispatch.Config{Client: client, Partitions: c.Role.Topics.Partitions, Policy: c.Policy.policy(c.Role.Topics.DuplicateWindow), WalkRecords: c.WalkRecords}
}

func (c *dispatchCmd) Check() error {
	return distinct(errors.Join(c.Role.Check(), c.config(c.Role.client("dispatch", nil)).Validate()))
}

func (c *dispatchCmd) Run(ctx context.Context, p *process) error {
	return c.Role.run(ctx, p, "dispatch", func(_ context.Context, r role) ([]component, error) {
		return dispatchRole(r, c.config(r.client))
	})
}

func dispatchRole(r role, cfg dispatch.Config) ([]component, error) {
	cfg.Client, cfg.Partitions, cfg.Now, cfg.Logger = r.client, r.topology.Partitions, r.now, r.log
	d, err := dispatch.New(cfg)
	if err != nil {
		return nil, err
	}
	r.server.Partitions("dispatch", d)
	return []component{{"dispatch", d.Run, d.Ready}}, nil
}
