// Package cluster gives tests a Kafka and a Postgres, the most real that the machine can run, and lets
// them stop, kill and restart both. It owns the processes that it starts and knows nothing of Whisper's
// topics or tables. The same tests run on any cluster; only what they prove differs, so it says which.
package cluster

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/klivvr/whisper/integration/cluster/kafka"
)

const (
	kafkaEnv       = "WHISPER_TEST_KAFKA"    // host:port,… of a broker that runs already
	postgresEnv    = "WHISPER_TEST_POSTGRES" // the URL of a server whose user may create databases
	requireRealEnv = "WHISPER_REQUIRE_REAL"  // 1 makes a stand-in for Kafka an error; CI sets it
)

// Kinds of cluster, by what its Kafka is.
const (
	KindAddress    = "address"    // the environment names it
	KindContainers = "containers" // Apache Kafka in Docker
	KindJars       = "jars"       // Apache Kafka on this machine's Java
	KindFake       = "kfake"      // franz-go's kfake, in this process
)

// ErrNotOurs is what stopping answers for a cluster that the environment named: skip the test.
var ErrNotOurs = errors.New("this part of the cluster was not started by the test")

// Options of Start; the zero value is what tests want.
type Options struct {
	// Brokers is how many there are to be (0: one). Several need Java on this machine.
	Brokers int
	// KafkaSettings are added to the broker's own, where the broker is ours.
	KafkaSettings map[string]string
	// Front, Folder and Env are those of kafka.Config, for several brokers.
	Front  func(broker int, port kafka.Port, address string) (string, error)
	Folder func(broker int) (string, error)
	Env    func(broker int) []string
	// PostgresFolder is where the embedded Postgres is to keep its data, if not in a temporary folder, and PostgresEnv is added to
	// its environment. With one of them no other Postgres will do.
	PostgresFolder string
	PostgresEnv    []string
	// Out takes the line that says what was chosen; os.Stderr when nil.
	Out io.Writer
	// Logger takes what Postgres and the fake broker say; warnings to stderr when nil.
	Logger *slog.Logger
}

// Cluster is a running Kafka and Postgres.
type Cluster struct {
	Kafka    []string // to bootstrap from; the same after a restart
	Postgres string   // URL of an administrator's database; tests take their own from NewDatabase
	Kind     string   // one of the Kinds

	kafka, postgres part

	mu        sync.Mutex
	databases []string
}

// part is one server. A part that was stopped or killed can be started again with its state and at its
// address.
type part interface {
	fmt.Stringer // for a person
	Address() string
	Start(ctx context.Context) error
	Stop(ctx context.Context) error
	Kill(ctx context.Context) error
	Close()
}

// Start starts, of each part, the first that there is: the one at the address in the environment; one
// in a container, where a Docker daemon answers; Apache Kafka from its jars, and the embedded Postgres.
// Where none of Kafka's can be had it is kfake, unless WHISPER_REQUIRE_REAL is 1.
//
// The test's TestMain must have called embedded.RunIfPostgresHost.
func Start(ctx context.Context, o Options) (*Cluster, error) {
	if o.Out == nil {
		o.Out = os.Stderr
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	}
	docker := dockerAnswers(ctx)
	c := &Cluster{}
	var err error
	if c.kafka, c.Kind, err = startKafka(ctx, o, docker); err != nil {
		return nil, err
	}
	if c.postgres, err = startPostgres(ctx, o, docker); err != nil {
		c.kafka.Close()
		return nil, err
	}
	c.Kafka = strings.Split(c.kafka.Address(), ",")
	c.Postgres = c.postgres.Address()
	_, _ = fmt.Fprintf(o.Out, "integration: %s; %s\n", c.kafka, c.postgres)
	return c, nil
}

func startKafka(ctx context.Context, o Options, docker bool) (part, string, error) {
	if o.Brokers > 1 {
		p, err := startKafkaJars(ctx, o)
		return p, KindJars, err
	}
	if addr := os.Getenv(kafkaEnv); addr != "" {
		p := &address{name: "Kafka", addr: addr}
		return p, KindAddress, pingKafka(ctx, addr)
	}
	var missed []error
	if docker {
		p, err := startKafkaContainer(ctx, o)
		if err == nil {
			return p, KindContainers, nil
		}
		missed = append(missed, err)
	}
	p, err := startKafkaJars(ctx, o)
	if err == nil {
		return p, KindJars, nil
	}
	missed = append(missed, err)
	if ctx.Err() != nil {
		return nil, "", errors.Join(missed...)
	}
	if os.Getenv(requireRealEnv) == "1" {
		return nil, "", fmt.Errorf("%s=1 and no real Kafka: %w", requireRealEnv, errors.Join(missed...))
	}
	_, _ = fmt.Fprintf(o.Out, "integration: no real Kafka, so kfake stands in: %v\n", errors.Join(missed...))
	fake, err := startFake(ctx, o)
	return fake, KindFake, err
}

func startPostgres(ctx context.Context, o Options, docker bool) (part, error) {
	if o.PostgresFolder != "" || len(o.PostgresEnv) > 0 {
		return startEmbeddedPostgres(ctx, o)
	}
	if u := os.Getenv(postgresEnv); u != "" {
		return &address{name: "Postgres", addr: u}, pingPostgres(ctx, u)
	}
	var missed []error
	if docker {
		p, err := startPostgresContainer(ctx)
		if err == nil {
			return p, nil
		}
		missed = append(missed, err)
	}
	p, err := startEmbeddedPostgres(ctx, o)
	if err == nil {
		return p, nil
	}
	return nil, errors.Join(append(missed, err)...)
}

// StopKafka shuts the broker down in its own order; KillKafka ends it as a crash would. Either way
// StartKafka brings it back with its records and at its address. The fake has no crash but its stop.
func (c *Cluster) StopKafka(ctx context.Context) error  { return c.kafka.Stop(ctx) }
func (c *Cluster) KillKafka(ctx context.Context) error  { return c.kafka.Kill(ctx) }
func (c *Cluster) StartKafka(ctx context.Context) error { return c.kafka.Start(ctx) }

// Brokers are those of a cluster of several; nil otherwise.
func (c *Cluster) Brokers() []*kafka.Broker {
	q, _ := c.kafka.(quorum)
	return q
}

// PostgresPID is the process id of a Postgres that is the test's own; 0 otherwise.
func (c *Cluster) PostgresPID() int {
	if p, ours := c.postgres.(*postgres); ours {
		return p.now.PID()
	}
	return 0
}

// PostgresExited is closed when a Postgres that is the test's own has ended; nil for any other.
func (c *Cluster) PostgresExited() <-chan struct{} {
	if p, ours := c.postgres.(*postgres); ours {
		return p.now.Exited()
	}
	return nil
}

// StopPostgres, KillPostgres and StartPostgres are the same for Postgres.
func (c *Cluster) StopPostgres(ctx context.Context) error  { return c.postgres.Stop(ctx) }
func (c *Cluster) KillPostgres(ctx context.Context) error  { return c.postgres.Kill(ctx) }
func (c *Cluster) StartPostgres(ctx context.Context) error { return c.postgres.Start(ctx) }

// NewDatabase makes an empty database and returns its URL. Close drops it where the server stays.
func (c *Cluster) NewDatabase(ctx context.Context) (string, error) {
	name := "whisper_" + strings.ToLower(rand.Text()[:10])
	if err := c.admin(ctx, "create database "+name); err != nil {
		return "", fmt.Errorf("cluster: make a database: %w", err)
	}
	c.mu.Lock()
	c.databases = append(c.databases, name)
	c.mu.Unlock()
	u, err := url.Parse(c.Postgres)
	if err != nil {
		return "", fmt.Errorf("cluster: %w", err)
	}
	u.Path = "/" + name
	return u.String(), nil
}

func (c *Cluster) admin(ctx context.Context, sql string) error {
	conn, err := pgx.Connect(ctx, c.Postgres)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	_, err = conn.Exec(ctx, sql)
	return err
}

// Close ends what Start started and removes its state.
func (c *Cluster) Close() {
	if _, theirs := c.postgres.(*address); theirs {
		for _, name := range c.databases {
			_ = c.admin(context.Background(), "drop database if exists "+name+" with (force)")
		}
	}
	c.postgres.Close()
	c.kafka.Close()
}
