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
	Lists      bool          `help:"Ask by requests that name the users (10,000 at most in each) instead of a segment."`
	Ack        string        `default:"client" enum:"client,auto" placeholder:"client|auto" help:"Who acknowledges: the clients, or the gateway when the socket took it (default ${default})."`
	Broadcasts int           `default:"1" placeholder:"N" help:"Broadcasts of a run; each is sent when the connected have the one before (default ${default})."`
	Alerts     int           `default:"100" zero:"none" placeholder:"N" help:"Alerts a second, before and during the broadcast (default ${default})."`
	Quiet      time.Duration `default:"60s" zero:"none" placeholder:"DURATION" help:"How long alerts are measured before the broadcast; then they are measured until its facts are in Postgres (default ${default})."`
	Runs       int           `default:"1" placeholder:"N" help:"Runs, each with alerts alone before; the medians are reported (default ${default})."`
	Profiles   string        `placeholder:"FOLDER" help:"Keep a CPU profile of each role from the first 5 s of the last run."`
	JSON       bool          `name:"json" help:"Print the report as JSON."`
}

// Help implements kong.HelpProvider.
func (c *benchBroadcastCmd) Help() string {
	return `Starts Kafka, Postgres and one process a role, connects some of the users, sends a broadcast to warm up, and measures
the next: when it is where, and how it affects alerts. Everything stays on this machine. Mostly away, mostly connected,
and by lists of users:

    whisper bench broadcast --users 1000000 --connected 10000
    whisper bench broadcast --users 10000 --connected 10000 --broadcasts 10 --ack auto
    whisper bench broadcast --users 100000 --connected 1000 --lists`
}

func (c *benchBroadcastCmd) config(out io.Writer) bench.BroadcastConfig {
	return bench.BroadcastConfig{
		Kafka: c.Kafka, Users: c.Users, Connected: c.Connected, Partitions: c.Partitions, Segment: c.Segment,
		Lists: c.Lists, Ack: c.Ack, Broadcasts: c.Broadcasts, Alerts: c.Alerts, Quiet: c.Quiet, Runs: c.Runs, Profiles: c.Profiles, Out: out,
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
	_, err = fmt.Fprintf(p.Stdout, `%d users, %d connected (ack: %s)
the connected have it after   %.2f s: %.0f deliveries/s
the facts are in Postgres in  %.1f s
alerts p50 / p99, quiet       %.1f / %.1f ms
alerts p50 / p99, during      %.1f / %.1f ms (p99 %.2f times)
gateway deliveries            %.0f a CPU-second
dispatch                      %.1f µs a walked user
CPU seconds                   %s
`, r.Users, r.Connected, r.Ack, r.ConnectedHaveIt, r.PerSecond, r.FactsInPostgres, r.AlertsQuiet.P50, r.AlertsQuiet.P99,
		r.AlertsDuring.P50, r.AlertsDuring.P99, r.RatioP99, r.GatewayPerCPU, r.DispatchMicros, r.CPUOf())
	return err
}
