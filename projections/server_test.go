package projections

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/klivvr/whisper/embedded"
	"github.com/klivvr/whisper/migrations"
	"github.com/klivvr/whisper/projections/postgres"
)

// ownServer is a Postgres of the test's own, which it may hurt.
func ownServer(t *testing.T, cfg embedded.PostgresConfig) *embedded.Postgres {
	t.Helper()
	own, err := embedded.StartPostgres(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = own.Stop(context.Background()) })
	if err := migrations.Up(t.Context(), own.URL(), nil); err != nil {
		t.Fatal(err)
	}
	return own
}

// backends are the processes that serve connections of the server.
func backends(t *testing.T, own *embedded.Postgres) []int {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "ps", "-o", "pid=", "--ppid", strconv.Itoa(own.PID())).Output()
	if err != nil {
		t.Fatal(err)
	}
	pids := []int{own.PID()}
	for _, f := range strings.Fields(string(out)) {
		pid, err := strconv.Atoi(f)
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	return pids
}

// TestAPostgresThatWasStoppedCountsAsAway: its connections are open, and nothing ever comes back on them.
func TestAPostgresThatWasStoppedCountsAsAway(t *testing.T) {
	t.Parallel()
	own, l := ownServer(t, embedded.PostgresConfig{}), startLog(t)
	r := start(t, config(l, own.URL()))
	l.put(record(tell("n", "mona", now, 1).accepted()))
	caughtUp(t, l, own.URL())
	eventually(t, "it is ready", func() bool { return r.Ready() == nil })
	stopped := backends(t, own)
	resume := func() {
		for _, pid := range stopped {
			_ = syscall.Kill(pid, syscall.SIGCONT)
		}
	}
	t.Cleanup(resume)
	for _, pid := range stopped {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil && !errors.Is(err, syscall.ESRCH) { // a backend may have ended meanwhile
			t.Fatal(err)
		}
	}
	l.put(record(tell("n-2", "mona", now, 2).accepted()))
	eventually(t, "it is not ready", func() bool { return r.Ready() != nil })
	if err := r.Ready(); !strings.Contains(err.Error(), "postgres") {
		t.Errorf("not ready: %v", err)
	}
	eventually(t, "the metric says so", func() bool { return r.meters.up.Get() == 0 })
	ended := make(chan struct{})
	go func() {
		r.stop()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(5 * time.Minute): // it takes some 20 s on a machine with nothing else to do
		t.Error("it does not end while Postgres says nothing")
		resume()
		<-ended
	}
}

// TestAPoolDoesNotAskForLong whether a connection lives: closing it waits for the answer, which a Postgres that was stopped does not give.
func TestAPoolDoesNotAskForLong(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]time.Duration{
		"postgres://localhost/whisper":                      postgres.ConnectTimeout,
		"postgres://localhost/whisper?pool_ping_timeout=2s": 2 * time.Second,
	} {
		cfg, err := postgres.Config(url)
		if err != nil {
			t.Fatal(err)
		}
		if cfg.PingTimeout != want {
			t.Errorf("%s: it asks for %s, want %s", url, cfg.PingTimeout, want)
		}
	}
}

// TestNothingCommittedThoughRecordsWaitIsNotReady, and the lag is of what waits.
func TestNothingCommittedThoughRecordsWaitIsNotReady(t *testing.T) {
	t.Parallel()
	w := newWatch()
	f := &feed{src: &source{topic: "whisper.events", partition: 3}}
	w.open(f)
	w.answer()
	end := int64(0)
	compare := func() (int64, time.Duration) {
		return w.compare(func(topic string, partition int32) (int64, bool) {
			return end, topic == "whisper.events" && partition == 3
		})
	}
	if n, _ := compare(); n != 0 || w.stalled() != nil {
		t.Errorf("%d records wait: %v", n, w.stalled())
	}
	end = 7
	if n, _ := compare(); n != 7 || w.stalled() != nil {
		t.Errorf("%d records wait: %v", n, w.stalled())
	}
	w.lagSince = w.lagSince.Add(-2 * stalledAfter)
	w.feeds[f].level = w.feeds[f].level.Add(-2 * stalledAfter)
	if n, behind := compare(); n != 7 || behind < 2*stalledAfter {
		t.Errorf("%d records wait, for %s", n, behind)
	}
	if err := w.stalled(); err == nil || !strings.Contains(err.Error(), "7 records") {
		t.Errorf("stalled: %v", err)
	}
	w.commit()
	if err := w.stalled(); err != nil {
		t.Errorf("it moves: %v", err)
	}
	f.src.lastMs.Store(time.Now().UnixMilli()) // what was written last is of now
	f.src.written.Store(6)
	if n, behind := compare(); n != 1 || behind > stalledAfter {
		t.Errorf("%d records wait, for %s", n, behind)
	}
	w.answered.Store(time.Now().Add(-2 * silentAfter).UnixNano())
	if quiet, silent := w.silent(); !silent || quiet < 2*silentAfter {
		t.Errorf("silent for %s: %t", quiet, silent)
	}
	w.close(f)
	if n, _ := compare(); n != 0 {
		t.Errorf("%d records wait of partitions that are somebody else's", n)
	}
}

// TestADemotedPostgresIsLeft: sessions that were open stay read-only, new ones take writes.
func TestADemotedPostgresIsLeft(t *testing.T) {
	t.Parallel()
	own, l := ownServer(t, embedded.PostgresConfig{}), startLog(t)
	start(t, config(l, own.URL()))
	l.put(record(tell("n", "mona", now, 1).accepted()))
	caughtUp(t, l, own.URL())
	u, err := url.Parse(own.URL())
	if err != nil {
		t.Fatal(err)
	}
	// The database's own setting is taken up when a session begins; the server's changes under those that are open.
	execSQL(t, own.URL(), "ALTER DATABASE "+strings.TrimPrefix(u.Path, "/")+" SET default_transaction_read_only = off")
	execSQL(t, own.URL(), "ALTER SYSTEM SET default_transaction_read_only = on")
	execSQL(t, own.URL(), "SELECT pg_reload_conf()")
	l.put(record(tell("n-2", "mona", now, 2).accepted()))
	caughtUp(t, l, own.URL())
}

// TestADatabaseOfAnotherEncodingIsRefused: LATIN1 would keep é as two letters.
func TestADatabaseOfAnotherEncodingIsRefused(t *testing.T) {
	t.Parallel()
	name := fmt.Sprintf("latin_%d", databases.Add(1))
	execSQL(t, server.URL(), "CREATE DATABASE "+name+" ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
	u, err := url.Parse(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/" + name
	if err := migrations.Up(t.Context(), u.String(), nil); err == nil || !strings.Contains(err.Error(), "LATIN1") ||
		!strings.Contains(err.Error(), "UTF8") {
		t.Errorf("migrate: %v", err)
	}
	st, err := openStore(u.String(), migrations.Schema, 2)
	if err != nil {
		t.Fatal(err)
	}
	defer st.close()
	if _, err := st.serverTime(t.Context()); err == nil || judge(err) != stop || !strings.Contains(err.Error(), "LATIN1") {
		t.Errorf("project: %v", err)
	}
}

// A pooler stands between a client and Postgres as PgBouncer does in transaction mode: session settings either end the
// connection (08P01), or, where it was told to ignore them, get lost.
func pooler(t *testing.T, refuse bool) string {
	t.Helper()
	lis, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = lis.Close() })
	u, err := url.Parse(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	behind := u.Host
	go func() {
		for {
			conn, err := lis.Accept()
			if err != nil {
				return
			}
			go pool(conn, behind, refuse)
		}
	}()
	u.Path, u.Host = "/whisper", lis.Addr().String()
	u.RawQuery = "sslmode=disable"
	return u.String()
}

func pool(conn net.Conn, behind string, refuse bool) {
	defer func() { _ = conn.Close() }()
	client := pgproto3.NewBackend(conn, conn)
	msg, err := client.ReceiveStartupMessage()
	if err != nil {
		return
	}
	hello, ok := msg.(*pgproto3.StartupMessage)
	if !ok {
		return
	}
	for name := range hello.Parameters {
		if name == "user" || name == "database" || name == "application_name" {
			continue
		}
		if refuse {
			client.Send(&pgproto3.ErrorResponse{Severity: "FATAL", Code: "08P01", Message: "unsupported startup parameter: " + name})
			_ = client.Flush()
			return
		}
		delete(hello.Parameters, name)
	}
	server, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", behind)
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	front := pgproto3.NewFrontend(server, server)
	front.Send(hello)
	if front.Flush() != nil {
		return
	}
	go func() { _, _ = io.Copy(server, conn) }()
	_, _ = io.Copy(conn, server)
}

func TestAPoolerThatKeepsNoSessionIsRefused(t *testing.T) {
	t.Parallel()
	l := startLog(t)
	runFails(t, config(l, pooler(t, true)), "pooler", "session mode", "08P01")
	st, err := openStore(pooler(t, false), migrations.Schema, 2)
	if err != nil {
		t.Fatal(err)
	}
	defer st.close()
	if _, err := st.serverTime(t.Context()); err == nil || judge(err) != stop ||
		!strings.Contains(err.Error(), "drops the session's settings") {
		t.Errorf("settings that were dropped: %v", err)
	}
}

// TestATransactionHasItsTime: what Postgres does not answer in time is tried again, with more time.
func TestATransactionHasItsTime(t *testing.T) {
	t.Parallel()
	db := database(t)
	l := newLiveLog(t, db, 1)
	l.transaction(t)
	l.w.limits.timeout = time.Second
	// Somebody has the table, so that the first try takes longer than its time.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	holder, err := l.st.pool.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := holder.Exec(ctx, "LOCK TABLE whisper.timeline"); err != nil {
		t.Fatal(err)
	}
	written := make(chan struct{})
	go func() {
		l.transaction(t)
		close(written)
	}()
	eventually(t, "it says that it waits", func() bool { return l.w.down.Load() != nil })
	if err := *l.w.down.Load(); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("it waits because of %v", err)
	}
	if err := holder.Rollback(ctx); err != nil {
		t.Fatal(err)
	}
	<-written
	if l.w.down.Load() != nil {
		t.Error("it was written, and still counts as waiting")
	}
}
