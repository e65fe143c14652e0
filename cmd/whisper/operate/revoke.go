package operate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/cmd/whisper/cli"
	"github.com/klivvr/whisper/domain/whisperv1"
	"github.com/klivvr/whisper/gateway"
)

// Revoke is `whisper revoke`: it closes a user's sockets and refuses the tokens that opened them.
type Revoke struct {
	User    string         `required:"" placeholder:"ID" help:"User whose tokens are revoked."`
	Session string         `placeholder:"ID" help:"Only one session: the one that a welcome frame named, or the claim sid in the tokens of one login."`
	Reason  string         `placeholder:"TEXT" help:"Why, for readers of the topic; clients are not told."`
	Kafka   cli.KafkaFlags `embed:"" group:"kafka"`
	JSON    bool           `name:"json" help:"Print JSON."`
}

// Help implements kong.HelpProvider.
func (c *Revoke) Help() string {
	return `Closes a user's sockets with 4001 on every gateway, and refuses their tokens that were issued before now. Because a
login's clock may be ahead, tokens of the next seconds (the gateways' --auth-leeway, 10 s by default) are refused,
too: a user who logs in again is let in after that. Examples:

    whisper revoke --user mona --reason "phone stolen"
    whisper revoke --user mona --session 3fb1c2`
}

// revocationDone is what --json prints.
type revocationDone struct {
	User    string    `json:"user"`
	Session string    `json:"session,omitempty"`
	Before  time.Time `json:"before"`
	Topic   string    `json:"topic"`
	Offset  int64     `json:"offset"`
}

func (c *Revoke) record(now time.Time) (*kgo.Record, error) {
	return gateway.RevocationRecord(&whisperv1.Revocation{UserId: c.User, Session: c.Session, BeforeUs: now.UnixMicro(), Reason: c.Reason})
}

// Check names every problem of these settings.
func (c *Revoke) Check() error {
	_, err := c.record(time.Unix(1, 0))
	return errors.Join(err, c.Kafka.Check())
}

func (c *Revoke) Run(ctx context.Context, p *cli.Process) error {
	now := p.Now()
	rec, err := c.record(now)
	if err != nil {
		return err
	}
	client, err := c.Kafka.ToolClient(ctx, p)
	if err != nil {
		return err
	}
	if err := cli.Produce(ctx, client, rec); err != nil {
		return err
	}
	done := revocationDone{User: c.User, Session: c.Session, Before: now.UTC(), Topic: rec.Topic, Offset: rec.Offset}
	if c.JSON {
		return cli.PrintJSON(p.Stdout, done)
	}
	whose := "user " + c.User
	if c.Session != "" {
		whose = "session " + c.Session + " of " + whose
	}
	_, err = fmt.Fprintf(p.Stdout, "revoked %s: tokens issued before %s count no more\n", whose, done.Before.Format(cli.TimeMillis))
	return err
}
