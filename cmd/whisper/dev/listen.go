package dev

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"sync"
	"time"

	"github.com/klivvr/whisper/cmd/whisper/cli"
	"github.com/klivvr/whisper/gateway"
	"github.com/klivvr/whisper/gateway/client"
)

// Listen is `whisper listen`: it connects as a user and prints what arrives.
type Listen struct {
	User       string `placeholder:"ID" help:"User to connect as; the secret makes a token for them."`
	Token      string `placeholder:"JWT" help:"Token to connect with, instead of a user."`
	AuthSecret string `placeholder:"SECRET" help:"The gateways' secret (default: that of your whisper dev)."`
	URL        string `name:"url" default:"ws://127.0.0.1:8080/v1/socket" placeholder:"URL" help:"The gateway's socket (default ${default})."`
	Read       bool   `help:"Also report that each notification was read."`
	Count      int    `placeholder:"N" help:"End after this many notifications."`
	JSON       bool   `name:"json" help:"Print one JSON object a line, as in the frames."`
}

// Help implements kong.HelpProvider.
func (c *Listen) Help() string {
	return `Connects as an app would, prints what arrives with its latency since the request, and acknowledges it. Reconnects
until it is stopped. Examples:

    whisper listen --user mona
    whisper listen --token "$TOKEN" --url wss://push.example.com/v1/socket --json`
}

func (c *Listen) Check() error {
	var errs []error
	switch {
	case c.User == "" && c.Token == "":
		errs = append(errs, errors.New("user: give the user whose notifications to print, or a token"))
	case c.User != "" && c.Token != "":
		errs = append(errs, errors.New("token: can't be combined with user: give one of them"))
	case c.User != "":
		_, err := c.sign(time.Unix(0, 0))
		errs = append(errs, err)
	}
	if u, err := url.Parse(c.URL); err != nil || u.Host == "" || u.Scheme != "ws" && u.Scheme != "wss" {
		errs = append(errs, fmt.Errorf("url: %q is not a ws:// or wss:// URL", c.URL))
	}
	if c.Count < 0 {
		errs = append(errs, fmt.Errorf("count: %d is negative", c.Count))
	}
	return errors.Join(errs...)
}

func (c *Listen) sign(now time.Time) (string, error) {
	secret, err := secretOr(c.AuthSecret)
	if err != nil {
		return "", err
	}
	return gateway.SignToken([]byte(secret), c.User, time.Hour, now)
}

// line is what --json prints: the frames of the public contract, and when this end saw a notification.
type line struct {
	Type    string `json:"type"`
	Session string `json:"session,omitempty"`
	ID      string `json:"id,omitempty"`
	Error   string `json:"error,omitempty"`
	*client.Notification
	ReceivedAt time.Time `json:"received_at,omitzero"`
}

// printer writes lines from several callbacks.
type printer struct {
	mu   sync.Mutex
	w    io.Writer
	json bool
	now  func() time.Time
	err  error
	stop func() // nobody reads any more
}

func (p *printer) print(doc line, text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.json {
		p.err = errors.Join(p.err, cli.PrintJSON(p.w, doc))
	} else if _, err := fmt.Fprintf(p.w, "%s  %s\n", p.now().UTC().Format(cli.TimeMillis), text); err != nil {
		p.err = errors.Join(p.err, err)
	}
	if p.err != nil {
		p.stop()
	}
}

func (c *Listen) Run(ctx context.Context, p *cli.Process) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	out := &printer{w: p.Stdout, json: c.JSON, now: p.Now, stop: stop}
	token := client.StaticToken(c.Token)
	if c.Token == "" {
		token = client.TokenFunc(func(context.Context) (string, error) { return c.sign(p.Now()) })
	}
	conn, err := client.Dial(ctx, c.URL, token, client.Options{
		Connected: func(session string) {
			out.print(line{Type: "welcome", Session: session}, "connected, session "+session)
		},
		Disconnected: func(err error) {
			if ctx.Err() == nil {
				out.print(line{Type: "disconnected", Error: err.Error()}, "disconnected: "+cli.OneLine(err.Error()))
			}
		},
		Retracted: func(id string) { out.print(line{Type: "retracted", ID: id}, "retracted "+id) },
	})
	if err != nil {
		return cli.UnlessStopped(ctx, err)
	}
	context.AfterFunc(ctx, func() { _ = conn.Close() })
	err = c.receive(ctx, conn, out)
	stop() // what ends now was meant to
	<-conn.Done()
	return errors.Join(err, out.err)
}

func (c *Listen) receive(ctx context.Context, conn *client.Client, out *printer) error {
	seen := 0
	for n := range conn.Notifications() {
		now := out.now()
		doc := line{Type: "notification", ID: n.ID, Notification: &n, ReceivedAt: now.UTC()}
		latency := float64(now.Sub(n.At).Microseconds()) / 1000
		out.print(doc, fmt.Sprintf("%-6s %s  %s (%.1f ms)", n.Lane, n.ID, cli.OneLine(n.Title+": "+n.Body), latency))
		if c.Read {
			if err := conn.ReadNotification(n); err != nil {
				out.print(line{Type: "error", Error: err.Error()}, "could not tell that it was read: "+err.Error())
			}
		}
		if seen++; seen == c.Count {
			return nil
		}
	}
	if ctx.Err() != nil || errors.Is(conn.Err(), client.ErrClosed) {
		return nil //nolint:nilerr // a stop is not an error
	}
	return conn.Err()
}
