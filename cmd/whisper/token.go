package main

import (
	"context"
	"fmt"
	"time"

	"github.com/klivvr/whisper/gateway"
)

type tokenCmd struct {
	User       string        `required:"" placeholder:"ID" help:"Whose token."`
	TTL        time.Duration `name:"ttl" default:"1h" placeholder:"DURATION" help:"How long it is good for (default ${default})."`
	AuthSecret string        `placeholder:"SECRET" help:"The gateways' secret (default: that of your whisper dev)."`
}

// Help implements kong.HelpProvider.
func (c *tokenCmd) Help() string {
	return `Prints a token (JWT, HS256) for a client's socket, for trying things out; in production your own login signs them. Example:

    whisper token --user mona --ttl 8h`
}

func (c *tokenCmd) sign(now time.Time) (string, error) {
	secret, err := secretOr(c.AuthSecret)
	if err != nil {
		return "", err
	}
	return gateway.SignToken([]byte(secret), c.User, c.TTL, now)
}

// Check tries: signing names what is wrong.
func (c *tokenCmd) Check() error {
	_, err := c.sign(time.Unix(0, 0))
	return err
}

func (c *tokenCmd) Run(_ context.Context, p *process) error {
	token, err := c.sign(p.now())
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(p.stdout, token)
	return err
}
