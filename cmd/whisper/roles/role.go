package roles

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/klivvr/whisper/cmd/whisper/cli"
	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/ops"
)

// roleFlags are what every role takes.
type roleFlags struct {
	Kafka  cli.KafkaFlags `embed:"" group:"kafka"`
	Topics topologyFlags  `embed:"" group:"topics"`
	Ops    OpsFlags       `embed:"" group:"ops"`
}

// OpsFlags say where the operations port of a process listens, and what it serves.
type OpsFlags struct {
	OpsAddr  string   `default:"${ops_addr}" placeholder:"HOST:PORT" help:"Where /livez, /readyz and /metrics answer (default ${default})."`
	OpsHosts []string `placeholder:"NAME" help:"More host names by which the operations port may be asked; addresses, names without dots and *.svc are always allowed."`
	Pprof    bool     `help:"Serve /debug/pprof there too."`
}

// Config is the configuration of the operations server; it notes this build in the metrics, too.
func (f OpsFlags) Config(log *slog.Logger) ops.Config {
	build := cli.ThisBuild()
	ops.BuildInfo(build.Version, build.Commit, build.Go)
	return ops.Config{Addr: f.OpsAddr, Hosts: f.OpsHosts, Pprof: f.Pprof, Logger: log}
}

// memberFlags are those of the roles whose processes share partitions in a consumer group.
type memberFlags struct {
	Instance       string        `placeholder:"NAME" group:"kafka" help:"A name that this process keeps over restarts and no other has at the same time, such as a StatefulSet pod's: when it returns within the session timeout it gets its partitions again without a rebalance. Nobody else takes them meanwhile. By default it has none and leaves its group when it stops."`
	SessionTimeout time.Duration `default:"${member_session_timeout}" placeholder:"DURATION" group:"kafka" help:"How long the group waits for a process that was killed before others get its partitions (default ${default}). A process that hears nothing of the group for so long stops to act. Brokers take no less than group.min.session.timeout.ms, 6s unless set."`
}

// Check names every problem of these settings.
func (f memberFlags) Check() error {
	if f.SessionTimeout == 0 { // elsewhere it means the default
		return errors.Join(errors.New("session-timeout: must be greater than 0"),
			consumers.ClientConfig{Brokers: []string{"unused"}, Instance: f.Instance}.Validate())
	}
	return f.of(consumers.ClientConfig{Brokers: []string{"unused"}}).Validate()
}

func (f memberFlags) of(client consumers.ClientConfig) consumers.ClientConfig {
	client.Instance, client.SessionTimeout = f.Instance, f.SessionTimeout
	return client
}

// Check names every problem of these settings.
func (f roleFlags) Check() error {
	return errors.Join(f.Kafka.Check(), f.Topics.Check(), f.Ops.Config(nil).Validate())
}

// client is how a role reaches Kafka; Check has passed.
func (f roleFlags) client(role string, log *slog.Logger) consumers.ClientConfig {
	cfg, _ := f.Kafka.Client("whisper-"+role, log)
	return cfg
}

// Component is a part of a process that runs until it is told to stop. Every role is one, or some.
type Component struct {
	Name  string
	Run   func(context.Context) error
	Ready func() error // nil: as soon as it runs
}

// Base is what the components of a role are built on: the process's clients, server, log and clock.
type Base struct {
	Client   consumers.ClientConfig
	Topology consumers.Topology
	Server   *ops.Server
	Log      *slog.Logger
	Now      func() time.Time
}

// run runs the process of one role. It takes the ports first, so that one error names every busy port. The operations
// server answers from then until the end. Then run waits for Kafka, checks the topics, and runs the components until the
// first signal, when they drain.
func (f roleFlags) run(
	ctx context.Context, p *cli.Process, name string,
	build func(context.Context, Base) ([]Component, error), later ...func() (io.Closer, error),
) error {
	log := p.Log.With("role", name)
	var server *ops.Server
	own := func() (_ io.Closer, err error) { server, err = ops.Listen(ctx, f.Ops.Config(log)); return server, err }
	taken, err := TakePorts(append([]func() (io.Closer, error){own}, later...)...)
	if err != nil {
		return err
	}
	for _, port := range taken[1:] {
		_ = port.Close() // its component takes it when it is ready for clients
	}
	r := Base{Client: f.client(name, log), Topology: f.Topics.topology(), Server: server, Log: log, Now: p.Now}
	return Serve(ctx, server, func(ctx context.Context) error {
		log.Info("starting", "version", cli.ThisBuild().Version, "commit", cli.ThisBuild().Commit, "ops_addr", server.Addr())
		ops.LimitMemory(log)
		Stage(server, "waiting for kafka")
		if err := r.Client.Await(ctx); err != nil {
			return cli.UnlessStopped(ctx, err)
		}
		Stage(server, "checking the topics")
		if err := r.checkTopics(ctx); err != nil {
			return cli.UnlessStopped(ctx, err)
		}
		components, err := build(ctx, r)
		if err != nil {
			return cli.UnlessStopped(ctx, err)
		}
		telling, stop := context.WithCancel(ctx)
		defer stop()
		go sayReady(telling, server, log, readyEvery)
		if err := RunAll(ctx, server, components...); err != nil {
			return err
		}
		log.Info("stopped")
		return nil
	})
}

// readyEvery is how often a role that is not ready yet is asked whether it is.
const readyEvery = 100 * time.Millisecond

// sayReady logs, once, that every component of the process does its work.
func sayReady(ctx context.Context, server *ops.Server, log *slog.Logger, every time.Duration) {
	began := time.Now()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if len(server.Reasons()) == 0 {
				log.Info("ready", "took", time.Since(began).Round(time.Millisecond))
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// Serve runs work beside the operations server, which ends last. A server that fails ends the work.
func Serve(ctx context.Context, server *ops.Server, work func(context.Context) error) error {
	g, working := errgroup.WithContext(ctx)
	listening, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g.Go(func() error { return server.Run(listening) })
	g.Go(func() error {
		defer stop()
		return work(working)
	})
	return g.Wait()
}

// startComponent is the name under which /readyz says what a process is doing that is not a component's.
const startComponent = "process"

// Stage has /readyz say what the process is doing before its components run.
func Stage(server *ops.Server, doing string) {
	err := errors.New(doing)
	server.Component(startComponent, func() error { return err })
}

func (r Base) checkTopics(ctx context.Context) error {
	adm, err := r.Client.Admin()
	if err != nil {
		return err
	}
	defer adm.Close()
	plans, err := consumers.CheckTopics(ctx, adm, r.Topology, r.Log)
	if err != nil {
		return OneConflict(err)
	}
	for _, plan := range plans {
		if len(plan.Alter) > 0 {
			r.Log.Warn("topic settings differ", "topic", plan.Name, "wanted", settingsText(plan.Alter)[2:], "mend", "whisper topics apply")
		}
	}
	return nil
}

// OneConflict is the first of several complaints: a cluster with other partitions has them everywhere.
func OneConflict(err error) error {
	all := cli.Flatten(err)
	if len(all) < 2 {
		return err
	}
	return fmt.Errorf("%w (and %d more topics alike)", all[0], len(all)-1)
}

// RunAll runs components until ctx ends or one of them fails, which stops the others; it returns when all
// have drained. The process counts as ready while all of them say so, and never while it drains.
func RunAll(ctx context.Context, server *ops.Server, components ...Component) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for _, c := range components {
		ready := c.Ready
		if ready == nil {
			ready = func() error { return nil }
		}
		server.Component(c.Name, ready)
	}
	server.Component(startComponent, func() error {
		if ctx.Err() != nil {
			return errors.New("draining")
		}
		return nil
	})
	return RunComponents(ctx, components)
}

// RunComponents runs components until ctx ends or one of them fails, which stops the others. A component that ends
// before ctx does is an error.
func RunComponents(ctx context.Context, components []Component) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, c := range components {
		g.Go(func() error {
			err := c.Run(ctx)
			switch {
			case err != nil:
				return fmt.Errorf("%s: %w", c.Name, err)
			case ctx.Err() == nil:
				return fmt.Errorf("%s ended by itself", c.Name)
			}
			return nil
		})
	}
	return g.Wait()
}
