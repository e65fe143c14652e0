package integration

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/klivvr/whisper/integration/cluster"
	"github.com/klivvr/whisper/integration/cluster/kafka"
	"github.com/klivvr/whisper/integration/cluster/link"
)

// machine has the means for faults other than signals, and says which of them this machine allows.
type machine struct {
	t     *testing.T
	dir   string
	links map[string]*link.Link // "broker-1 PLAINTEXT", "postgres", "gateway-1"
	disks map[string]disk       // "broker-1", "postgres"
	faked string                // the library that makes the clocks of Kafka and Postgres jump
	roles bool                  // the roles' clocks jump, too
	lacks []string              // what this machine does not allow, and why
}

func newMachine(t *testing.T, long bool) *machine {
	t.Helper()
	dir, err := os.MkdirTemp("", "whisper-chaos-") // not the test's, which is closed to the user who runs Postgres for root
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{t: t, dir: dir, links: map[string]*link.Link{}, disks: map[string]disk{}, faked: fakeTime(), roles: long}
	t.Cleanup(m.close)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"broker-1", "broker-2", "broker-3", "postgres"} {
		folder := m.path(part)
		if err := os.Mkdir(folder, 0o755); err != nil {
			t.Fatal(err)
		}
		d, err := mountDisk(folder)
		if err != nil {
			m.lacks = append(m.lacks, "full disks ("+err.Error()+")")
			break
		}
		m.disks[part] = d
	}
	if m.faked == "" {
		m.lacks = append(m.lacks, "clocks of Kafka and Postgres that jump (libfaketime is not installed)")
	}
	if !m.roles {
		m.lacks = append(m.lacks, "clocks of roles that jump (a build of minutes, for WHISPER_TEST_CHAOS alone)")
	}
	return m
}

func (m *machine) close() {
	for _, l := range m.links {
		l.Close()
	}
	for _, d := range m.disks {
		d.unmount()
	}
	_ = os.RemoveAll(m.dir)
}

func (m *machine) path(name string) string { return filepath.Join(m.dir, name) }

// lead puts a link in front of an address.
func (m *machine) lead(name, address string) (string, error) {
	l, err := link.New(address)
	if err != nil {
		return "", err
	}
	m.links[name] = l
	return l.Addr(), nil
}

// system is three brokers and two processes of each role behind links.
func (m *machine) system() *system {
	s := &system{dir: m.t.TempDir(), procs: map[string]*proc{}, pairs: true}
	var mu sync.Mutex
	s.options = cluster.Options{
		Brokers: 3,
		Front: func(broker int, port kafka.Port, address string) (string, error) {
			mu.Lock()
			defer mu.Unlock()
			return m.lead(fmt.Sprintf("broker-%d %s", broker, port), address)
		},
		Folder: func(broker int) (string, error) { return m.path(fmt.Sprintf("broker-%d", broker)), nil },
	}
	if m.faked != "" {
		s.options.Env = func(broker int) []string { return fakeEnv(m.faked, m.clock(fmt.Sprintf("broker-%d", broker))) }
		s.options.PostgresEnv = fakeEnv(m.faked, m.clock("postgres"))
		for _, part := range []string{"broker-1", "broker-2", "broker-3", "postgres"} {
			m.jump(part, 0)
		}
	}
	s.options.PostgresFolder = m.path("postgres")
	s.database = func(direct string) (string, error) {
		u, err := url.Parse(direct)
		if err != nil {
			return "", err
		}
		u.Host, err = m.lead("postgres", u.Host)
		return u.String(), err
	}
	if m.roles {
		s.build = func(ctx context.Context, binary string) error { return buildWithClock(ctx, m.dir, binary) }
		s.envOf = func(name string) []string { return []string{"CHAOS_CLOCK=" + m.clock(name)} }
	}
	return s
}

func (m *machine) clock(name string) string { return m.path("clock-" + name) }

// jump shifts a clock by d: that of a role, or of a program under libfaketime.
func (m *machine) jump(name string, d time.Duration) {
	set := setClock
	if m.disks[name] != "" || name == "postgres" || strings.HasPrefix(name, "broker") {
		set = setFake
	}
	if err := set(m.clock(name), d); err != nil {
		m.t.Error(err)
	}
}

// hows returns the faults that a part can have on this machine.
func (m *machine) hows(what string) []string {
	all := []string{"kill", "stop", "pause", "crawl"}
	switch what {
	case "client": // what is between clients and a gateway
		return []string{"slow", "lossy", "thin", "silent", "cut"}
	case "broker":
		all = append(all, "slow", "lossy", "thin", "silent", "cut", "apart")
	case "postgres":
		all = append(all, "slow", "lossy", "silent", "cut")
	default:
		if m.roles {
			all = append(all, "clock")
		}
		return all
	}
	if m.faked != "" {
		all = append(all, "clock")
	}
	if len(m.disks) > 0 {
		all = append(all, "full")
	}
	return all
}

// faults injects one fault after another until then; at most one broker, and one process of a role, is faulty at a time.
func (c *chaos) faults(until time.Time) {
	parts := []string{"intake", "dispatch", "dispatch", "gateway", "push", "project", "client", "broker", "broker", "broker", "postgres"}
	var woken sync.WaitGroup
	busy := map[string]*sync.Mutex{}
	for _, part := range parts {
		busy[part] = &sync.Mutex{}
	}
	c.t.Logf("faults: broker %v; postgres %v; roles %v; clients %v. Not here: %s",
		c.m.hows("broker"), c.m.hows("postgres"), c.m.hows("dispatch"), c.m.hows("client"), strings.Join(c.m.lacks, "; "))
	for time.Now().Before(until) {
		f := fault{what: parts[c.rng.IntN(len(parts))], n: 1 + c.rng.IntN(6), rng: rand.New(rand.NewPCG(c.rng.Uint64(), 3))}
		hows := c.m.hows(f.what)
		f.how = hows[c.rng.IntN(len(hows))]
		f.last = time.Duration(500+c.rng.IntN(19_500)) * time.Millisecond
		between := time.Duration(200+c.rng.IntN(1_800)) * time.Millisecond
		if busy[f.what].TryLock() {
			c.mu.Lock()
			c.counts[f.how+" "+f.what]++
			c.mu.Unlock()
			woken.Go(func() {
				defer busy[f.what].Unlock()
				began := time.Now()
				c.fault(f)
				c.note("%s to %s %s %d for %s", began.Format("15:04:05.000"), f.how, f.what, f.n, time.Since(began).Round(time.Millisecond))
			})
		}
		select {
		case <-time.After(between):
		case <-c.t.Context().Done():
			return
		}
	}
	woken.Wait()
}

type fault struct {
	what, how string
	n         int // of a pair 1 + n % 2, of brokers 1 + n % 3
	last      time.Duration
	rng       *rand.Rand
}

// note records a fault, for whoever reads about a failure.
func (c *chaos) note(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done = append(c.done, fmt.Sprintf(format, args...))
}

func (c *chaos) fault(f fault) {
	var name string
	var pids func() []int
	var links []*link.Link
	var kill, stop, start func()
	t, ctx := c.t, context.Background()
	report := func(do func(context.Context) error) func() {
		return func() {
			if err := do(ctx); err != nil {
				t.Errorf("%s %s: %v", f.how, name, err)
			}
		}
	}
	switch f.what {
	case "client":
		name = fmt.Sprintf("gateway-%d", 1+f.n%2)
		links = []*link.Link{c.m.links[name]}
	case "broker":
		broker := sys.cluster.Brokers()[f.n%3]
		name = fmt.Sprintf("broker-%d", 1+f.n%3)
		pids = func() []int { return []int{broker.PID()} }
		kill, stop, start = report(broker.Kill), report(broker.Stop), report(patiently(broker.Start))
		links = []*link.Link{c.m.links[name+" "+string(kafka.ForClients)]}
		others := []*link.Link{c.m.links[name+" "+string(kafka.ForBrokers)], c.m.links[name+" "+string(kafka.ForControllers)]}
		switch f.how {
		case "apart":
			links, f.how = others, "silent"
		case "slow", "lossy":
			links = append(links, others...)
		}
	case "postgres":
		name = "postgres"
		pids = func() []int { return family(sys.cluster.PostgresPID()) }
		kill, stop, start = report(sys.cluster.KillPostgres), report(sys.cluster.StopPostgres), report(patiently(sys.cluster.StartPostgres))
		links = []*link.Link{c.m.links[name]}
	default:
		name = fmt.Sprintf("%s-%d", f.what, 1+f.n%2)
		pids = func() []int { return []int{sys.proc(name).cmd.Process.Pid} }
		kill, stop, start = func() { sys.kill(t, name) }, func() { sys.stop(t, name) }, func() { sys.restart(t, name) }
	}
	switch f.how {
	case "kill", "stop":
		map[string]func(){"kill": kill, "stop": stop}[f.how]()
		if f.what == "broker" || f.what == "postgres" {
			<-time.After(f.last / 10)
		}
		start()
	case "pause":
		all := pids()
		c.signal(syscall.SIGSTOP, all...)
		<-time.After(f.last)
		c.signal(syscall.SIGCONT, all...)
	case "crawl": // as on a machine or a disk that is much too slow
		for end := time.Now().Add(f.last); time.Now().Before(end); {
			all := pids()
			c.signal(syscall.SIGSTOP, all...)
			<-time.After(180 * time.Millisecond)
			c.signal(syscall.SIGCONT, all...)
			<-time.After(20 * time.Millisecond)
		}
	case "clock":
		d := time.Second + time.Duration(f.rng.Int64N(int64(5*time.Minute)))
		if f.rng.IntN(2) == 0 {
			d = -d
		}
		c.m.jump(name, d)
		<-time.After(f.last)
		c.m.jump(name, 0)
	case "full":
		if err := c.m.disks[name].fill(); err != nil {
			t.Errorf("fill the disk of %s: %v", name, err)
		}
		<-time.After(f.last)
		if err := c.m.disks[name].free(); err != nil {
			t.Errorf("free the disk of %s: %v", name, err)
		}
		if f.what == "postgres" && c.answers() {
			return // it came through
		}
		kill()
		start()
	case "cut":
		for _, l := range links {
			l.Cut()
		}
	default:
		for _, l := range links {
			l.Set(map[string]link.Weather{
				"slow":   {Delay: time.Duration(5+f.rng.IntN(250)) * time.Millisecond, Jitter: 50 * time.Millisecond},
				"lossy":  {Delay: 5 * time.Millisecond, Loss: 0.01 + 0.09*f.rng.Float64()},
				"thin":   {Rate: 20_000 + f.rng.IntN(200_000)},
				"silent": {Silent: true},
			}[f.how])
		}
		<-time.After(f.last)
		for _, l := range links {
			l.Set(link.Weather{})
		}
	}
}

// patiently starts a server whose own start gives up after some minutes, as often as needed: a busy machine takes longer.
func patiently(start func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) (err error) {
		for range 5 {
			if err = start(ctx); err == nil {
				return nil
			}
		}
		return err
	}
}

func (c *chaos) signal(sig syscall.Signal, pids ...int) {
	for _, pid := range pids {
		if err := syscall.Kill(pid, sig); err != nil && err != syscall.ESRCH {
			c.t.Error(err)
		}
	}
}

// answers says whether Postgres still accepts a write.
func (c *chaos) answers() bool {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, sys.cluster.Postgres)
	if err != nil {
		return false
	}
	defer func() { _ = conn.Close(ctx) }()
	_, err = conn.Exec(ctx, "CREATE TEMP TABLE still AS SELECT 1")
	return err == nil
}

// totals counts the faults by kind, over all parts.
func totals(counts map[string]int) string {
	by := map[string]int{}
	all := 0
	for what, n := range counts {
		how, _, _ := strings.Cut(what, " ")
		by[how] += n
		all += n
	}
	var hows []string
	for how, n := range by {
		hows = append(hows, fmt.Sprintf("%d %s", n, how))
	}
	slices.Sort(hows)
	return fmt.Sprintf("%d faults: %s", all, strings.Join(hows, ", "))
}
