package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/consumers/dispatch"
	"github.com/klivvr/whisper/consumers/push"
	"github.com/klivvr/whisper/consumers/push/apns"
	"github.com/klivvr/whisper/consumers/push/apns/simulator"
	"github.com/klivvr/whisper/embedded"
	"github.com/klivvr/whisper/gateway"
	"github.com/klivvr/whisper/migrations"
	"github.com/klivvr/whisper/ops"
	"github.com/klivvr/whisper/projections"
)

type devCmd struct {
	Demo           bool     `group:"dev" help:"Play a short scene: two users connect, notifications arrive, a phone gets a push, Postgres tells the story."`
	State          string   `default:".whisper" placeholder:"DIR" group:"dev" help:"Folder that keeps topics, offsets and tables from one start to the next (default ${default})."`
	Ephemeral      bool     `group:"dev" help:"Keep nothing."`
	KafkaListen    string   `default:"127.0.0.1:9092" placeholder:"HOST:PORT" group:"dev" help:"Where the embedded Kafka listens (default ${default})."`
	PostgresListen string   `default:"127.0.0.1:5433" placeholder:"HOST:PORT" group:"dev" help:"Where the embedded Postgres listens; the host is 127.0.0.1 (default ${default})."`
	Listen         string   `default:"127.0.0.1:8080" placeholder:"HOST:PORT" group:"dev" help:"Where clients connect (default ${default})."`
	Origins        []string `placeholder:"URL" group:"dev" help:"Origins that browsers may connect from, like http://localhost:3000; * allows all; by default only the page of whisper dev."`
	AuthSecret     string   `placeholder:"SECRET" group:"dev" help:"Secret of tokens, at least 32 bytes (default: one of your own, made by the first start and kept in your configuration folder)."`
	Partitions     int32    `default:"4" placeholder:"N" group:"dev" help:"Partitions of every topic keyed by user id; fixed by the first start of a state folder (default ${default})."`
	Ops            opsFlags `embed:"" group:"ops"`
}

// Help implements kong.HelpProvider.
func (c *devCmd) Help() string {
	return `Embedded Kafka and Postgres, all roles, and a simulated APNs. Nothing needs to be installed; the first start downloads Postgres once where the machine has none. Example:

    whisper dev --demo`
}

func (c *devCmd) topology() consumers.Topology {
	return consumers.Topology{Partitions: c.Partitions, Replication: 1, DuplicateWindow: 24 * time.Hour, Retention: 7 * 24 * time.Hour}
}

func (c *devCmd) Check() error {
	errs := []error{c.topology().Validate(), c.Ops.config(nil).Validate()}
	if c.AuthSecret != "" {
		errs = append(errs, gateway.AuthConfig{HMACSecret: []byte(c.AuthSecret)}.Validate())
	}
	for name, addr := range map[string]string{"kafka-listen": c.KafkaListen, "postgres-listen": c.PostgresListen, "listen": c.Listen} {
		host, port, err := net.SplitHostPort(addr)
		if _, bad := strconv.ParseUint(port, 10, 16); err != nil || bad != nil {
			errs = append(errs, fmt.Errorf("%s: %q is not host:port", name, addr))
		} else if name == "postgres-listen" && host != "127.0.0.1" {
			errs = append(errs, fmt.Errorf("%s: the embedded Postgres listens on 127.0.0.1 only", name))
		}
	}
	return errors.Join(errs...)
}

// dev is one run of everything in one process.
type dev struct {
	cmd   *devCmd
	p     *process
	role  role
	kafka *embedded.Kafka
	apple *simulator.Simulator

	mu       sync.Mutex
	postgres string // its URL once it is up

	sockets string // where the gateway listens
	secret  string // of tokens
}

func (c *devCmd) Run(ctx context.Context, p *process) error {
	log := p.logger(slog.LevelWarn)
	if err := c.makeState(); err != nil {
		return err
	}
	secret, err := secretOr(c.AuthSecret)
	if err != nil {
		return err
	}
	c.warnOfStrangers(log)
	sockets, server, err := c.takePorts(ctx, log)
	if err != nil {
		return err
	}
	d := &dev{cmd: c, p: p, secret: secret, role: role{topology: c.topology(), server: server, log: log, now: p.now}}
	return serving(ctx, server, func(ctx context.Context) error { return d.run(ctx, sockets) })
}

func (c *devCmd) makeState() error {
	if c.Ephemeral {
		return nil
	}
	err := os.MkdirAll(c.State, stateMode())
	var path *fs.PathError
	if errors.As(err, &path) {
		return fmt.Errorf("state folder %s: %w; choose another with --state, or keep nothing with --ephemeral", path.Path, path.Err)
	}
	return err
}

// stateMode closes the state to the machine's other users: titles, bodies and push tokens are in it. Where root
// starts Postgres, which does not run as root, its user must be able to pass through; nobody else can read the folder,
// nor what is in the parts' own. A folder that is there already is left as it is: it may be somebody's for more than this.
func stateMode() fs.FileMode {
	if os.Geteuid() == 0 {
		return 0o711
	}
	return 0o700
}

// warnOfStrangers names what others than this machine can reach: none of it asks who they are, and the page makes
// a token for anybody.
func (c *devCmd) warnOfStrangers(log *slog.Logger) {
	for flag, addr := range map[string]string{"kafka-listen": c.KafkaListen, "listen": c.Listen, "ops-addr": c.Ops.OpsAddr} {
		if beyondThisMachine(addr) {
			log.Warn("whisper dev can be reached from other machines, and anybody there can read and send everything", "setting", flag, "address", addr)
		}
	}
}

// folder is where a part keeps its state; empty: nowhere.
func (c *devCmd) folder(part string) string {
	if c.Ephemeral {
		return ""
	}
	return filepath.Join(c.State, part)
}

// inUse names the flag that chooses another address, where that is what went wrong.
func inUse(err error, flag string) error {
	if err != nil && strings.Contains(err.Error(), "is in use:") {
		return fmt.Errorf("%w (%s)", err, flag)
	}
	return err
}

// takePorts takes those of the sockets and of the operations server before anything starts, and looks whether those of Kafka and Postgres are
// free, which come later. Every busy port is told at once.
func (c *devCmd) takePorts(ctx context.Context, log *slog.Logger) (net.Listener, *ops.Server, error) {
	var sockets, kafka, postgres net.Listener
	var server *ops.Server
	_, err := allPorts(
		func() (l io.Closer, err error) {
			sockets, err = takePort(ctx, "sockets", c.Listen, "--listen")
			return sockets, err
		},
		func() (l io.Closer, err error) { server, err = ops.Listen(ctx, c.Ops.config(log)); return server, err },
		func() (l io.Closer, err error) {
			kafka, err = takePort(ctx, "kafka", c.KafkaListen, "--kafka-listen")
			return kafka, err
		},
		func() (l io.Closer, err error) {
			err = afterAKilledOne(ctx, func() error {
				postgres, err = takePort(ctx, "postgres", c.PostgresListen, "--postgres-listen")
				return err
			})
			return postgres, err
		},
	)
	if err != nil {
		return nil, nil, err
	}
	return sockets, server, errors.Join(kafka.Close(), postgres.Close()) // for their servers
}

// afterAKilledOne tries again for a moment: the Postgres of a `whisper dev` that was killed is still
// stopping, cleanly, when somebody quick starts the next.
func afterAKilledOne(ctx context.Context, try func() error) error {
	for deadline := time.Now().Add(3 * time.Second); ; {
		err := try()
		if err == nil || time.Now().After(deadline) || !errors.Is(err, syscall.EADDRINUSE) && !strings.Contains(err.Error(), "is in use") {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// run starts the servers that others need, then all roles, and ends them the other way round. Postgres
// starts beside everything else, since nothing that delivers waits for it.
func (d *dev) run(ctx context.Context, sockets net.Listener) error {
	defer func() { _ = sockets.Close() }() // closed by the gateway already, where it came to run
	stage(d.role.server, "starting kafka")
	var err error
	d.kafka, err = embedded.StartKafka(ctx, embedded.KafkaConfig{Addr: d.cmd.KafkaListen, DataDir: d.cmd.folder("kafka"), Logger: d.role.log})
	if err != nil {
		return inUse(err, "--kafka-listen")
	}
	defer d.kafka.Close()
	d.sockets = sockets.Addr().String()
	d.role.client = consumers.ClientConfig{Brokers: []string{d.kafka.Addr()}, ClientID: "whisper-dev", Logger: d.role.log}
	if err := consumers.EnsureTopics(ctx, d.role.client, d.role.topology.Specs()...); err != nil {
		return unlessStopped(ctx, fmt.Errorf("%w (it was made by an earlier start in %s; --state chooses another folder)", oneConflict(err), d.cmd.State))
	}
	if err := d.declareOwn(ctx); err != nil {
		return unlessStopped(ctx, err)
	}
	if d.apple, err = simulator.Start(simulator.Config{Logger: d.role.log}); err != nil {
		return err
	}
	defer d.apple.Close()
	components, err := d.components(ctx, sockets)
	if err != nil {
		return err
	}
	return runAll(ctx, d.role.server, components...)
}

// declareOwn declares the categories of what `whisper dev` itself sends, where nobody has yet.
func (d *dev) declareOwn(ctx context.Context) error {
	have, err := declared(ctx, d.role.client)
	if err != nil {
		return err
	}
	var recs []*kgo.Record
	for _, name := range []string{demoCategory, pageCategory} {
		if _, ok := have[name]; !ok {
			recs = append(recs, &kgo.Record{Topic: consumers.TopicCategories, Key: []byte(name), Value: []byte("{}")})
		}
	}
	return produce(ctx, d.role.client, recs...)
}

func (d *dev) components(ctx context.Context, sockets net.Listener) ([]component, error) {
	pushed, err := d.appleConfig()
	if err != nil {
		return nil, err
	}
	var all []component
	for _, build := range []func() ([]component, error){
		func() ([]component, error) { return intakeRole(d.role) },
		func() ([]component, error) { return dispatchRole(d.role, dispatch.Config{}) },
		func() ([]component, error) {
			return d.gatewayWithPage(gateway.Config{
				Node: "dev", Partitions: d.role.topology.Partitions, Origins: d.cmd.Origins,
				Auth: gateway.AuthConfig{HMACSecret: []byte(d.secret)}, DrainTimeout: time.Second,
				OpsAddr:        advertised(ctx, d.role.server.Addr(), d.role.client.Brokers),
				MaxConnections: 1000, // no more than any machine's file limit allows
			}, sockets)
		},
		func() ([]component, error) { return pushRole(d.role, pushed, push.Config{}) },
	} {
		components, err := build()
		if err != nil {
			return nil, err
		}
		all = append(all, components...)
	}
	return append(all, d.readModels(), component{name: "terminal", run: d.talk}), nil
}

// appleConfig is a key of this run's own: the simulator does not check who signed.
func (d *dev) appleConfig() (apns.Config, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return apns.Config{}, fmt.Errorf("make a key for apns: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return apns.Config{}, fmt.Errorf("make a key for apns: %w", err)
	}
	return apns.Config{
		KeyPEM: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), KeyID: "DEVDEVDEV0", TeamID: "WHISPERDEV",
		Topic: "com.example.app", BaseURL: d.apple.URL(), RootCAs: d.apple.RootCAs(),
	}, nil
}

// readModels is Postgres with all that stands on it, as one component: it stops in this order, too.
func (d *dev) readModels() component {
	state := &lateReady{err: errors.New("it is starting (where the machine has none, the first start downloads it once)")}
	return component{name: "postgres", ready: state.ready, run: func(ctx context.Context) error {
		_, portText, _ := net.SplitHostPort(d.cmd.PostgresListen) // checked
		port, _ := strconv.Atoi(portText)
		var pg *embedded.Postgres
		err := afterAKilledOne(ctx, func() (err error) {
			pg, err = embedded.StartPostgres(ctx, embedded.PostgresConfig{Port: port, DataDir: d.cmd.folder("postgres"), Logger: d.role.log})
			return err
		})
		if err != nil {
			return unlessStopped(ctx, inUse(err, "--postgres-listen"))
		}
		err = d.project(ctx, pg, state)
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		return errors.Join(err, pg.Stop(bounded))
	}}
}

func (d *dev) project(ctx context.Context, pg *embedded.Postgres, state *lateReady) error {
	state.set(nil, errors.New("migrating"))
	if err := migrations.Up(ctx, pg.URL(), d.role.log); err != nil {
		return unlessStopped(ctx, err)
	}
	components, err := projectRole(ctx, d.role, projections.Config{PostgresURL: pg.URL()}, ops.HealthConfig{})
	if err != nil {
		return err
	}
	components = append(components, component{name: "postgres server", run: func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return nil
		case <-pg.Exited():
			return errors.New("it has ended; its log is in " + pg.StateDir())
		}
	}})
	d.mu.Lock()
	d.postgres = pg.URL()
	d.mu.Unlock()
	state.set(components, nil)
	return runComponents(ctx, components)
}

// lateReady is the readiness of components that are built while the process runs already.
type lateReady struct {
	mu         sync.Mutex
	components []component
	err        error
}

func (l *lateReady) set(components []component, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.components, l.err = components, err
}

func (l *lateReady) ready() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	errs := []error{l.err}
	for _, c := range l.components {
		if c.ready != nil {
			errs = append(errs, c.ready())
		}
	}
	return errors.Join(errs...)
}
