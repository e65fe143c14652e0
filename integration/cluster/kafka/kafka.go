// Package kafka runs a real Apache Kafka broker without Docker: Maven fetches its jars once, Java runs
// them. It is for tests and for `whisper bench`; it knows nothing of Whisper's topics.
package kafka

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"
)

//go:embed pom.xml
var pom []byte

// Version is the Apache Kafka that pom.xml pins.
var Version = string(regexp.MustCompile(`<kafka\.version>(.*)</kafka\.version>`).FindSubmatch(pom)[1])

// fetchPlugin is pinned as pom.xml's is; Maven does not take a plugin's version from there when a goal
// is named in full.
const fetchPlugin = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"

// Config says how a broker runs. The zero value is a broker for tests.
type Config struct {
	// Port on 127.0.0.1; 0 takes a free one. A restart keeps it.
	Port int
	// DataDir keeps the log. Empty means a temporary folder that Close removes.
	DataDir string
	// CacheDir keeps the jars; the user's cache folder when empty.
	CacheDir string
	// Settings are added to server.properties.
	Settings map[string]string
	// JVM replaces the flags of a broker for tests, which are for a quick start on a small heap:
	// 512 MB, and no optimising compiler. A benchmark wants {"-Xms1g", "-Xmx1g", "-XX:+UseG1GC"}.
	JVM []string
	// Front, where it is set, is given the address of each of a broker's ports and answers with the one at which clients, the
	// other brokers or the other controllers are to find it: a proxy's. For brokers of StartQuorum.
	Front func(broker int, port Port, address string) (string, error)
	// Folder, where it is set, is the existing folder of each broker of StartQuorum; Close leaves it.
	Folder func(broker int) (string, error)
	// Env, where it is set, is added to the environment of each broker's process.
	Env func(broker int) []string
}

// Port is whom a port of a broker is for.
type Port string

// The ports of each broker of StartQuorum.
const (
	ForClients     Port = "PLAINTEXT"
	ForBrokers     Port = "INTERNAL"
	ForControllers Port = "CONTROLLER"
)

// Broker is one Apache Kafka process, KRaft, broker and controller in one. It ends with this process,
// on Linux even when that is killed.
type Broker struct {
	cfg            Config
	jars           string
	dir            string // the log and server.properties
	temporary      bool
	id             int
	controllerPort int
	internalPort   int      // for the other brokers; 0 where there is only one
	client         string   // what clients bootstrap from
	internal       string   // where the other brokers find it
	voters         []string // of the quorum of controllers: id@host:port

	mu     sync.Mutex
	pid    int
	exited chan struct{} // of the present process; nil before the first
	log    *tail
}

// Start fetches the jars if need be, formats the log folder and returns once the broker takes requests:
// about three seconds after the first time.
func Start(ctx context.Context, cfg Config) (*Broker, error) {
	brokers, err := StartQuorum(ctx, 1, cfg)
	if err != nil {
		return nil, err
	}
	return brokers[0], nil
}

// StartQuorum starts n brokers that are one cluster, each a controller, too; with three, one may be away. Topics that
// say nothing else are on as many of them as there are, up to three. Every broker has a port and a folder of its own,
// so Port and DataDir are of one broker alone.
func StartQuorum(ctx context.Context, n int, cfg Config) ([]*Broker, error) {
	if n > 1 && (cfg.Port != 0 || cfg.DataDir != "") {
		return nil, errors.New("kafka: a port and a data folder are those of one broker")
	}
	if len(cfg.JVM) == 0 {
		cfg.JVM = []string{"-Xms64m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"}
	}
	jars, err := Fetch(ctx, cfg.CacheDir)
	if err != nil {
		return nil, err
	}
	if n > 1 {
		cfg.Settings = merged(replicated(min(n, 3)), cfg.Settings)
	}
	brokers := make([]*Broker, n)
	var voters []string
	for i := range brokers {
		b := &Broker{cfg: cfg, dir: cfg.DataDir, jars: jars, id: i + 1, temporary: cfg.DataDir == ""}
		if b.controllerPort, err = freePort(ctx); err != nil {
			return nil, err
		}
		controller, err := b.place(ctx, n > 1)
		if err != nil {
			return nil, err
		}
		voters = append(voters, fmt.Sprintf("%d@%s", b.id, controller))
		brokers[i] = b
	}
	var g errgroup.Group
	for _, b := range brokers {
		b.voters = voters
		g.Go(func() error { // a quorum answers when most of it is there
			if err := b.format(ctx); err != nil {
				return err
			}
			return b.Start(ctx)
		})
	}
	if err := g.Wait(); err != nil {
		for _, b := range brokers {
			b.Close()
		}
		return nil, err
	}
	return brokers, nil
}

// place chooses the broker's folder and ports, and says where the other controllers find it.
func (b *Broker) place(ctx context.Context, several bool) (controller string, err error) {
	if b.cfg.Port == 0 {
		if b.cfg.Port, err = freePort(ctx); err != nil {
			return "", err
		}
	}
	b.client, controller = local(b.cfg.Port), local(b.controllerPort)
	if !several {
		return controller, nil
	}
	if b.internalPort, err = freePort(ctx); err != nil {
		return "", err
	}
	b.internal = local(b.internalPort)
	if b.cfg.Folder != nil {
		if b.dir, err = b.cfg.Folder(b.id); err != nil {
			return "", fmt.Errorf("kafka: a broker's folder: %w", err)
		}
		b.temporary = false
	}
	if b.cfg.Front == nil {
		return controller, nil
	}
	for port, address := range map[Port]*string{ForClients: &b.client, ForBrokers: &b.internal, ForControllers: &controller} {
		if *address, err = b.cfg.Front(b.id, port, *address); err != nil {
			return "", fmt.Errorf("kafka: what is before a broker's port: %w", err)
		}
	}
	return controller, nil
}

func local(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

func merged(settings, more map[string]string) map[string]string {
	settings = maps.Clone(settings)
	maps.Copy(settings, more)
	return settings
}

// replicated are the settings of brokers that keep every record n times, and take one when all but one have it.
func replicated(n int) map[string]string {
	all, most := strconv.Itoa(n), strconv.Itoa(max(1, n-1))
	return map[string]string{
		"default.replication.factor": all, "min.insync.replicas": most,
		"offsets.topic.replication.factor": all, "transaction.state.log.replication.factor": all, "transaction.state.log.min.isr": most,
		"share.coordinator.state.topic.replication.factor": all, "share.coordinator.state.topic.min.isr": most,
	}
}

// Fetch has Maven put the jars into a folder under cacheDir, unless they are there, and returns it.
func Fetch(ctx context.Context, cacheDir string) (string, error) {
	if cacheDir == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			base = os.TempDir()
		}
		cacheDir = filepath.Join(base, "whisper", "kafka")
	}
	sum := sha256.Sum256(pom)
	dir := filepath.Join(cacheDir, Version+"-"+hex.EncodeToString(sum[:4]))
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	for _, program := range []string{"java", "mvn"} {
		if _, err := exec.LookPath(program); err != nil {
			return "", fmt.Errorf("kafka: its jars need Java 17 and Maven, and %w", err)
		}
	}
	if err := os.MkdirAll(cacheDir, 0o755); err != nil {
		return "", fmt.Errorf("kafka: make cache folder: %w", err)
	}
	// Packages' tests run side by side: each fetches into a folder of its own, the first to finish wins.
	partial, err := os.MkdirTemp(cacheDir, "partial-")
	if err != nil {
		return "", fmt.Errorf("kafka: make cache folder: %w", err)
	}
	defer func() { _ = os.RemoveAll(partial) }()
	pomFile := filepath.Join(partial, "pom.xml")
	if err := os.WriteFile(pomFile, pom, 0o644); err != nil {
		return "", fmt.Errorf("kafka: write pom.xml: %w", err)
	}
	out, err := exec.CommandContext(ctx, "mvn", "-B", "-q", "-f", pomFile, fetchPlugin,
		"-DincludeScope=runtime", "-DoutputDirectory="+partial).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("kafka: fetch its jars with Maven: %w: %s", err, firstError(string(out)))
	}
	if err := os.Chmod(partial, 0o755); err != nil {
		return "", fmt.Errorf("kafka: keep its jars: %w", err)
	}
	if err := os.Rename(partial, dir); err != nil {
		if _, statErr := os.Stat(dir); statErr != nil {
			return "", fmt.Errorf("kafka: keep its jars: %w", err)
		}
	}
	return dir, nil
}

// firstError is the line of Maven's page of output that says what is wrong.
func firstError(out string) string {
	for line := range strings.Lines(out) {
		if strings.Contains(line, "ERROR") {
			return strings.TrimSpace(line)
		}
	}
	return strings.TrimSpace(out)
}

func (b *Broker) format(ctx context.Context) error {
	var err error
	if b.dir == "" {
		if b.dir, err = os.MkdirTemp("", "whisper-kafka-"); err != nil {
			return fmt.Errorf("kafka: make its folder: %w", err)
		}
	}
	if err := os.MkdirAll(b.dir, 0o755); err != nil {
		return fmt.Errorf("kafka: make its folder: %w", err)
	}
	if err := os.WriteFile(b.properties(), []byte(b.serverProperties()), 0o644); err != nil {
		return fmt.Errorf("kafka: write its settings: %w", err)
	}
	cmd := exec.CommandContext(ctx, "java", b.java("kafka.tools.StorageTool", "format",
		"--ignore-formatted", "-t", "d2hpc3Blci13aGlzcGVycw", "-c", b.properties())...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("kafka: format its folder: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

func (b *Broker) properties() string { return filepath.Join(b.dir, "server.properties") }

func (b *Broker) serverProperties() string {
	settings := map[string]string{
		"process.roles":                  "broker,controller",
		"node.id":                        strconv.Itoa(b.id),
		"controller.quorum.voters":       strings.Join(b.voters, ","),
		"controller.listener.names":      "CONTROLLER",
		"listeners":                      "PLAINTEXT://" + local(b.cfg.Port) + ",CONTROLLER://" + local(b.controllerPort),
		"advertised.listeners":           "PLAINTEXT://" + b.client,
		"listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,INTERNAL:PLAINTEXT",
		"log.dirs":                       filepath.Join(b.dir, "log"),
	}
	if b.internalPort != 0 {
		settings["listeners"] += ",INTERNAL://" + local(b.internalPort)
		settings["advertised.listeners"] += ",INTERNAL://" + b.internal
		settings["inter.broker.listener.name"] = "INTERNAL"
	}
	maps.Copy(settings, Settings(b.cfg.Settings))
	var lines []string
	for k, v := range settings {
		lines = append(lines, k+"="+v+"\n")
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

// Settings are those of any single broker for tests, however it runs, and more.
func Settings(more map[string]string) map[string]string {
	settings := map[string]string{
		"auto.create.topics.enable": "false",
		// Internal topics ask for three brokers by default, and for 50 partitions that a test's first
		// commit would wait for.
		"offsets.topic.replication.factor":                 "1",
		"offsets.topic.num.partitions":                     "4",
		"transaction.state.log.replication.factor":         "1",
		"transaction.state.log.min.isr":                    "1",
		"transaction.state.log.num.partitions":             "4",
		"share.coordinator.state.topic.replication.factor": "1",
		"share.coordinator.state.topic.min.isr":            "1",
		"default.replication.factor":                       "1",
		"min.insync.replicas":                              "1",
		"group.initial.rebalance.delay.ms":                 "0",
		// After a SIGKILL the controller lets the broker in only once its last session has run out: nine
		// seconds by default. Much less, and a busy machine's broker is taken for dead.
		"broker.session.timeout.ms":    "3000",
		"broker.heartbeat.interval.ms": "500",
		// Tests of crashes must not wait out the six-second floor.
		"group.min.session.timeout.ms":             "1000",
		"group.consumer.min.session.timeout.ms":    "1000",
		"group.consumer.min.heartbeat.interval.ms": "100",
		// Sized for two cores.
		"num.network.threads":            "2",
		"num.io.threads":                 "4",
		"background.threads":             "2",
		"log.cleaner.dedupe.buffer.size": "8388608",
	}
	maps.Copy(settings, more)
	return settings
}

// EnvName is how the container images spell a setting.
func EnvName(setting string) string {
	return "KAFKA_" + strings.ToUpper(strings.ReplaceAll(setting, ".", "_"))
}

func (b *Broker) java(args ...string) []string {
	return slices.Concat(b.cfg.JVM, []string{
		"-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
		"-cp", filepath.Join(b.jars, "*"),
	}, args)
}

// Addr is what clients bootstrap from; the same after a restart.
func (b *Broker) Addr() string { return b.client }

// Exited is closed when the present process has ended; nil before the first.
func (b *Broker) Exited() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.exited
}

// PID is the broker's process id.
func (b *Broker) PID() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.pid
}

// Start starts a broker again that was stopped or killed, with its log and on its port.
func (b *Broker) Start(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.exited != nil && !closed(b.exited) {
		return errors.New("kafka: it is running already")
	}
	b.log = &tail{}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), "java", b.java("kafka.Kafka", b.properties())...)
	cmd.Stdout, cmd.Stderr = b.log, b.log
	if b.cfg.Env != nil {
		cmd.Env = append(os.Environ(), b.cfg.Env(b.id)...)
	}
	exited, err := startTied(cmd)
	if err != nil {
		return fmt.Errorf("kafka: start java: %w", err)
	}
	b.pid, b.exited = cmd.Process.Pid, exited
	if err := b.ready(ctx); err != nil {
		_ = signal(b.pid, syscall.SIGKILL)
		<-b.exited
		return err
	}
	return nil
}

// startTime is how long a broker may take to start. It takes 3 seconds, and minutes where ten others want the processors;
// one that ends while it starts is noticed at once.
const startTime = 5 * time.Minute

// ready waits until the broker answers for itself: metadata lists it only once the controller has let
// it in.
func (b *Broker) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	client, err := kgo.NewClient(kgo.SeedBrokers(local(b.cfg.Port)),
		kgo.RetryBackoffFn(func(int) time.Duration { return 50 * time.Millisecond }))
	if err != nil {
		return fmt.Errorf("kafka: %w", err)
	}
	defer client.Close()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", local(b.cfg.Port))
		if err == nil {
			_ = conn.Close()
			brokers, err := kadm.NewClient(client).ListBrokers(ctx)
			if err == nil && slices.Contains(brokers.NodeIDs(), int32(b.id)) {
				return nil
			}
		}
		select {
		case <-tick.C:
		case <-b.exited:
			return fmt.Errorf("kafka: the broker ended while it started; it said: %s", b.log)
		case <-ctx.Done():
			return fmt.Errorf("kafka: the broker does not answer on %s: %w; it said: %s", b.Addr(), context.Cause(ctx), b.log)
		}
	}
}

// Stop shuts the broker down in its own order and keeps its log.
func (b *Broker) Stop(ctx context.Context) error { return b.signal(ctx, syscall.SIGTERM) }

// Kill ends the broker as a crash would and keeps its log.
func (b *Broker) Kill(ctx context.Context) error { return b.signal(ctx, syscall.SIGKILL) }

func (b *Broker) signal(ctx context.Context, sig syscall.Signal) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.exited == nil || closed(b.exited) {
		return nil
	}
	if err := signal(b.pid, sig); err != nil {
		return fmt.Errorf("kafka: signal process %d: %w", b.pid, err)
	}
	select {
	case <-b.exited:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("kafka: process %d is still there: %w", b.pid, context.Cause(ctx))
	}
}

// Close ends the broker at once and removes a temporary log.
func (b *Broker) Close() {
	_ = b.Kill(context.Background())
	b.clean()
}

func (b *Broker) clean() {
	if b.temporary {
		_ = os.RemoveAll(b.dir)
	}
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// freePort asks the kernel for one. Another process could take it before the broker does; the kernel
// hands them out in turn, so that takes thousands of sockets in a second.
func freePort(ctx context.Context) (int, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("kafka: find a free port: %w", err)
	}
	defer func() { _ = l.Close() }()
	addr, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return 0, fmt.Errorf("kafka: %v is no TCP address", l.Addr())
	}
	return addr.Port, nil
}

// tail keeps the end of what a process prints, for the error that says why it ended.
type tail struct {
	mu sync.Mutex
	b  []byte
}

const tailBytes = 4096

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if over := len(t.b) - tailBytes; over > 0 {
		t.b = t.b[over:]
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.b))
}
