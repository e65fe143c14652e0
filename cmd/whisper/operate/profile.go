package operate

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/cmd/whisper/cli"
	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/profile"
)

// Profile is `whisper profile`: it changes a user's profile, or erases the user.
type Profile struct {
	Patch profilePatchCmd `cmd:"" help:"Change a user's profile, as upstream does."`
	Erase profileEraseCmd `cmd:"" help:"Erase a user: delete the profile and what is known of them."`
}

type profilePatchCmd struct {
	User  string         `required:"" placeholder:"ID" help:"User whose profile is changed."`
	Patch string         `arg:"" placeholder:"JSON" help:"A JSON merge patch (RFC 7396)."`
	Kafka cli.KafkaFlags `embed:"" group:"kafka"`
}

// Help implements kong.HelpProvider.
func (c *profilePatchCmd) Help() string {
	return `Examples:

    whisper profile patch --user mona '{"timezone": "Africa/Cairo", "quiet_hours": {"from": "22:00", "to": "07:00"}}'
    whisper profile patch --user mona '{"preferences": {"marketing": {"all": false}}}'`
}

// Check names every problem of these settings.
func (c *profilePatchCmd) Check() error {
	_, err := profile.ParsePatch([]byte(c.Patch))
	if err != nil {
		err = fmt.Errorf("patch: %w", err)
	}
	return errors.Join(checkUser(c.User), err, c.Kafka.Check())
}

func (c *profilePatchCmd) Run(ctx context.Context, p *cli.Process) error {
	return writeProfile(ctx, p, c.Kafka, c.User, []byte(c.Patch), "patched")
}

type profileEraseCmd struct {
	User  string         `required:"" placeholder:"ID" help:"User to erase."`
	Kafka cli.KafkaFlags `embed:"" group:"kafka"`
}

// Help implements kong.HelpProvider.
func (c *profileEraseCmd) Help() string {
	return `Ends the deliveries that wait for the user, deletes their profile, endpoints and counters, and replaces their id in
the tables by an alias. docs/erasure.md says what stays in Kafka for how long. It can't be undone.`
}

// Check names every problem of these settings.
func (c *profileEraseCmd) Check() error {
	err := domain.CheckKnownID(c.User)
	if err != nil {
		err = fmt.Errorf("user: %w", err)
	}
	return errors.Join(err, c.Kafka.Check())
}

func (c *profileEraseCmd) Run(ctx context.Context, p *cli.Process) error {
	return writeProfile(ctx, p, c.Kafka, c.User, nil, "erased")
}

func checkUser(user string) error {
	if err := domain.CheckID(user); err != nil {
		return fmt.Errorf("user: %w", err)
	}
	return nil
}

func writeProfile(ctx context.Context, p *cli.Process, kafka cli.KafkaFlags, user string, patch []byte, done string) error {
	client, err := kafka.ToolClient(ctx, p)
	if err != nil {
		return err
	}
	if err := cli.Produce(ctx, client, &kgo.Record{Topic: consumers.TopicProfiles, Key: []byte(user), Value: patch}); err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.Stdout, "%s %s\n", done, user)
	return err
}
