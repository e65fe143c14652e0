package dev

import (
	"context"
	"io"
	"time"

	"github.com/klivvr/whisper/bench"
	"github.com/klivvr/whisper/cmd/whisper/cli"
)

// Bench is `whisper bench`: it measures Whisper on this machine.
type Bench struct {
	Spine benchSpineCmd `cmd:"" help:"Measure the path from a request to the socket, next to a bare chain of as many hops."`

	Broadcast benchBroadcastCmd `cmd:"" help:"Measure one broadcast: when connected users have it, when its facts are in Postgres, and how it affects alerts."`

	Lists benchListsCmd `cmd:"" help:"Measure alerts while requests that name thousands of users each are processed on a less urgent lane."`

	Recovery benchRecoveryCmd `cmd:"" help:"Measure how long notifications wait when a process is killed."`

	Sockets       benchSocketsCmd  `cmd:"" help:"Measure one gateway: memory and CPU of idle connections, connects and deliveries, each next to a lower bound (floor)."`
	SocketsClient socketsClientCmd `cmd:"" hidden:"" help:"The load client of sockets."`
	SocketsFloor  socketsFloorCmd  `cmd:"" hidden:"" help:"The floor of sockets."`
}

// benchFlags are those of every benchmark.
type benchFlags struct {
	Kafka      []string      `placeholder:"HOST:PORT" help:"An empty Kafka to measure on (default: Apache Kafka is started from its jars, which needs Java and Maven)."`
	JVM        []string      `name:"jvm" sep:"none" placeholder:"FLAG" help:"A further flag of the JVM of brokers that are started, such as --jvm=-XX:TieredStopAtLevel=1; may be repeated."`
	Partitions int32         `default:"12" placeholder:"N" help:"Partitions of the topics (default ${default})."`
	Runs       int           `default:"${runs}" placeholder:"N" help:"Runs; the medians are reported (default ${default})."`
	WarmUp     time.Duration `default:"3m" zero:"none" placeholder:"DURATION" help:"How long the load may go on before anything is measured, until what a record costs the broker has stopped falling; 0s leaves it out (default ${default})."`
	Profiles   string        `placeholder:"FOLDER" help:"Keep CPU profiles of the roles."`
	JSON       bool          `name:"json" help:"Print the report as JSON."`
}

func (f benchFlags) settings(out io.Writer) bench.Settings {
	return bench.Settings{
		Kafka: f.Kafka, JVM: f.JVM, Partitions: f.Partitions, Runs: f.Runs, WarmUp: f.WarmUp, Profiles: f.Profiles, Out: out,
	}
}

// runBench measures, tells how it goes on stderr, and prints the report.
func runBench[C, R any](ctx context.Context, p *cli.Process, f benchFlags, run func(context.Context, C) (*R, error),
	config func(bench.Settings) C, print func(io.Writer, *R) error,
) error {
	r, err := run(ctx, config(f.settings(p.Stderr)))
	if err != nil {
		return cli.UnlessStopped(ctx, err)
	}
	if f.JSON {
		return cli.PrintJSON(p.Stdout, r)
	}
	return print(p.Stdout, r)
}
