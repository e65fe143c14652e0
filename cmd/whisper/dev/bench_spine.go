package dev

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/klivvr/whisper/bench"
	"github.com/klivvr/whisper/cmd/whisper/cli"
)

type benchSpineCmd struct {
	benchFlags `embed:"" set:"runs=3"`

	Users    int           `default:"10000" placeholder:"N" help:"Users that are connected (default ${default})."`
	Rates    []int         `default:"500,2000" placeholder:"N" help:"Requests a second at which latency is measured (default ${default})."`
	Duration time.Duration `default:"20s" placeholder:"DURATION" help:"How long each rate is measured; the first fifth warms up (default ${default})."`
	Hold     []int         `default:"4000,6000,8000,10000" placeholder:"N" help:"Ascending rates to try, up to the first whose backlog grows (default ${default})."`
	HoldFor  time.Duration `default:"60s" placeholder:"DURATION" help:"How long a rate must be held (default ${default})."`
	NoHold   bool          `help:"Try no rates: measure latency and requests only."`
}

// Help implements kong.HelpProvider.
func (c *benchSpineCmd) Help() string {
	return `Starts intake, dispatch and a gateway as processes of their own, connects users to it and produces requests.
Everything stays on this machine. Example:

    whisper bench spine --users 10000 --rates 500,2000`
}

func (c *benchSpineCmd) config(s bench.Settings) bench.SpineConfig {
	if c.NoHold {
		c.Hold = nil
	}
	return bench.SpineConfig{Settings: s, Users: c.Users, Rates: c.Rates, Duration: c.Duration, Hold: c.Hold, HoldFor: c.HoldFor}
}

func (c *benchSpineCmd) Check() error { return c.config(c.settings(nil)).Validate() }

func (c *benchSpineCmd) Run(ctx context.Context, p *cli.Process) error {
	return runBench(ctx, p, c.benchFlags, bench.RunSpine, c.config, printSpine)
}

func printSpine(out io.Writer, r *bench.SpineReport) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintf(out, "%s, %d users connected; %s\n\n", r.Kafka, r.Users, r.WarmUp)
	_, _ = fmt.Fprintln(w, "requests/s\tspine p50\tp99\tp99.9 ms\tchain p50\tp99\tp99.9 ms\tratio p50\tp99\tlost\t")
	for _, l := range r.Latency {
		_, _ = fmt.Fprintf(w, "%d\t%.1f\t%.1f\t%.1f\t%.1f\t%.1f\t%.1f\t%.2f\t%.2f\t%d\t\n", l.PerSecond,
			l.Spine.P50, l.Spine.P99, l.Spine.P999, l.Chain.P50, l.Chain.P99, l.Chain.P999, l.RatioP50, l.RatioP99, l.Spine.Lost)
	}
	_, _ = fmt.Fprintln(w, "\t\nrequests/s\tKafka requests a delivery: role\tproduce\tfetch\tcommit\tother\tµs CPU a delivery\t")
	for _, l := range r.Latency {
		all := map[string]float64{}
		for _, role := range slices.Sorted(maps.Keys(l.Requests)) {
			kinds := l.Requests[role]
			_, _ = fmt.Fprintf(w, "%d\t%s\t%.3f\t%.3f\t%.3f\t%.3f\t%.0f\t\n",
				l.PerSecond, role, kinds["produce"], kinds["fetch"], kinds["commit"], kinds["other"], l.CPU[role])
			for kind, n := range kinds {
				all[kind] += n
			}
			all["cpu"] += l.CPU[role]
		}
		_, _ = fmt.Fprintf(w, "%d\tall\t%.3f\t%.3f\t%.3f\t%.3f\t%.0f\t\n", l.PerSecond, all["produce"], all["fetch"], all["commit"], all["other"], all["cpu"])
		for _, name := range []string{"broker", "broker compiler", "broker collector", "load"} {
			_, _ = fmt.Fprintf(w, "%d\t%s\t\t\t\t\t%.0f\t\n", l.PerSecond, name, l.CPU[name])
		}
	}
	_, _ = fmt.Fprintln(w, "\t\nrequests/s\theld\tunder way\tp50\tp99 ms\tintake\tdispatch\tgateway\troles\tbroker\tits compiler\tcollector\tload µs CPU a delivery\t")
	for _, h := range r.Held {
		_, _ = fmt.Fprintf(w, "%d\t%v\t%d\t%.1f\t%.1f\t%.0f\t%.0f\t%.0f\t%.0f\t%.0f\t%.0f\t%.0f\t%.0f\t\n", h.PerSecond, h.Held, h.BacklogEnd,
			h.Latency.P50, h.Latency.P99, h.CPU["intake"], h.CPU["dispatch"], h.CPU["gateway"], h.CPU["roles"],
			h.CPU["broker"], h.CPU["broker compiler"], h.CPU["broker collector"], h.CPU["load"])
	}
	return w.Flush()
}
