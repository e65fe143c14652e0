package embedded

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/twmb/franz-go/pkg/kfake"
)

// KafkaConfig says where the embedded broker listens and what it keeps.
type KafkaConfig struct {
	// Addr is host:port; 127.0.0.1:9092 when empty. Port 0 takes a free one.
	Addr string
	// DataDir keeps topics, records, committed offsets and group state. Empty keeps all in memory.
	DataDir string
	// Configs override the broker's settings, under Kafka's names for them.
	Configs map[string]string
	// Logger takes the broker's warnings and errors; slog.Default() when nil.
	Logger *slog.Logger
}

// Kafka is a running broker: franz-go's kfake, which speaks Kafka's protocol to any client.
//
// What survives, with a DataDir, seen with this version and held by the tests:
//   - Close: everything, group members included, for as long as their session lasts.
//   - SIGKILL of the process: every acknowledged record, topic and committed offset. They are written
//     with write(2) before they are acknowledged, so they are in the kernel's page cache. A torn last
//     batch is cut off on load.
//   - A crash of the machine: what the kernel had not yet written is lost, as with Apache Kafka's
//     defaults on one broker. kfake has SyncWrites for that; it costs an fsync a batch, and a
//     development broker is not worth it.
//
// One goroutine serves all requests, so more cores don't make it faster. It has one broker, so
// acks=all is acks=1. It never creates a topic by being asked for it: a mistyped topic must fail here
// as it does in production.
type Kafka struct {
	cluster *kfake.Cluster
	lock    *os.File
	addr    string
}

// brokerConfigs are small-machine values of what Kafka sizes for a server.
var brokerConfigs = map[string]string{
	// Retention and compaction work on whole segments and a development log is small.
	"log.segment.bytes": strconv.Itoa(32 << 20),
	// kfake compacts in its only loop, hourly by default, by which time it is a visible pause.
	"log.cleaner.backoff.ms": "300000",
	// A crashed `whisper dev` must not keep its successor waiting for 45 s, nor must tests.
	"group.min.session.timeout.ms":         "1000",
	"group.consumer.heartbeat.interval.ms": "1000",
	"group.consumer.session.timeout.ms":    "10000",
	// A developer who is away for a fortnight comes back to the offsets they left.
	"offsets.retention.minutes": strconv.Itoa(90 * 24 * 60),
}

// incarnation tells this process's starts from those of processes before it.
var incarnation = rand.Text()

// StartKafka starts a broker and returns once it listens.
func StartKafka(ctx context.Context, cfg KafkaConfig) (*Kafka, error) {
	if cfg.Addr == "" {
		cfg.Addr = "127.0.0.1:9092"
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	_, portText, err := net.SplitHostPort(cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("embedded kafka: address %q is not host:port: %w", cfg.Addr, err)
	}
	port, err := strconv.Atoi(portText)
	if err != nil {
		return nil, fmt.Errorf("embedded kafka: port of %q is not a number: %w", cfg.Addr, err)
	}
	opts := []kfake.Opt{
		kfake.NumBrokers(1),
		kfake.Ports(port),
		kfake.ClusterID("whisper-embedded"),
		kfake.ListenFn(func(network, _ string) (net.Listener, error) {
			return new(net.ListenConfig).Listen(ctx, network, cfg.Addr)
		}),
		kfake.WithLogger(kafkaLogger{cfg.Logger}),
		kfake.BrokerConfigs(brokerConfigs),
		kfake.BrokerConfigs(cfg.Configs),
	}
	k := &Kafka{}
	if cfg.DataDir != "" {
		if k.lock, err = lockKafkaData(cfg.DataDir); err != nil {
			return nil, err
		}
		opts = append(opts, kfake.DataDir(cfg.DataDir))
	}
	if k.cluster, err = kfake.NewCluster(opts...); err != nil {
		k.unlock()
		if errors.Is(err, syscall.EADDRINUSE) {
			return nil, fmt.Errorf("embedded kafka: %s is in use: stop what listens there (another `whisper dev`?), or choose another address",
				cfg.Addr)
		}
		return nil, fmt.Errorf("start embedded kafka on %s: %w", cfg.Addr, err)
	}
	k.addr = k.cluster.ListenAddrs()[0]
	return k, nil
}

// Addr is the host:port that clients bootstrap from.
func (k *Kafka) Addr() string { return k.addr }

// Cluster is kfake's own handle, for tests that make the broker misbehave.
func (k *Kafka) Cluster() *kfake.Cluster { return k.cluster }

// Close writes what is still in memory and stops. Close clients first: the members of a group that
// never left it are kept, and hold their partitions until their session times out.
func (k *Kafka) Close() {
	k.cluster.Close()
	k.unlock()
}

func (k *Kafka) unlock() {
	if k.lock != nil {
		_ = k.lock.Close()
		k.lock = nil
	}
}

// lockKafkaData makes dir this process's own: two brokers appending to one segment file would ruin it.
//
// kfake keeps a closing broker's group members so that clients can ride through its restart. In a
// `whisper dev` the clients end with the broker, and their ghosts would only hold partitions back, so
// a new process starts without them.
func lockKafkaData(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("embedded kafka: make data folder: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil { // of an earlier version, which left it open to everybody
		return nil, fmt.Errorf("embedded kafka: close data folder: %w", err)
	}
	lock, holder, err := lockFile(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, fmt.Errorf("embedded kafka: data folder %s: %w", dir, err)
	}
	if lock == nil {
		return nil, fmt.Errorf("embedded kafka: data folder %s is in use by process %s: stop it, or choose another folder", dir, holder)
	}
	last, err := os.ReadFile(filepath.Join(dir, "incarnation"))
	if err == nil && string(last) == incarnation {
		return lock, nil
	}
	err = os.Remove(filepath.Join(dir, "session_state.json"))
	if err == nil || errors.Is(err, os.ErrNotExist) {
		err = os.WriteFile(filepath.Join(dir, "incarnation"), []byte(incarnation), 0o600)
	}
	if err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("embedded kafka: data folder %s: %w", dir, err)
	}
	return lock, nil
}

// lockFile takes an exclusive lock that the kernel drops when this process ends. Somebody else's lock
// is no error: the file is nil and holder is the process id that they wrote into it.
func lockFile(path string) (file *os.File, holder string, err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, "", err
	}
	if err := flock(f, false); err != nil {
		b, _ := os.ReadFile(path)
		_ = f.Close()
		if errors.Is(err, errLocked) {
			return nil, strings.TrimSpace(string(b)), nil
		}
		return nil, "", err
	}
	if err := f.Truncate(0); err == nil {
		_, _ = fmt.Fprintf(f, "%d\n", os.Getpid())
	}
	return f, "", nil
}

type kafkaLogger struct{ log *slog.Logger }

// Logf passes on what an operator should see; kfake's lower levels print every request.
func (l kafkaLogger) Logf(level kfake.LogLevel, format string, args ...any) {
	switch level {
	case kfake.LogLevelError:
		l.log.Error("embedded kafka", "detail", fmt.Sprintf(format, args...))
	case kfake.LogLevelWarn:
		l.log.Warn("embedded kafka", "detail", fmt.Sprintf(format, args...))
	case kfake.LogLevelNone, kfake.LogLevelInfo, kfake.LogLevelDebug:
	}
}
