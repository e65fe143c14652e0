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
	benchFlags `embed:"" set:"runs=1"`

	Users      int           `default:"1000000" placeholder:"N" help:"Users with a profile (default ${default})."`
	Connected  int           `default:"10000" placeholder:"N" help:"How many of them hold a socket (default ${default})."`
	Segment    string        `placeholder:"CEL" help:"The audience (default: everyone)."`
	Lists      bool          `help:"Ask by requests that name the users (10,000 at most in each) instead of a segment."`
	Ack        string        `default:"client" enum:"client,auto" placeholder:"client|auto" help:"Who acknowledges: the clients, or the gateway when the socket took it (default ${default})."`
	Broadcasts int           `default:"1" placeholder:"N" help:"Broadcasts of a run; each is sent when the connected have the one before (default ${default})."`
	Alerts     int           `default:"100" zero:"none" placeholder:"N" help:"Alerts a second, before and during the broadcast (default ${default})."`
	Quiet      time.Duration `default:"60s" zero:"none" placeholder:"DURATION" help:"How long alerts are measured before the broadcast; then they are measured until its facts are in Postgres (default ${default})."`
}

// Help implements kong.HelpProvider.
func (c *benchBroadcastCmd) Help() string {
	return `Starts Kafka, Postgres and one process a role, connects some of the users, warms up with alerts and broadcasts like
those that are measured, and measures: when a broadcast is where, and how it affects alerts. Everything stays on this
machine. Users mostly away, mostly connected, as fast as it goes, and by lists of users:

    whisper bench broadcast --users 1000000 --connected 10000
    whisper bench broadcast --users 10000 --connected 10000 --broadcasts 10
    whisper bench broadcast --users 10000 --connected 10000 --broadcasts 10 --alerts 0 --quiet 5s --ack auto
    whisper bench broadcast --users 100000 --connected 1000 --lists`
}

func (c *benchBroadcastCmd) config(s bench.Settings) bench.BroadcastConfig {
	return bench.BroadcastConfig{
		Settings: s, Users: c.Users, Connected: c.Connected, Segment: c.Segment,
		Lists: c.Lists, Ack: c.Ack, Broadcasts: c.Broadcasts, Alerts: c.Alerts, Quiet: c.Quiet,
	}
}

func (c *benchBroadcastCmd) Check() error { return c.config(c.settings(nil)).Validate() }

func (c *benchBroadcastCmd) Run(ctx context.Context, p *cli.Process) error {
	return runBench(ctx, p, c.benchFlags, bench.RunBroadcast, c.config, printBroadcast)
}

func printBroadcast(out io.Writer, r *bench.BroadcastReport) error {
	_, err := fmt.Fprintf(out, `%s, %d users, %d connected (ack: %s); %s
the connected have it after   %.2f s: %.0f deliveries/s
the facts are in Postgres in  %.1f s
alerts p50 / p99, quiet       %.1f / %.1f ms
alerts p50 / p99, during      %.1f / %.1f ms (p99 %.2f times)
gateway deliveries            %.0f a CPU-second (0: the alerts cost as much)
dispatch                      %.1f µs a walked user
CPU seconds                   %s
`, r.Kafka, r.Users, r.Connected, r.Ack, r.WarmUp, r.ConnectedHaveIt, r.PerSecond, r.FactsInPostgres, r.AlertsQuiet.P50, r.AlertsQuiet.P99,
		r.AlertsDuring.P50, r.AlertsDuring.P99, r.RatioP99, r.GatewayPerCPU, r.DispatchMicros, r.CPUOf())
	return err
}
