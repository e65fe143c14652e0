package embedded_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/embedded"
)

// victimEnv makes this test binary a process for a test to kill: it starts what the JSON says, prints
// where, and waits.
const victimEnv = "WHISPER_EMBEDDED_VICTIM"

type victim struct {
	KafkaDir    string
	PostgresDir string
}

func TestMain(m *testing.M) {
	embedded.RunIfPostgresHost()
	if v := os.Getenv(victimEnv); v != "" {
		if err := beVictim(v); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

func beVictim(spec string) error {
	var v victim
	if err := json.Unmarshal([]byte(spec), &v); err != nil {
		return err
	}
	ctx := context.Background()
	switch {
	case v.KafkaDir != "":
		k, err := embedded.StartKafka(ctx, embedded.KafkaConfig{Addr: "127.0.0.1:0", DataDir: v.KafkaDir})
		if err != nil {
			return err
		}
		fmt.Println(k.Addr())
	case v.PostgresDir != "":
		p, err := embedded.StartPostgres(ctx, embedded.PostgresConfig{DataDir: v.PostgresDir})
		if err != nil {
			return err
		}
		fmt.Println(p.PID(), p.URL())
	}
	select {}
}

// startVictim returns what the process said, and kill, which SIGKILLs it.
func startVictim(t *testing.T, v victim) (said []string, kill func()) {
	t.Helper()
	spec, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), victimEnv+"="+string(spec))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	t.Cleanup(kill)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the process to kill said nothing: %v", err)
	}
	return strings.Fields(line), kill
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(3 * time.Minute); !ok(); {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("after 3 min still not so: %s", what)
		}
	}
}

// testDir is a temporary folder that the user who runs Postgres for root can enter; t.TempDir is not,
// and being sent to /var/tmp instead has a test of its own.
func testDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "whisper-embedded-test-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func startKafka(t *testing.T, cfg embedded.KafkaConfig) *embedded.Kafka {
	t.Helper()
	if cfg.Addr == "" {
		cfg.Addr = "127.0.0.1:0"
	}
	k, err := embedded.StartKafka(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	return k
}

func client(t *testing.T, addr string, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	c, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(addr)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// fill makes topic t with n records and commits offset n-1 for group g.
func fill(t *testing.T, addr string, n int) {
	t.Helper()
	c := client(t, addr)
	adm := kadm.NewClient(c)
	if _, err := adm.CreateTopic(t.Context(), 1, 1, nil, "t"); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		r := &kgo.Record{Topic: "t", Key: []byte("k"), Value: []byte(strconv.Itoa(i))}
		if err := c.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	var offsets kadm.Offsets
	offsets.AddOffset("t", 0, int64(n-1), -1)
	if err := adm.CommitAllOffsets(t.Context(), "g", offsets); err != nil {
		t.Fatal(err)
	}
}

// wantKept reads what fill left: all records from the start, and the last from the group's offset.
func wantKept(t *testing.T, addr string, n int) {
	t.Helper()
	all := client(t, addr, kgo.ConsumeTopics("t"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	got := 0
	for got < n {
		fs := all.PollFetches(t.Context())
		if err := fs.Err(); err != nil {
			t.Fatal(err)
		}
		fs.EachRecord(func(r *kgo.Record) {
			if string(r.Value) != strconv.Itoa(got) {
				t.Fatalf("record %d is %q", got, r.Value)
			}
			got++
		})
	}
	last := client(t, addr, kgo.ConsumeTopics("t"), kgo.ConsumerGroup("g"))
	if rs := last.PollFetches(t.Context()).Records(); len(rs) != 1 || rs[0].Offset != int64(n-1) {
		t.Fatalf("the group read %d records, want only the last", len(rs))
	}
}

func TestKafkaKeepsItsStateThroughAClose(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	k := startKafka(t, embedded.KafkaConfig{DataDir: dir})
	fill(t, k.Addr(), 20)
	k.Close()
	wantKept(t, startKafka(t, embedded.KafkaConfig{DataDir: dir}).Addr(), 20)
}

func TestKafkaKeepsWhatItAcknowledgedThroughASIGKILL(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	said, kill := startVictim(t, victim{KafkaDir: dir})
	fill(t, said[0], 20)
	kill()
	wantKept(t, startKafka(t, embedded.KafkaConfig{DataDir: dir}).Addr(), 20)
}

func TestKafkaSaysWhatToDoAboutABusyPort(t *testing.T) {
	t.Parallel()
	k := startKafka(t, embedded.KafkaConfig{})
	_, err := embedded.StartKafka(t.Context(), embedded.KafkaConfig{Addr: k.Addr()})
	wantError(t, err, k.Addr()+" is in use", "choose another")
}

func TestKafkaRefusesAFolderThatABrokerUses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	startKafka(t, embedded.KafkaConfig{DataDir: dir})
	_, err := embedded.StartKafka(t.Context(), embedded.KafkaConfig{Addr: "127.0.0.1:0", DataDir: dir})
	wantError(t, err, dir, "in use by process "+strconv.Itoa(os.Getpid()))
}

func TestKafkaNeverCreatesATopicByItself(t *testing.T) {
	t.Parallel()
	k := startKafka(t, embedded.KafkaConfig{})
	c := client(t, k.Addr(), kgo.AllowAutoTopicCreation(), kgo.UnknownTopicRetries(1))
	err := c.ProduceSync(t.Context(), &kgo.Record{Topic: "mistyped", Value: []byte("x")}).FirstErr()
	wantError(t, err, "UNKNOWN_TOPIC_OR_PARTITION")
}

// librdkafka is the other client family that people point at a broker.
func TestKafkaServesLibrdkafka(t *testing.T) {
	t.Parallel()
	kcat, err := exec.LookPath("kcat")
	if err != nil {
		t.Skip("kcat is not installed")
	}
	k := startKafka(t, embedded.KafkaConfig{})
	fill(t, k.Addr(), 1)
	produce := exec.CommandContext(t.Context(), kcat, "-b", k.Addr(), "-P", "-t", "t", "-K:", "-z", "lz4", "-X", "enable.idempotence=true")
	produce.Stdin = strings.NewReader("mona:hello\n")
	if out, err := produce.CombinedOutput(); err != nil {
		t.Fatalf("kcat -P: %v\n%s", err, out)
	}
	for name, args := range map[string][]string{
		"a partition": {"-C", "-t", "t", "-o", "beginning", "-e"},
		"a group":     {"-G", "kcat", "-X", "auto.offset.reset=earliest", "-c", "2", "t"},
	} {
		args = append([]string{"-b", k.Addr(), "-q", "-f", "%k=%s\n"}, args...)
		out, err := exec.CommandContext(t.Context(), kcat, args...).Output()
		if err != nil || string(out) != "k=0\nmona=hello\n" {
			t.Errorf("kcat reads %q from %s (%v)", out, name, err)
		}
	}
}

func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", parts)
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("error %q does not say %q", err, p)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("error has several lines: %q", err)
	}
}

func startPostgres(t *testing.T, cfg embedded.PostgresConfig) *embedded.Postgres {
	t.Helper()
	p, err := embedded.StartPostgres(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Stop(context.Background()) })
	return p
}

func query(t *testing.T, url, sql string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	rows, err := conn.Query(t.Context(), sql)
	if err != nil {
		t.Fatal(err)
	}
	got, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(got, " ")
}

func gone(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err == nil {
		return strings.Contains(string(b), ") Z ")
	}
	return syscall.Kill(pid, 0) != nil
}

func TestPostgresKeepsItsRows(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(testDir(t), "pg")
	p := startPostgres(t, embedded.PostgresConfig{DataDir: dir})
	query(t, p.URL(), "create table kept as select 'stopped' as how")
	first := p.PID()
	if err := p.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !gone(first) {
		t.Error("the server is still there after Stop")
	}

	began := time.Now()
	p = startPostgres(t, embedded.PostgresConfig{DataDir: dir})
	t.Logf("second start took %v", time.Since(began).Round(time.Millisecond))
	query(t, p.URL(), "insert into kept values ('killed')")
	if err := p.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	p = startPostgres(t, embedded.PostgresConfig{DataDir: dir, Port: p.Port()})
	if got := query(t, p.URL(), "select how from kept order by how"); got != "killed stopped" {
		t.Errorf("kept %q", got)
	}
}

func TestPostgresStopsWhenItsParentIsKilled(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(testDir(t), "pg")
	said, kill := startVictim(t, victim{PostgresDir: dir})
	pid, err := strconv.Atoi(said[0])
	if err != nil {
		t.Fatal(err)
	}
	query(t, said[1], "create table kept as select 'yes' as kept")
	kill()
	eventually(t, "the server is gone", func() bool { return gone(pid) })
	// Its host stopped it and left; the next start finds nothing in the way.
	var p *embedded.Postgres
	eventually(t, "the folder can be used again", func() bool {
		p, err = embedded.StartPostgres(t.Context(), embedded.PostgresConfig{DataDir: dir})
		return err == nil
	})
	t.Cleanup(func() { _ = p.Stop(context.Background()) })
	if got := query(t, p.URL(), "select kept from kept"); got != "yes" {
		t.Errorf("kept %q", got)
	}
}

// The host itself may be killed, as by the kernel short of memory: its server lives on, nobody's.
func TestPostgresEndsTheServerOfAKilledHost(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(testDir(t), "pg")
	p := startPostgres(t, embedded.PostgresConfig{DataDir: dir})
	lock, err := os.ReadFile(filepath.Join(dir, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	host, err := strconv.Atoi(strings.TrimSpace(string(lock)))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(host, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-p.Exited()
	if gone(p.PID()) {
		t.Fatal("the server went with its host; this test shows nothing")
	}
	again := startPostgres(t, embedded.PostgresConfig{DataDir: dir, Port: p.Port()})
	if again.PID() == p.PID() || !gone(p.PID()) {
		t.Error("the left-over server is still there")
	}
}

// A machine that went down leaves a pid file, and by now the id may be another process's.
func TestPostgresIgnoresAStalePIDFile(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(testDir(t), "pg")
	p := startPostgres(t, embedded.PostgresConfig{DataDir: dir})
	pidFile := filepath.Join(dir, "data", "postmaster.pid")
	b, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "\n")
	if err := os.WriteFile(pidFile, []byte(strconv.Itoa(os.Getpid())+"\n"+rest), 0o644); err != nil {
		t.Fatal(err)
	}
	startPostgres(t, embedded.PostgresConfig{DataDir: dir})
}

func TestPostgresSaysWhatToDo(t *testing.T) {
	t.Parallel()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	port := l.Addr().(*net.TCPAddr).Port
	_, err = embedded.StartPostgres(t.Context(), embedded.PostgresConfig{Port: port})
	wantError(t, err, fmt.Sprintf("port %d on 127.0.0.1 is in use", port), "choose another port")

	dir := filepath.Join(testDir(t), "pg")
	startPostgres(t, embedded.PostgresConfig{DataDir: dir})
	_, err = embedded.StartPostgres(t.Context(), embedded.PostgresConfig{DataDir: dir})
	wantError(t, err, dir+" is in use by process", "choose another folder")
}

// A checkout beneath /root is where root's `whisper dev` often starts, and nobody else can enter it.
func TestPostgresRunsForRootFromAClosedFolder(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("not root")
	}
	closed := testDir(t)
	if err := os.Chmod(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	cfg := embedded.PostgresConfig{
		DataDir: filepath.Join(closed, "checkout", ".whisper", "postgres"),
		Logger:  slog.New(slog.NewTextHandler(&log, nil)),
	}
	p := startPostgres(t, cfg)
	_, moved, _ := strings.Cut(strings.TrimSpace(log.String()), "state_dir=")
	if !strings.HasPrefix(moved, "/var/tmp/whisper-postgres-") {
		t.Fatalf("it did not say where it went: %s", log.String())
	}
	t.Cleanup(func() { _ = os.RemoveAll(moved) })
	query(t, p.URL(), "create table kept as select 'yes' as kept")
	if err := p.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	p = startPostgres(t, cfg)
	if got := query(t, p.URL(), "select kept from kept"); got != "yes" {
		t.Errorf("kept %q", got)
	}
	if err := p.Stop(t.Context()); err != nil { // before its folder is removed
		t.Fatal(err)
	}
}
