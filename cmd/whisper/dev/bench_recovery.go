package dev

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/klivvr/whisper/bench"
	"github.com/klivvr/whisper/cmd/whisper/cli"
)

type benchRecoveryCmd struct {
	benchFlags `embed:"" set:"runs=3"`

	Users          int           `default:"1000" placeholder:"N" help:"Users that are connected (default ${default})."`
	Rate           int           `default:"500" placeholder:"N" help:"Requests a second (default ${default})."`
	Cases          []string      `sep:"none" placeholder:"TEXT" help:"Only the cases whose names have this text in them, such as dispatch or brokers; may be repeated."`
	SessionTimeout time.Duration `placeholder:"DURATION" help:"--session-timeout of the roles, if not their own default."`
}

// Help implements kong.HelpProvider.
func (c *benchRecoveryCmd) Help() string {
	return `Kills intake, dispatch, a gateway and one of three brokers by SIGKILL while requests come, some of them with --instance and some for good, and says how long the notification waited that waited longest. Everything stays on this machine. Example:

    whisper bench recovery --runs 3`
}

func (c *benchRecoveryCmd) config(s bench.Settings) bench.RecoveryConfig {
	return bench.RecoveryConfig{
		Settings: s, Users: c.Users, Rate: c.Rate, Cases: c.Cases, SessionTimeout: c.SessionTimeout,
	}
}

func (c *benchRecoveryCmd) Check() error { return c.config(c.settings(nil)).Validate() }

func (c *benchRecoveryCmd) Run(ctx context.Context, p *cli.Process) error {
	return runBench(ctx, p, c.benchFlags, bench.RunRecovery, c.config, printRecovery)
}

func printRecovery(out io.Writer, r *bench.RecoveryReport) error {
	_, _ = fmt.Fprintf(out, "%s, %d users connected, %d requests/s\n", r.Kafka, r.Users, r.Rate)
	for _, warmed := range r.WarmUps {
		_, _ = fmt.Fprintln(out, warmed)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "\nkilled\tlongest wait ms\tlongest gap ms\twaited > 1 s\tlost")
	for _, c := range r.Cases {
		_, _ = fmt.Fprintln(w, strings.Join(c.Row(), "\t"))
	}
	return w.Flush()
}
