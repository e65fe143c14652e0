package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/ops"
)

// roleFlags are what every role takes.
type roleFlags struct {
	Kafka  kafkaFlags    `embed:"" group:"kafka"`
	Topics topologyFlags `embed:"" group:"topics"`
	Ops    opsFlags      `embed:"" group:"ops"`
}

type opsFlags struct {
	OpsAddr  string   `default:"127.0.0.1:8081" placeholder:"HOST:PORT" help:"Where /livez, /readyz and /metrics answer (default ${default})."`
	OpsHosts []string `placeholder:"NAME" help:"More host names that it may be asked by; addresses, names without dots and *.svc always may."`
	Pprof    bool     `help:"Serve /debug/pprof there too."`
}

func (f opsFlags) config(log *slog.Logger) ops.Config {
	build := buildVersion()
	ops.BuildInfo(build.Version, build.Commit, build.Go)
	return ops.Config{Addr: f.OpsAddr, Hosts: f.OpsHosts, Pprof: f.Pprof, Logger: log}
}

// Check names every problem of these settings.
func (f roleFlags) Check() error {
	return errors.Join(f.Kafka.Check(), f.Topics.Check(), f.Ops.config(nil).Validate())
}

// client is how a role reaches Kafka; Check has passed.
func (f roleFlags) client(role string, log *slog.Logger) consumers.ClientConfig {
	cfg, _ := f.Kafka.client("whisper-"+role, log)
	return cfg
}

// component is a part of a process that runs until it is told to stop. Every role is one, or some.
type component struct {
	name  string
	run   func(context.Context) error
	ready func() error // nil: as soon as it runs
}

// role is what building a role's components may use.
type role struct {
	client   consumers.ClientConfig
	topology consumers.Topology
	server   *ops.Server
	log      *slog.Logger
	now      func() time.Time
}

// run is the life of a process of one role. The operations server answers from the first moment to the
// last. Kafka is waited for; topics are checked; then the components run until the first signal, and drain.
// The ports that components take later are looked at first: whatever is busy is told at once.
func (f roleFlags) run(ctx context.Context, p *process, name string, build func(context.Context, role) ([]component, error), later ...func() (io.Closer, error)) error {
	log := p.log.With("role", name)
	var server *ops.Server
	own := func() (_ io.Closer, err error) { server, err = ops.Listen(ctx, f.Ops.config(log)); return server, err }
	taken, err := allPorts(append([]func() (io.Closer, error){own}, later...)...)
	if err != nil {
		return err
	}
	for _, port := range taken[1:] {
		_ = port.Close() // its component takes it when it is ready for clients
	}
	r := role{client: f.client(name, log), topology: f.Topics.topology(), server: server, log: log, now: p.now}
	return serving(ctx, server, func(ctx context.Context) error {
		log.Info("starting", "version", buildVersion().Version, "commit", buildVersion().Commit, "ops_addr", server.Addr())
		stage(server, "waiting for kafka")
		if err := r.client.Await(ctx); err != nil {
			return unlessStopped(ctx, err)
		}
		stage(server, "checking the topics")
		if err := r.checkTopics(ctx); err != nil {
			return unlessStopped(ctx, err)
		}
		components, err := build(ctx, r)
		if err != nil {
			return unlessStopped(ctx, err)
		}
		telling, stop := context.WithCancel(ctx)
		defer stop()
		go sayReady(telling, server, log, readyEvery)
		if err := runAll(ctx, server, components...); err != nil {
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

// serving runs work beside the operations server, which ends last. A server that fails ends the work.
func serving(ctx context.Context, server *ops.Server, work func(context.Context) error) error {
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

func stage(server *ops.Server, doing string) {
	err := errors.New(doing)
	server.Component(startComponent, func() error { return err })
}

// unlessStopped drops an error that only says that the process was told to stop meanwhile.
func unlessStopped(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil //nolint:nilerr // a stop is not an error
	}
	return err
}

func (r role) checkTopics(ctx context.Context) error {
	adm, err := r.client.Admin()
	if err != nil {
		return err
	}
	defer adm.Close()
	plans, err := consumers.CheckTopics(ctx, adm, r.topology, r.log)
	if err != nil {
		return oneConflict(err)
	}
	for _, plan := range plans {
		if len(plan.Alter) > 0 {
			r.log.Warn("topic settings differ", "topic", plan.Name, "wanted", settingsText(plan.Alter)[2:], "mend", "whisper topics apply")
		}
	}
	return nil
}

// oneConflict is the first of several complaints: a cluster with other partitions has them everywhere.
func oneConflict(err error) error {
	all := flatten(err)
	if len(all) < 2 {
		return err
	}
	return fmt.Errorf("%w (and %d more topics alike)", all[0], len(all)-1)
}

// runAll runs components until ctx ends or one of them fails, which stops the others; it returns when all
// have drained. The process counts as ready while all of them say so, and never while it drains.
func runAll(ctx context.Context, server *ops.Server, components ...component) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for _, c := range components {
		ready := c.ready
		if ready == nil {
			ready = func() error { return nil }
		}
		server.Component(c.name, ready)
	}
	server.Component(startComponent, func() error {
		if ctx.Err() != nil {
			return errors.New("draining")
		}
		return nil
	})
	return runComponents(ctx, components)
}

func runComponents(ctx context.Context, components []component) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, c := range components {
		g.Go(func() error {
			err := c.run(ctx)
			switch {
			case err != nil:
				return fmt.Errorf("%s: %w", c.name, err)
			case ctx.Err() == nil:
				return fmt.Errorf("%s ended by itself", c.name)
			}
			return nil
		})
	}
	return g.Wait()
}
