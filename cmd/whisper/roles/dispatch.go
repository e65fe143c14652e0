package roles

import (
	"context"
	"errors"
	"time"

	"github.com/klivvr/whisper/cmd/whisper/cli"
	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/consumers/dispatch"
	"github.com/klivvr/whisper/domain/decide"
	"github.com/klivvr/whisper/ops"
)

// Dispatch is `whisper dispatch`: it decides what is sent when, and over which channel.
type Dispatch struct {
	Policy      policyFlags `embed:"" group:"policy"`
	WalkRecords int         `default:"${dispatch_walk_records}" zero:"no bound" placeholder:"N" help:"Most records a second that broadcasts may write or cause in this process, however well alerts do; an offline user counts as 2, a connected user as 4 (default ${default}: no bound)."`
	Member      memberFlags `embed:""`
	Role        roleFlags   `embed:""`
}

// policyFlags are what an operator may set of the policy; they must be the same for all dispatch processes.
type policyFlags struct {
	AckTimeout time.Duration `default:"${policy_ack_timeout}" placeholder:"DURATION" help:"How long a client has to acknowledge before the next channel is tried (default ${default})."`
	Spread     time.Duration `default:"${policy_spread}" zero:"at once" placeholder:"DURATION" help:"Time over which deliveries are spread that waited for the same moment: the end of quiet hours, a new day (default ${default})."`
}

func (f policyFlags) policy(window time.Duration) decide.Policy {
	policy := decide.DefaultPolicy()
	policy.AckTimeout, policy.Spread, policy.Window = f.AckTimeout, f.Spread, window
	return policy
}

// Help implements kong.HelpProvider.
func (c *Dispatch) Help() string {
	return `Decides what is sent when, and over which channel, for the users of the partitions that it owns. All dispatch
processes of a cluster share the partitions. Example:

    whisper dispatch --kafka kafka:9092`
}

func (c *Dispatch) config(client consumers.ClientConfig) dispatch.Config {
	return dispatch.Config{
		Client: client, Partitions: c.Role.Topics.Partitions,
		Policy: c.Policy.policy(c.Role.Topics.DuplicateWindow), WalkRecords: c.WalkRecords,
	}
}

func (c *Dispatch) Check() error {
	return distinct(errors.Join(c.Role.Check(), c.Member.Check(), c.config(c.Role.client("dispatch", nil)).Validate()))
}

func (c *Dispatch) Run(ctx context.Context, p *cli.Process) error {
	return c.Role.run(ctx, p, "dispatch", func(_ context.Context, r Base) ([]Component, error) {
		r.Client = c.Member.of(r.Client)
		return BuildDispatch(r, c.config(r.Client))
	})
}

// BuildDispatch makes the components of the role dispatch; the base fills in what cfg leaves to the process.
func BuildDispatch(r Base, cfg dispatch.Config) ([]Component, error) {
	cfg.Client, cfg.Partitions, cfg.Now, cfg.Logger = r.Client, r.Topology.Partitions, r.Now, r.Log
	d, err := dispatch.New(cfg)
	if err != nil {
		return nil, err
	}
	r.Server.Partitions("dispatch", d)
	r.Server.Pace(func() ops.BroadcastPace {
		p := d.Pace()
		return ops.BroadcastPace{
			Limit: p.Limit, PerSecond: p.PerSecond, ConnectedLimit: p.Connected, ConnectedPerSecond: p.ConnectedPerSecond, HeldBy: p.HeldBy,
		}.WithWords()
	})
	return []Component{{"dispatch", d.Run, d.Ready}}, nil
}
