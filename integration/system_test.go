package integration

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/consumers/push/apns/simulator"
	fcmsimulator "github.com/klivvr/whisper/consumers/push/fcm/simulator"
	"github.com/klivvr/whisper/embedded"
	"github.com/klivvr/whisper/gateway"
	"github.com/klivvr/whisper/integration/cluster"
)

const (
	partitions = 4
	secret     = "a secret of the integration tests, 32 bytes at least"
	topicOfApp = "com.klivvr.app"
)

// sys is the system under test; TestMain starts it.
var sys *system

// patience is for what hangs: nothing that works takes so long, on whatever machine.
const patience = 10 * time.Minute

func TestMain(m *testing.M) {
	embedded.RunIfPostgresHost()
	ownMounts()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience) // it also compiles the binary
	defer cancel()
	dir, err := os.MkdirTemp("", "whisper-integration-")
	if err != nil {
		return complain(err)
	}
	sys = &system{dir: dir, procs: map[string]*proc{}}
	defer sys.close()
	if err := sys.start(ctx); err != nil {
		return complain(err)
	}
	return m.Run()
}

func complain(err error) int {
	fmt.Fprintln(os.Stderr, "integration:", err)
	return 1
}

// system is one process for each role, on the cluster.
type system struct {
	dir     string
	options cluster.Options
	pairs   bool // two processes of each role
	// Where they are set: how the binary is built, the URL at which roles find the database, what is added to a role's environment.
	build    func(ctx context.Context, binary string) error
	database func(url string) (string, error)
	envOf    func(name string) []string
	binary   string
	cluster  *cluster.Cluster
	apple    *simulator.Simulator
	google   *fcmsimulator.Simulator
	env      []string
	db       *pgxpool.Pool
	kafka    *kgo.Client

	mu    sync.Mutex
	procs map[string]*proc
}

func (s *system) start(ctx context.Context) error {
	s.binary = filepath.Join(s.dir, "whisper")
	if s.build == nil {
		s.build = buildWhisper
	}
	err := s.build(ctx, s.binary)
	if err != nil {
		return err
	}
	if s.cluster, err = cluster.Start(ctx, s.options); err != nil {
		return err
	}
	database, err := s.cluster.NewDatabase(ctx)
	if err != nil {
		return err
	}
	direct := database
	if s.database != nil {
		if database, err = s.database(direct); err != nil {
			return err
		}
	}
	if s.apple, err = simulator.Start(ctx, simulator.Config{Addr: "127.0.0.1:0", Remember: 1_000_000}); err != nil {
		return err
	}
	if err := s.credentials(); err != nil {
		return err
	}
	if s.google, err = fcmsimulator.Start(ctx, fcmsimulator.Config{
		CAFile: filepath.Join(s.dir, "google.pem"), CredentialsFile: filepath.Join(s.dir, "account.json"),
	}); err != nil {
		return err
	}
	s.env = append(
		os.Environ(),
		"WHISPER_KAFKA="+strings.Join(s.cluster.Kafka, ","),
		fmt.Sprintf("WHISPER_PARTITIONS=%d", partitions),
		"WHISPER_POSTGRES="+database,
		"WHISPER_AUTH_SECRET="+secret,
		"WHISPER_SPREAD=500ms",
		"WHISPER_APNS_URL="+s.apple.URL(),
		"WHISPER_APNS_CA_FILE="+filepath.Join(s.dir, "apple.pem"),
		"WHISPER_APNS_KEY_FILE="+filepath.Join(s.dir, "key.p8"),
		"WHISPER_APNS_KEY_ID=ABC123DEFG", "WHISPER_APNS_TEAM_ID=DEF123GHIJ", "WHISPER_APNS_TOPIC="+topicOfApp,
		"WHISPER_FCM_URL="+s.google.URL(),
		"WHISPER_FCM_CA_FILE="+filepath.Join(s.dir, "google.pem"),
		"WHISPER_FCM_CREDENTIALS_FILE="+filepath.Join(s.dir, "account.json"),
	)
	for _, args := range [][]string{{"topics", "apply"}, {"migrate"}} {
		if out, err := s.command(ctx, args...).CombinedOutput(); err != nil {
			return fmt.Errorf("whisper %s: %w\n%s", strings.Join(args, " "), err, out)
		}
	}
	if s.db, err = pgxpool.New(ctx, direct); err != nil {
		return err
	}
	if s.kafka, err = kgo.NewClient(kgo.SeedBrokers(s.cluster.Kafka...), kgo.ProducerLinger(5*time.Millisecond)); err != nil {
		return err
	}
	names := []string{"intake", "dispatch", "push", "project", "gateway-1", "gateway-2"}
	if s.pairs {
		names = names[4:]
		for _, role := range []string{"intake", "dispatch", "push", "project"} {
			names = append(names, role+"-1", role+"-2")
		}
	}
	for _, name := range names {
		if err := s.up(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

func buildWhisper(ctx context.Context, binary string) error {
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", binary, "../cmd/whisper").CombinedOutput(); err != nil {
		return fmt.Errorf("build whisper: %w\n%s", err, out)
	}
	return nil
}

// binaryOf returns the binary that runs a role: ours, or that of another version, as `make compat` sets it.
func (s *system) binaryOf(role string) string {
	if slices.Contains(strings.Split(os.Getenv("WHISPER_TEST_OLD_ROLES"), ","), role) {
		return os.Getenv("WHISPER_TEST_OLD")
	}
	return s.binary
}

func (s *system) credentials() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(s.dir, "key.p8"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600),
		os.WriteFile(filepath.Join(s.dir, "apple.pem"), s.apple.CAPEM(), 0o600),
	)
}

func (s *system) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, s.binary, args...)
	cmd.Env = s.env
	return cmd
}

// proc is one process; its name is its role and a number.
type proc struct {
	name string
	cmd  *exec.Cmd
	ops  string
	addr string // of sockets
	args []string
	out  output
	done chan struct{}
	err  error
}

// up starts a process and waits until it is ready. It keeps its flags over restarts, a gateway its address.
func (s *system) up(ctx context.Context, name string, flags ...string) error {
	role, _, _ := strings.Cut(name, "-")
	p := &proc{name: name, ops: freeAddr(), done: make(chan struct{})}
	if old := s.proc(name); old != nil {
		p.addr, p.args = old.addr, old.args
	} else {
		p.args = append([]string{role, "--log-format", "text", "--log-level", "info"}, flags...)
		if role == "gateway" {
			p.addr = freeAddr()
			p.args = append(p.args, "--listen", p.addr)
		}
		if role == "gateway" && !slices.Contains(flags, "--node") {
			p.args = append(p.args, "--node", name)
		}
	}
	p.cmd = exec.Command(s.binaryOf(role), append(p.args[:len(p.args):len(p.args)], "--ops-addr", p.ops)...) //nolint:noctx // tests end it by signals
	p.cmd.Env = s.env
	if s.envOf != nil {
		p.cmd.Env = append(s.env[:len(s.env):len(s.env)], s.envOf(name)...)
	}
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	tie(p.cmd)
	if err := p.cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	s.mu.Lock()
	s.procs[name] = p
	s.mu.Unlock()
	return p.await(ctx)
}

// await waits until the process is ready.
func (p *proc) await(ctx context.Context) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if p.ready() {
			return nil
		}
		select {
		case <-tick.C:
		case <-p.done:
			return fmt.Errorf("%s ended: %w\n%s", p.name, p.err, p.out.String())
		case <-ctx.Done():
			return fmt.Errorf("not ready: %w: %s", ctx.Err(), p.report())
		}
	}
}

func (p *proc) ready() bool {
	_, ok := p.ask("/readyz")
	return ok
}

// ask returns what the process answers at a path of its operations port, and whether it is a 200.
func (p *proc) ask(path string) (said string, ok bool) {
	c := http.Client{Timeout: 10 * time.Second}
	resp, err := c.Get("http://" + p.ops + path) //nolint:noctx // a poll with its own end
	if err != nil {
		return err.Error(), false
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 16<<10))
	if err != nil {
		return err.Error(), false
	}
	return strings.TrimSpace(string(body)), resp.StatusCode == http.StatusOK
}

// report says why a process is not ready: its own answer, and the end of its log.
func (p *proc) report() string {
	ready, _ := p.ask("/readyz")
	health, _ := p.ask("/v1/health")
	return fmt.Sprintf("%s\n/readyz: %s\n/v1/health: %s\nlog:\n%s", p.name, ready, health, tail(p.out.String()))
}

// output is what a process printed; it may be read while the process runs.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// end signals the process, waits for its end and returns the exit error.
func (p *proc) end(sig os.Signal) error {
	select {
	case <-p.done:
		return p.err
	default:
	}
	_ = p.cmd.Process.Signal(sig)
	return p.ended()
}

// ended waits for the end of a process that was signalled; a second signal would not let it finish.
func (p *proc) ended() error {
	select {
	case <-p.done:
	case <-time.After(patience):
		_ = p.cmd.Process.Kill()
		<-p.done
		return fmt.Errorf("%s did not end within %s", p.name, patience)
	}
	return p.err
}

func (s *system) proc(name string) *proc {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.procs[name]
}

// operations returns the operations addresses of the running processes, by name.
func (s *system) operations() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := map[string]string{}
	for name, p := range s.procs {
		select {
		case <-p.done:
		default:
			all[name] = p.ops
		}
	}
	return all
}

// kill crashes the process; restart starts it again.
func (s *system) kill(t *testing.T, name string) {
	t.Helper()
	_ = s.proc(name).end(syscall.SIGKILL)
}

// stop stops the process cleanly, which must end with 0.
func (s *system) stop(t *testing.T, name string) {
	t.Helper()
	if err := s.proc(name).end(syscall.SIGTERM); err != nil {
		t.Errorf("%s did not stop cleanly: %v\n%s", name, err, tail(s.proc(name).out.String()))
	}
}

// forget drops a process that has ended and will not be restarted; remove stops one for good.
func (s *system) forget(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.procs, name)
}

func (s *system) remove(t *testing.T, name string) {
	t.Helper()
	s.stop(t, name)
	s.forget(name)
}

func (s *system) restart(t *testing.T, name string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := s.up(ctx, name); err != nil {
		t.Error(err) // not Fatal: faults happen on a goroutine of their own
	}
}

func (s *system) close() {
	for _, p := range s.procs {
		if err := p.end(syscall.SIGTERM); err != nil {
			fmt.Fprintf(os.Stderr, "integration: %s: %v\n%s\n", p.name, err, tail(p.out.String()))
		}
	}
	if s.kafka != nil {
		s.kafka.Close()
	}
	if s.db != nil {
		s.db.Close()
	}
	if s.apple != nil {
		s.apple.Close()
	}
	if s.google != nil {
		s.google.Close()
	}
	if s.cluster != nil {
		s.cluster.Close()
	}
	_ = os.RemoveAll(s.dir)
}

func (s *system) socketURL(gateway string) string {
	return "ws://" + s.proc(gateway).addr + "/v1/socket"
}

func token(user string) string {
	t, err := gateway.SignToken([]byte(secret), user, 24*time.Hour, time.Now())
	if err != nil {
		panic(err)
	}
	return t
}

func freeAddr() string {
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // loopback
	if err != nil {
		panic(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

func tail(s string) string {
	if len(s) > 4000 {
		return s[len(s)-4000:]
	}
	return s
}
