package dev

import (
	"context"
	"fmt"
	"time"

	"github.com/klivvr/whisper/cmd/whisper/cli"
	"github.com/klivvr/whisper/gateway"
)

// Token is `whisper token`: it prints a token for a client's socket.
type Token struct {
	User       string        `required:"" placeholder:"ID" help:"User that the token is for."`
	TTL        time.Duration `name:"ttl" default:"1h" placeholder:"DURATION" help:"How long it is valid (default ${default})."`
	AuthSecret string        `placeholder:"SECRET" help:"The gateways' secret (default: that of your whisper dev)."`
}

// Help implements kong.HelpProvider.
func (c *Token) Help() string {
	return `Prints a token (JWT, HS256) for a client's socket, for trying things out. In production your own login signs tokens. Example:

    whisper token --user mona --ttl 8h`
}

func (c *Token) sign(now time.Time) (string, error) {
	secret, err := secretOr(c.AuthSecret)
	if err != nil {
		return "", err
	}
	return gateway.SignToken([]byte(secret), c.User, c.TTL, now)
}

// Check tries: signing names what is wrong.
func (c *Token) Check() error {
	_, err := c.sign(time.Unix(0, 0))
	return err
}

func (c *Token) Run(_ context.Context, p *cli.Process) error {
	token, err := c.sign(p.Now())
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(p.Stdout, token)
	return err
}
