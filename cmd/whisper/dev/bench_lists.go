package dev

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/klivvr/whisper/bench"
	"github.com/klivvr/whisper/cmd/whisper/cli"
)

type benchListsCmd struct {
	benchFlags `embed:"" set:"runs=3"`

	Connected int           `default:"500" placeholder:"N" help:"Users that are connected and get the alerts (default ${default})."`
	Lists     int           `default:"6" placeholder:"N" help:"Requests on the low lane that are sent at once (default ${default})."`
	Users     int           `default:"10000" placeholder:"N" help:"Users that each of them names (default ${default})."`
	Bytes     int           `default:"8000" zero:"none" placeholder:"N" help:"Bytes of data in each of them, which each delivery carries (default ${default})."`
	Quota     int           `placeholder:"BYTES" help:"Bytes a second that the broker lets each client id produce (default: no quota)."`
	Alerts    int           `default:"100" zero:"none" placeholder:"N" help:"Alerts a second, alone and beside the lists (default ${default})."`
	Quiet     time.Duration `default:"20s" zero:"none" placeholder:"DURATION" help:"How long alerts are measured alone in each run (default ${default})."`
}

// Help implements kong.HelpProvider.
func (c *benchListsCmd) Help() string {
	return `Starts Kafka, intake, dispatch and a gateway as processes of their own, and measures alerts alone and beside a few
requests on the low lane that make tens of thousands of deliveries: the time until dispatch can read an alert, and
until the socket has it. Everything stays on this machine. Example:

    whisper bench lists --lists 6 --users 10000`
}

func (c *benchListsCmd) config(s bench.Settings) bench.ListsConfig {
	return bench.ListsConfig{
		Settings: s, Connected: c.Connected, Lists: c.Lists, Users: c.Users, Bytes: c.Bytes, Quota: c.Quota,
		Alerts: c.Alerts, Quiet: c.Quiet,
	}
}

func (c *benchListsCmd) Check() error { return c.config(c.settings(nil)).Validate() }

func (c *benchListsCmd) Run(ctx context.Context, p *cli.Process) error {
	return runBench(ctx, p, c.benchFlags, bench.RunLists, c.config, printLists)
}

func printLists(out io.Writer, r *bench.ListsReport) error {
	_, err := fmt.Fprintf(out, `%s; %s
%d deliveries of lists, written in     %.1f s
alerts to dispatch p50 / p99, alone    %.1f / %.1f ms
alerts to dispatch p50 / p99, beside   %.1f / %.1f ms (p99 %.2f times)
alerts to sockets p50 / p99, alone     %.1f / %.1f ms
alerts to sockets p50 / p99, beside    %.1f / %.1f ms (p99 %.2f times)
`, r.Kafka, r.WarmUp, r.Deliveries, r.Written,
		r.HandedQuiet.P50, r.HandedQuiet.P99, r.HandedBeside.P50, r.HandedBeside.P99, r.HandedRatio,
		r.SocketQuiet.P50, r.SocketQuiet.P99, r.SocketBeside.P50, r.SocketBeside.P99, r.SocketRatio)
	return err
}
