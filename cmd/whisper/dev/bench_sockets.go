package dev

import (
	"context"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"github.com/klivvr/whisper/bench"
	"github.com/klivvr/whisper/cmd/whisper/cli"
)

type benchSocketsCmd struct {
	benchFlags `embed:"" set:"runs=3"`

	Users   int           `default:"10000" placeholder:"N" help:"Connections (default ${default})."`
	Beside  int           `placeholder:"N" help:"Further gateways on the machine, each with as many connections."`
	Idle    time.Duration `default:"140s" zero:"none" placeholder:"DURATION" help:"How long connections are idle before memory is read (default ${default})."`
	Frames  int           `default:"300000" placeholder:"N" help:"Frames of a throughput run (default ${default})."`
	System  bool          `help:"Only the floor and a broadcast as the whole system makes it: memory and CPU."`
	Program string        `placeholder:"FILE" help:"The build of whisper whose gateway is measured (default: this one)."`
	Flag    []string      `placeholder:"FLAG" help:"A flag for the gateway, as in --flag=--unpolled."`
}

// Help implements kong.HelpProvider.
func (c *benchSocketsCmd) Help() string {
	return `Starts a gateway, a load client and a bare server as processes of their own. Everything stays on this machine. Example:

    whisper bench sockets --users 10000 --idle 140s`
}

func (c *benchSocketsCmd) config(s bench.Settings) bench.SocketsConfig {
	return bench.SocketsConfig{
		Settings: s, Users: c.Users, Beside: c.Beside, Idle: c.Idle, Frames: c.Frames,
		Flags: c.Flag, System: c.System, Program: c.Program,
	}
}

func (c *benchSocketsCmd) Check() error { return c.config(c.settings(nil)).Validate() }

func (c *benchSocketsCmd) Run(ctx context.Context, p *cli.Process) error {
	return runBench(ctx, p, c.benchFlags, bench.RunSockets, c.config, printSockets)
}

func printSockets(out io.Writer, r *bench.SocketsReport) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name, measured, floor string) { _, _ = fmt.Fprintf(w, "%s\t%s\t%s\n", name, measured, floor) }
	_, _ = fmt.Fprintf(w, "%s, %d connections, %d on the machine; CPU of the gateway alone\n\n", r.Kafka, r.Users, r.Users*(1+r.Beside))
	row("measure", "gateway", "floor of the same run")
	if r.ConnectCPU > 0 {
		row("memory a connection at rest", fmt.Sprintf("%.0f B", r.RSS), fmt.Sprintf("%.0f B", r.RSSFloor))
		row("CPU at rest", fmt.Sprintf("%.2f%% of a core", r.IdleCPU), fmt.Sprintf("%.2f%% without connections", r.IdleCPUEmpty))
		row("CPU of a connect", fmt.Sprintf("%.0f µs", r.ConnectCPU), fmt.Sprintf("%.0f µs", r.ConnectFloorCPU))
		row("connects", fmt.Sprintf("%.0f/s", r.ConnectsPerSecond), "")
	}
	row(fmt.Sprintf("%d broadcasts that nobody acknowledges: memory at rest, peak, after, live", r.Held.Broadcasts), fmt.Sprintf("%d, %d, %d, %d MB; %.0f B a delivery",
		r.Held.RestRSS>>20, r.Held.PeakRSS>>20, r.Held.RSS>>20, r.Held.Live>>20, r.Held.PerDelivery), "")
	for _, d := range r.Deliveries {
		row(d.Name, fmt.Sprintf("%.0f a CPU-second (%.0f/s, %.1f frames a write, %.2f facts each, %d lost, peak %d MB, %d MB live)",
			d.PerCPUSecond, d.PerSecond, d.FramesAWrite, d.Facts, d.Lost, d.PeakRSS>>20, d.Live>>20),
			fmt.Sprintf("%.2f of one frame a write", d.RatioToFloor))
	}
	row("one frame a write", "", fmt.Sprintf("%.0f a CPU-second", r.FloorOne))
	row("eight frames a write", "", fmt.Sprintf("%.0f a CPU-second", r.FloorEight))
	return w.Flush()
}

type socketsClientCmd struct {
	Addr        string `required:"" help:"Where to connect."`
	Users       int    `required:"" help:"Connections."`
	Ack         string `default:"one" help:"auto, one or none."`
	Concurrency int    `default:"32" help:"Connects at a time."`
	Source      int    `default:"2" help:"The first address to connect from, 127.0.0.N."`
}

func (c *socketsClientCmd) Run(ctx context.Context, p *cli.Process) error {
	return bench.RunSocketsClient(ctx, bench.SocketsClientConfig{
		Addr: c.Addr, Users: c.Users, Ack: c.Ack, Concurrency: c.Concurrency, Source: c.Source,
	}, os.Stdin, p.Stdout)
}

type socketsFloorCmd struct{}

func (c *socketsFloorCmd) Run(ctx context.Context, p *cli.Process) error {
	return bench.RunSocketsFloor(ctx, os.Stdin, p.Stdout)
}
