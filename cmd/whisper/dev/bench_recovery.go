package dev

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/klivvr/whisper/bench"
	"github.com/klivvr/whisper/cmd/whisper/cli"
)

type benchRecoveryCmd struct {
	Kafka          []string      `placeholder:"HOST:PORT" help:"Kafka to measure on; by default Apache Kafka is started from its jars (needs Java and Maven)."`
	Users          int           `default:"1000" placeholder:"N" help:"Users that are connected (default ${default})."`
	Partitions     int32         `default:"12" placeholder:"N" help:"Partitions of the topics (default ${default})."`
	Rate           int           `default:"500" placeholder:"N" help:"Requests a second (default ${default})."`
	Runs           int           `default:"3" placeholder:"N" help:"Runs of each case; the medians are reported (default ${default})."`
	Cases          []string      `sep:"none" placeholder:"TEXT" help:"Only the cases whose names have this text in them, such as dispatch or brokers; may be repeated."`
	SessionTimeout time.Duration `placeholder:"DURATION" help:"--session-timeout of the roles, if not their own default."`
	JSON           bool          `help:"Print the report as JSON."`
}

// Help implements kong.HelpProvider.
func (c *benchRecoveryCmd) Help() string {
	return `Kills intake, dispatch, a gateway and one of three brokers by SIGKILL while requests come, some of them with --instance and some for good, and says how long the notification waited that waited longest. Everything stays on this machine. Example:

    whisper bench recovery --runs 3`
}

func (c *benchRecoveryCmd) config(out io.Writer) bench.RecoveryConfig {
	return bench.RecoveryConfig{Kafka: c.Kafka, Users: c.Users, Partitions: c.Partitions, Rate: c.Rate, Runs: c.Runs, Cases: c.Cases, SessionTimeout: c.SessionTimeout, Out: out}
}

// Check names every problem of these settings.
func (c *benchRecoveryCmd) Check() error { return c.config(nil).Validate() }

// Run measures and prints the report.
func (c *benchRecoveryCmd) Run(ctx context.Context, p *cli.Process) error {
	report, err := bench.RunRecovery(ctx, c.config(p.Stderr))
	if err != nil {
		return cli.UnlessStopped(ctx, err)
	}
	if c.JSON {
		enc := json.NewEncoder(p.Stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(report)
	}
	w := tabwriter.NewWriter(p.Stdout, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintf(w, "%s, %d users connected, %d requests/s\n\n", report.Kafka, report.Users, report.Rate)
	_, _ = fmt.Fprintln(w, "killed\tlongest wait ms\tlongest gap ms\twaited > 1 s\tlost")
	for _, r := range report.Cases {
		_, _ = fmt.Fprintln(w, strings.Join(r.Row(), "\t"))
	}
	return w.Flush()
}
