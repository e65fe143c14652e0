package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/klivvr/whisper/embedded"
	"github.com/klivvr/whisper/integration/cluster/kafka"
)

// address is a server that was there before.
type address struct{ name, addr string }

func (a *address) String() string {
	if u, err := url.Parse(a.addr); err == nil && u.User != nil {
		return a.name + " at " + u.Redacted() + ", from the environment"
	}
	return a.name + " at " + a.addr + ", from the environment"
}
func (a *address) Address() string             { return a.addr }
func (a *address) Start(context.Context) error { return ErrNotOurs }
func (a *address) Stop(context.Context) error  { return ErrNotOurs }
func (a *address) Kill(context.Context) error  { return ErrNotOurs }
func (a *address) Close()                      {}

func pingKafka(ctx context.Context, addr string) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(addr, ",")...))
	if err != nil {
		return fmt.Errorf("%s: %w", kafkaEnv, err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if _, err := kadm.NewClient(client).ListBrokers(ctx); err != nil {
		return fmt.Errorf("%s=%s does not answer: %w", kafkaEnv, addr, err)
	}
	return nil
}

func pingPostgres(ctx context.Context, u string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, u)
	if err != nil {
		return fmt.Errorf("%s does not answer: %w", postgresEnv, err)
	}
	return conn.Close(ctx)
}

// jars is Apache Kafka on this machine's Java.
type jars struct{ *kafka.Broker }

// quorum is several brokers of Apache Kafka on this machine's Java.
type quorum []*kafka.Broker

func (q quorum) String() string {
	return fmt.Sprintf("%d brokers of Apache Kafka %s from jars at %s", len(q), kafka.Version, q.Address())
}

func (q quorum) Address() string {
	var addrs []string
	for _, b := range q {
		addrs = append(addrs, b.Addr())
	}
	return strings.Join(addrs, ",")
}

func (q quorum) Start(ctx context.Context) error {
	return q.each(func(b *kafka.Broker) error { return b.Start(ctx) })
}

func (q quorum) Stop(ctx context.Context) error {
	return q.each(func(b *kafka.Broker) error { return b.Stop(ctx) })
}

func (q quorum) Kill(ctx context.Context) error {
	return q.each(func(b *kafka.Broker) error { return b.Kill(ctx) })
}

func (q quorum) Close() { _ = q.each(func(b *kafka.Broker) error { b.Close(); return nil }) }

func (q quorum) each(do func(*kafka.Broker) error) error {
	var g errgroup.Group
	for _, b := range q {
		g.Go(func() error { return do(b) })
	}
	return g.Wait()
}

func startKafkaJars(ctx context.Context, o Options) (part, error) {
	if o.Brokers > 1 {
		brokers, err := kafka.StartQuorum(ctx, o.Brokers, kafka.Config{Settings: o.KafkaSettings, Front: o.Front, Folder: o.Folder, Env: o.Env})
		return quorum(brokers), err
	}
	b, err := kafka.Start(ctx, kafka.Config{Settings: o.KafkaSettings})
	if err != nil {
		return nil, err
	}
	return jars{b}, nil
}

func (j jars) Address() string { return j.Addr() }
func (j jars) String() string {
	return "Apache Kafka " + kafka.Version + " from jars at " + j.Addr()
}

// fake is kfake on disk.
type fake struct {
	cfg embedded.KafkaConfig
	now *embedded.Kafka // nil while it is stopped
}

func startFake(ctx context.Context, o Options) (part, error) {
	dir, err := os.MkdirTemp("", "whisper-kfake-")
	if err != nil {
		return nil, fmt.Errorf("cluster: make a folder for kfake: %w", err)
	}
	f := &fake{cfg: embedded.KafkaConfig{
		Addr: "127.0.0.1:0", DataDir: dir, Configs: o.KafkaSettings, Logger: o.Logger,
	}}
	if err := f.Start(ctx); err != nil {
		f.Close()
		return nil, err
	}
	f.cfg.Addr = f.now.Addr()
	return f, nil
}

func (f *fake) String() string             { return "kfake, which is not Apache Kafka, at " + f.cfg.Addr }
func (f *fake) Address() string            { return f.cfg.Addr }
func (f *fake) Kill(context.Context) error { return f.Stop(context.Background()) }

func (f *fake) Start(ctx context.Context) (err error) {
	if f.now != nil {
		return errors.New("cluster: kfake is running already")
	}
	f.now, err = embedded.StartKafka(ctx, f.cfg)
	return err
}

func (f *fake) Stop(context.Context) error {
	if f.now != nil {
		f.now.Close()
		f.now = nil
	}
	return nil
}

func (f *fake) Close() {
	_ = f.Stop(context.Background())
	_ = os.RemoveAll(f.cfg.DataDir)
}

// postgres is the embedded one, without fsync.
type postgres struct {
	cfg embedded.PostgresConfig
	dir string
	now *embedded.Postgres // the last one started
}

func startEmbeddedPostgres(ctx context.Context, o Options) (part, error) {
	dir, err := os.MkdirTemp("", "whisper-cluster-")
	if err != nil {
		return nil, fmt.Errorf("cluster: make a folder for Postgres: %w", err)
	}
	if err := os.Chmod(dir, 0o755); err != nil { // under root Postgres is somebody else
		return nil, fmt.Errorf("cluster: open the folder for Postgres: %w", err)
	}
	p := &postgres{dir: dir, cfg: embedded.PostgresConfig{
		DataDir: filepath.Join(dir, "postgres"), NoSync: true, Env: o.PostgresEnv, Logger: o.Logger,
	}}
	if o.PostgresFolder != "" {
		p.cfg.DataDir = filepath.Join(o.PostgresFolder, "postgres")
	}
	if err := p.Start(ctx); err != nil {
		_ = os.RemoveAll(dir)
		return nil, err
	}
	p.cfg.Port = p.now.Port()
	return p, nil
}

func (p *postgres) String() string {
	return "PostgreSQL " + p.now.Version() + " at " + net.JoinHostPort("127.0.0.1", strconv.Itoa(p.cfg.Port))
}
func (p *postgres) Address() string                { return p.now.URL() }
func (p *postgres) Stop(ctx context.Context) error { return p.now.Stop(ctx) }
func (p *postgres) Kill(ctx context.Context) error { return p.now.Kill(ctx) }

func (p *postgres) Start(ctx context.Context) error {
	now, err := embedded.StartPostgres(ctx, p.cfg)
	if err == nil {
		p.now = now
	}
	return err
}

func (p *postgres) Close() {
	_ = p.Stop(context.Background())
	_ = os.RemoveAll(p.now.StateDir())
	_ = os.RemoveAll(p.dir)
}
