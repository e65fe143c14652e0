package dev

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/klivvr/whisper/bench"
	"github.com/klivvr/whisper/cmd/whisper/cli"
)

type benchBroadcastCmd struct {
	Kafka      []string      `placeholder:"HOST:PORT" help:"An empty Kafka to measure on (default: Apache Kafka is started from its jars, which needs Java and Maven)."`
	Users      int           `default:"1000000" placeholder:"N" help:"Users with a profile (default ${default})."`
	Connected  int           `default:"10000" placeholder:"N" help:"How many of them hold a socket (default ${default})."`
	Partitions int32         `default:"12" placeholder:"N" help:"Partitions of the topics (default ${default})."`
	Segment    string        `placeholder:"CEL" help:"The audience (default: everyone)."`
	Alerts     int           `default:"100" zero:"none" placeholder:"N" help:"Alerts a second, before and during the broadcast (default ${default})."`
	Quiet      time.Duration `default:"60s" zero:"none" placeholder:"DURATION" help:"How long alerts are measured before the broadcast; then they are measured until its facts are in Postgres (default ${default})."`
	JSON       bool          `name:"json" help:"Print the report as JSON."`
}

// Help implements kong.HelpProvider.
func (c *benchBroadcastCmd) Help() string {
	return `Starts Kafka, Postgres and one process a role, connects some of the users, sends a broadcast to warm up, and measures
the next: when it is where, and how it affects alerts. Everything stays on this machine. Example:

    whisper bench broadcast --users 100000 --connected 1000`
}

func (c *benchBroadcastCmd) config(out io.Writer) bench.BroadcastConfig {
	return bench.BroadcastConfig{
		Kafka: c.Kafka, Users: c.Users, Connected: c.Connected, Partitions: c.Partitions, Segment: c.Segment,
		Alerts: c.Alerts, Quiet: c.Quiet, Out: out,
	}
}

func (c *benchBroadcastCmd) Check() error { return c.config(nil).Validate() }

func (c *benchBroadcastCmd) Run(ctx context.Context, p *cli.Process) error {
	r, err := bench.RunBroadcast(ctx, c.config(p.Stderr))
	if err != nil {
		return cli.UnlessStopped(ctx, err)
	}
	if c.JSON {
		return cli.PrintJSON(p.Stdout, r)
	}
	_, err = fmt.Fprintf(p.Stdout, `%d users, %d connected
the connected have it after   %.1f s
the facts are in Postgres in  %.1f s
alerts p50 / p99, quiet       %.1f / %.1f ms
alerts p50 / p99, during      %.1f / %.1f ms (p99 %.2f times)
CPU seconds                   %s
`, r.Users, r.Connected, r.ConnectedHaveIt, r.FactsInPostgres,
		r.AlertsQuiet.P50, r.AlertsQuiet.P99, r.AlertsDuring.P50, r.AlertsDuring.P99, r.RatioP99, r.CPUOf())
	return err
}
