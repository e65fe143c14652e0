package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/testcontainers/testcontainers-go"
	tclog "github.com/testcontainers/testcontainers-go/log"

	"github.com/klivvr/whisper/integration/cluster/kafka"
)

const postgresImage = "postgres:17"

// dockerAnswers asks the daemon that the environment or the default socket leads to.
func dockerAnswers(ctx context.Context) bool {
	cli, err := client.New(client.FromEnv)
	if err != nil {
		return false
	}
	defer func() { _ = cli.Close() }()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	_, err = cli.Ping(ctx, client.PingOptions{})
	return err == nil
}

// inContainer is a server in a container. Its port on this machine is chosen beforehand: Kafka has to
// tell it to clients, and a mapping that Docker chooses changes with each start.
type inContainer struct {
	name, addr, port string
	c                *testcontainers.DockerContainer
	ping             func(ctx context.Context, addr string) error
}

func (i *inContainer) String() string  { return i.name + " in a container at 127.0.0.1:" + i.port }
func (i *inContainer) Address() string { return i.addr }

func (i *inContainer) Start(ctx context.Context) error {
	if err := i.c.Start(ctx); err != nil {
		return fmt.Errorf("cluster: start %s: %w", i, err)
	}
	return i.ready(ctx)
}

// ready waits for an answer at the address that tests will use. The library's own waits look at the
// container's log, which a restart does not clear, or at an address that it guesses.
func (i *inContainer) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := i.ping(ctx, i.addr)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("cluster: %s is up and can't be reached from here: %w", i, err)
		}
	}
}

func (i *inContainer) Stop(ctx context.Context) error { return i.stop(ctx, 30*time.Second) }
func (i *inContainer) Kill(ctx context.Context) error { return i.stop(ctx, 0) } // SIGKILL at once

func (i *inContainer) stop(ctx context.Context, grace time.Duration) error {
	if err := i.c.Stop(ctx, &grace); err != nil {
		return fmt.Errorf("cluster: stop %s: %w", i, err)
	}
	return nil
}

func (i *inContainer) Close() {
	_ = i.c.Terminate(context.Background(), testcontainers.StopTimeout(0))
}

// run makes and starts the container, and leaves none behind when that fails.
func (i *inContainer) run(ctx context.Context, image, inside string, opts ...testcontainers.ContainerCustomizer) (err error) {
	defer func() {
		// The library panics on some broken Docker set-ups.
		if r := recover(); r != nil {
			err = fmt.Errorf("cluster: run %s: %v", image, r)
		}
		if err != nil && i.c != nil {
			i.Close()
		}
	}()
	tclog.SetDefault(tclog.NewNoopLogger()) // it logs every step; errors say enough
	p, err := network.ParsePort(inside + "/tcp")
	if err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	opts = append(opts,
		testcontainers.WithExposedPorts(inside+"/tcp"),
		testcontainers.WithHostConfigModifier(func(hc *container.HostConfig) {
			hc.PortBindings = network.PortMap{p: {{HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: i.port}}}
		}),
	)
	if i.c, err = testcontainers.Run(ctx, image, opts...); err != nil {
		return fmt.Errorf("cluster: run %s: %w", image, err)
	}
	return i.ready(ctx)
}

func startKafkaContainer(ctx context.Context, o Options) (part, error) {
	port, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	env := map[string]string{
		"KAFKA_NODE_ID":                        "1",
		"KAFKA_PROCESS_ROLES":                  "broker,controller",
		"KAFKA_CONTROLLER_QUORUM_VOTERS":       "1@localhost:9093",
		"KAFKA_CONTROLLER_LISTENER_NAMES":      "CONTROLLER",
		"KAFKA_LISTENERS":                      "PLAINTEXT://:9092,CONTROLLER://:9093",
		"KAFKA_ADVERTISED_LISTENERS":           "PLAINTEXT://127.0.0.1:" + port,
		"KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
		"KAFKA_LOG_DIRS":                       "/tmp/whisper-kafka",
		"CLUSTER_ID":                           "d2hpc3Blci13aGlzcGVycw",
	}
	for k, v := range kafka.Settings(o.KafkaSettings) {
		env[kafka.EnvName(k)] = v
	}
	i := &inContainer{name: "Apache Kafka " + kafka.Version, addr: "127.0.0.1:" + port, port: port, ping: pingKafka}
	return i, i.run(ctx, "apache/kafka-native:"+kafka.Version, "9092", testcontainers.WithEnv(env))
}

func startPostgresContainer(ctx context.Context) (part, error) {
	port, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	i := &inContainer{
		name: postgresImage, port: port, ping: pingPostgres,
		addr: "postgres://whisper:whisper@127.0.0.1:" + port + "/whisper?sslmode=disable",
	}
	return i, i.run(ctx, postgresImage, "5432",
		testcontainers.WithEnv(map[string]string{
			"POSTGRES_USER": "whisper", "POSTGRES_PASSWORD": "whisper", "POSTGRES_DB": "whisper",
			"POSTGRES_INITDB_ARGS": "--locale=C --encoding=UTF8",
		}),
		testcontainers.WithCmd("postgres", "-c", "fsync=off", "-c", "max_connections=200"))
}

func freePort(ctx context.Context) (string, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("cluster: find a free port: %w", err)
	}
	defer func() { _ = l.Close() }()
	addr, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return "", errors.New("cluster: find a free port: it is not TCP")
	}
	return strconv.Itoa(addr.Port), nil
}
