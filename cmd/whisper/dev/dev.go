package dev

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

	"github.com/klivvr/whisper/cmd/whisper/cli"
	"github.com/klivvr/whisper/cmd/whisper/operate"
	"github.com/klivvr/whisper/cmd/whisper/roles"
	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/consumers/dispatch"
	"github.com/klivvr/whisper/consumers/push"
	"github.com/klivvr/whisper/consumers/push/apns"
	"github.com/klivvr/whisper/consumers/push/apns/simulator"
	"github.com/klivvr/whisper/consumers/push/apps"
	"github.com/klivvr/whisper/consumers/push/fcm"
	fcmsimulator "github.com/klivvr/whisper/consumers/push/fcm/simulator"
	"github.com/klivvr/whisper/embedded"
	"github.com/klivvr/whisper/gateway"
	"github.com/klivvr/whisper/migrations"
	"github.com/klivvr/whisper/ops"
	"github.com/klivvr/whisper/projections"
)

// Dev is `whisper dev`: everything in one process, with nothing installed.
type Dev struct {
	Demo           bool           `group:"dev" help:"Play a short scene: two users connect, notifications arrive, a phone gets a push, and Postgres shows what happened."`
	State          string         `default:".whisper" placeholder:"DIR" group:"dev" help:"Folder that keeps topics, offsets and tables between starts (default ${default})."`
	Ephemeral      bool           `group:"dev" help:"Keep nothing after the end."`
	KafkaListen    string         `default:"127.0.0.1:9092" placeholder:"HOST:PORT" group:"dev" help:"Where the embedded Kafka listens (default ${default})."`
	PostgresListen string         `default:"127.0.0.1:5433" placeholder:"HOST:PORT" group:"dev" help:"Where the embedded Postgres listens; the host is 127.0.0.1 (default ${default})."`
	Listen         string         `default:"127.0.0.1:8080" placeholder:"HOST:PORT" group:"dev" help:"Where clients connect (default ${default})."`
	Origins        []string       `placeholder:"URL" group:"dev" help:"Origins that browsers may connect from, like http://localhost:3000; * allows all (default: only the page of whisper dev)."`
	AuthSecret     string         `placeholder:"SECRET" group:"dev" help:"Secret that signs tokens, at least 32 bytes (default: your own, made at the first start and kept in your configuration folder)."`
	Partitions     int32          `default:"4" placeholder:"N" group:"dev" help:"Partitions of every topic that is keyed by user id; fixed by the first start of a state folder (default ${default})."`
	Ops            roles.OpsFlags `embed:"" group:"ops"`
}

// Help implements kong.HelpProvider.
func (c *Dev) Help() string {
	return `Embedded Kafka and Postgres, all roles, and a simulated APNs and FCM in one process. Nothing needs to be installed; if the
machine has no Postgres, the first start downloads it once. Example:

    whisper dev --demo`
}

func (c *Dev) topology() consumers.Topology {
	t := consumers.DefaultTopology()
	t.Partitions, t.Replication = c.Partitions, 1
	return t
}

func (c *Dev) Check() error {
	errs := []error{c.topology().Validate(), c.Ops.Config(nil).Validate()}
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
type system struct {
	cmd   *Dev
	p     *cli.Process
	base  roles.Base
	kafka *embedded.Kafka
	apple *simulator.Simulator
	fcm   *fcmsimulator.Simulator

	mu       sync.Mutex
	postgres string // its URL once it is up

	sockets string // where the gateway listens
	secret  string // of tokens
}

func (c *Dev) Run(ctx context.Context, p *cli.Process) error {
	log := p.Logger(slog.LevelWarn)
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
	d := &system{cmd: c, p: p, secret: secret, base: roles.Base{Topology: c.topology(), Server: server, Log: log, Now: p.Now}}
	return roles.Serve(ctx, server, func(ctx context.Context) error { return d.run(ctx, sockets) })
}

func (c *Dev) makeState() error {
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

// stateMode is the mode of a new state folder. Titles, bodies and push tokens are in it, so other users of the machine
// can't list or read it. Under root, Postgres runs as another user, who must be able to pass through. The mode of an existing
// folder is not changed, because it may be used for other things.
func stateMode() fs.FileMode {
	if os.Geteuid() == 0 {
		return 0o711
	}
	return 0o700
}

// warnOfStrangers logs a warning for each port that other machines can reach: none of them authenticates, and the page
// makes a token for anybody.
func (c *Dev) warnOfStrangers(log *slog.Logger) {
	for flag, addr := range map[string]string{"kafka-listen": c.KafkaListen, "listen": c.Listen, "ops-addr": c.Ops.OpsAddr} {
		if beyondThisMachine(addr) {
			log.Warn("whisper dev can be reached from other machines, and anybody there can read and send everything",
				"setting", flag, "address", addr)
		}
	}
}

// folder is where a part keeps its state; empty: nowhere.
func (c *Dev) folder(part string) string {
	if c.Ephemeral {
		return ""
	}
	return filepath.Join(c.State, part)
}

// inUse adds the flag that chooses another address to an error about a busy port.
func inUse(err error, flag string) error {
	if err != nil && strings.Contains(err.Error(), "is in use:") {
		return fmt.Errorf("%w (%s)", err, flag)
	}
	return err
}

// takePorts takes the ports of the sockets and of the operations server before anything starts, and checks that those of
// Kafka and Postgres, which are taken later, are free. One error names every busy port.
func (c *Dev) takePorts(ctx context.Context, log *slog.Logger) (net.Listener, *ops.Server, error) {
	var sockets, kafka, postgres net.Listener
	var server *ops.Server
	_, err := roles.TakePorts(
		func() (l io.Closer, err error) {
			sockets, err = roles.TakePort(ctx, "sockets", c.Listen, "--listen")
			return sockets, err
		},
		func() (l io.Closer, err error) { server, err = ops.Listen(ctx, c.Ops.Config(log)); return server, err },
		func() (l io.Closer, err error) {
			kafka, err = roles.TakePort(ctx, "kafka", c.KafkaListen, "--kafka-listen")
			return kafka, err
		},
		func() (l io.Closer, err error) {
			err = afterAKilledOne(ctx, func() error {
				postgres, err = roles.TakePort(ctx, "postgres", c.PostgresListen, "--postgres-listen")
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
func (d *system) run(ctx context.Context, sockets net.Listener) error {
	defer func() { _ = sockets.Close() }() // closed by the gateway already, where it came to run
	roles.Stage(d.base.Server, "starting kafka")
	var err error
	d.kafka, err = embedded.StartKafka(ctx, embedded.KafkaConfig{Addr: d.cmd.KafkaListen, DataDir: d.cmd.folder("kafka"), Logger: d.base.Log})
	if err != nil {
		return inUse(err, "--kafka-listen")
	}
	defer d.kafka.Close()
	d.sockets = sockets.Addr().String()
	d.base.Client = consumers.ClientConfig{Brokers: []string{d.kafka.Addr()}, ClientID: "whisper-dev", Logger: d.base.Log}
	if err := consumers.EnsureTopics(ctx, d.base.Client, d.base.Topology.Specs()...); err != nil {
		return cli.UnlessStopped(ctx, fmt.Errorf("%w (it was made by an earlier start in %s; --state chooses another folder)",
			roles.OneConflict(err), d.cmd.State))
	}
	if err := d.declareOwn(ctx); err != nil {
		return cli.UnlessStopped(ctx, err)
	}
	if d.apple, err = simulator.Start(ctx, simulator.Config{Logger: d.base.Log}); err != nil {
		return err
	}
	defer d.apple.Close()
	if d.fcm, err = fcmsimulator.Start(ctx, fcmsimulator.Config{Logger: d.base.Log}); err != nil {
		return err
	}
	defer d.fcm.Close()
	components, err := d.components(ctx, sockets)
	if err != nil {
		return err
	}
	return roles.RunAll(ctx, d.base.Server, components...)
}

// declareOwn declares the categories of what `whisper dev` itself sends, where nobody has yet.
func (d *system) declareOwn(ctx context.Context) error {
	have, err := operate.DeclaredCategories(ctx, d.base.Client)
	if err != nil {
		return err
	}
	var recs []*kgo.Record
	for _, name := range []string{demoCategory, pageCategory} {
		if _, ok := have[name]; !ok {
			recs = append(recs, &kgo.Record{Topic: consumers.TopicCategories, Key: []byte(name), Value: []byte("{}")})
		}
	}
	return cli.Produce(ctx, d.base.Client, recs...)
}

func (d *system) components(ctx context.Context, sockets net.Listener) ([]roles.Component, error) {
	pushed, err := d.appleConfig()
	if err != nil {
		return nil, err
	}
	var all []roles.Component
	for _, build := range []func() ([]roles.Component, error){
		func() ([]roles.Component, error) { return roles.BuildIntake(d.base) },
		func() ([]roles.Component, error) { return roles.BuildDispatch(d.base, dispatch.Config{}) },
		func() ([]roles.Component, error) {
			return d.gatewayWithPage(gateway.Config{
				Node: "dev", Partitions: d.base.Topology.Partitions, Origins: d.cmd.Origins,
				Auth: gateway.AuthConfig{HMACSecret: []byte(d.secret)}, DrainTimeout: time.Second,
				OpsAddr:        roles.Advertised(ctx, d.base.Server.Addr(), d.base.Client.Brokers),
				MaxConnections: 1000, // no more than any machine's file limit allows
			}, sockets)
		},
		func() ([]roles.Component, error) {
			set, err := d.base.Credentials(roles.FlagCredentials{
				APNs: &pushed,
				FCM:  &fcm.Config{CredentialsJSON: d.fcm.Credentials(), BaseURL: d.fcm.URL(), RootCAs: d.fcm.RootCAs()},
			}, apps.Config{})
			if err != nil {
				return nil, err
			}
			return roles.BuildPush(d.base, set, push.Config{})
		},
	} {
		components, err := build()
		if err != nil {
			return nil, err
		}
		all = append(all, components...)
	}
	return append(all, d.readModels(), roles.Component{Name: "terminal", Run: d.talk}), nil
}

// appleConfig is a key of this run's own: the simulator does not check who signed.
func (d *system) appleConfig() (apns.Config, error) {
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
func (d *system) readModels() roles.Component {
	state := &lateReady{err: errors.New("it is starting (where the machine has none, the first start downloads it once)")}
	return roles.Component{Name: "postgres", Ready: state.ready, Run: func(ctx context.Context) error {
		_, portText, _ := net.SplitHostPort(d.cmd.PostgresListen) // checked
		port, _ := strconv.Atoi(portText)
		var pg *embedded.Postgres
		err := afterAKilledOne(ctx, func() (err error) {
			pg, err = embedded.StartPostgres(ctx, embedded.PostgresConfig{Port: port, DataDir: d.cmd.folder("postgres"), Logger: d.base.Log})
			return err
		})
		if err != nil {
			return cli.UnlessStopped(ctx, inUse(err, "--postgres-listen"))
		}
		err = d.project(ctx, pg, state)
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		return errors.Join(err, pg.Stop(bounded))
	}}
}

func (d *system) project(ctx context.Context, pg *embedded.Postgres, state *lateReady) error {
	state.set(nil, errors.New("migrating"))
	if err := migrations.Up(ctx, pg.URL(), d.base.Log); err != nil {
		return cli.UnlessStopped(ctx, err)
	}
	components, err := roles.BuildProject(ctx, d.base, projections.Config{PostgresURL: pg.URL()}, ops.HealthConfig{})
	if err != nil {
		return err
	}
	components = append(components, roles.Component{Name: "postgres server", Run: func(ctx context.Context) error {
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
	return roles.RunComponents(ctx, components)
}

// lateReady is the readiness of components that are built while the process runs already.
type lateReady struct {
	mu         sync.Mutex
	components []roles.Component
	err        error
}

func (l *lateReady) set(components []roles.Component, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.components, l.err = components, err
}

func (l *lateReady) ready() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	errs := []error{l.err}
	for _, c := range l.components {
		if c.Ready != nil {
			errs = append(errs, c.Ready())
		}
	}
	return errors.Join(errs...)
}
