package migrations_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/klivvr/whisper/embedded"
	"github.com/klivvr/whisper/migrations"
)

// login makes a user and is how it connects to a database.
func login(t *testing.T, db, user, of string) string {
	t.Helper()
	exec(t, db, fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD 'x' NOSUPERUSER; GRANT %s TO %s", user, of, user))
	u, err := url.Parse(db)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(user, "x")
	return u.String()
}

func TestAnalystsCantHurtOthers(t *testing.T) {
	t.Parallel()
	db := database(t)
	var log bytes.Buffer
	if err := migrations.Up(t.Context(), db, nil); err != nil {
		t.Fatal(err)
	}
	own := login(t, db, "guard_own", "whisper_analyst")
	exec(t, db, "ALTER ROLE guard_own SET statement_timeout = '7s'")
	analyst := login(t, db, "guard_analyst", "whisper_analyst")
	writer := login(t, db, "guard_writer", "pg_read_all_data")
	exec(t, db, "GRANT INSERT ON whisper.deliveries TO guard_writer")
	// As at each update: logins that came since the last get their bounds, writers keep what they need.
	exec(t, db, "GRANT EXECUTE ON FUNCTION pg_advisory_lock(bigint) TO PUBLIC; GRANT CREATE ON SCHEMA public TO PUBLIC")
	exec(t, db, "ALTER ROLE guard_own SET my.statement_timeout = '1'") // is none
	if err := migrations.Up(t.Context(), db, slog.New(slog.NewTextHandler(&log, nil))); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(log.String(), "can do more than read") {
		t.Errorf("it says %s", &log)
	}
	conn := connect(t, analyst)
	for _, sql := range []string{
		"CREATE TEMP TABLE mine (a int)",
		"CREATE TABLE pg_temp.mine (a int)",
		"SELECT * INTO TEMP mine FROM whisper.deliveries",
		"SELECT lo_create(0)",
		"SELECT lo_creat(-1)",
		"SELECT lo_from_bytea(0, 'x')",
		"SELECT pg_advisory_lock(8604230950266041965)",
		"SELECT pg_try_advisory_lock(8604230950266041965)",
		"SELECT pg_advisory_xact_lock(1, 2)",
		"SELECT pg_advisory_lock_shared(1, 2)",
		"SELECT pg_try_advisory_xact_lock_shared(1)",
		"SELECT pg_advisory_unlock_all()",
		"DO $$ BEGIN PERFORM pg_try_advisory_lock(1); END $$",
		"SELECT lo_put(1, 0, 'x')",
		"SELECT lo_import('/etc/passwd')",
		"SELECT pg_logical_emit_message(false, 'x', repeat('y', 1000))",
		"SELECT pg_logical_emit_message(false, 'x', 'y'::bytea)",
		"CREATE TABLE public.mine (a int)",
		"CREATE TABLE whisper.mine (a int)",
		"CREATE SCHEMA mine",
		"CREATE MATERIALIZED VIEW public.mine AS SELECT * FROM whisper.deliveries",
		"CREATE FUNCTION public.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
		"CREATE TEMP SEQUENCE mine",
		"CREATE TEMP VIEW mine AS SELECT 1",
		"SELECT * FROM whisper.notification_balances FOR UPDATE",
		"COPY whisper.deliveries TO PROGRAM 'cat'",
	} {
		_, err := conn.Exec(t.Context(), sql)
		if pg, ok := err.(*pgconn.PgError); !ok || pg.Code != "42501" { //nolint:errorlint // Exec gives it as it is
			t.Errorf("%s: %v, want permission denied", sql, err)
		}
	}
	if _, err := conn.Exec(t.Context(), "SELECT count(*) FROM whisper.notifications"); err != nil {
		t.Errorf("an analyst can't read: %v", err)
	}
	for user, want := range map[string]string{analyst: "5min", own: "7s", writer: "0"} {
		if got := strs(t, user, "SHOW statement_timeout"); got[0] != want {
			t.Errorf("the statement timeout is %s, want %s", got[0], want)
		}
	}
	for user, want := range map[string]string{analyst: "5min", own: "5min", writer: "0"} {
		if got := strs(t, user, "SHOW idle_in_transaction_session_timeout"); got[0] != want {
			t.Errorf("a transaction may stay open for %s, want %s", got[0], want)
		}
	}
	if _, err := connect(t, writer).Exec(t.Context(), "SELECT pg_advisory_lock(1)"); err != nil {
		t.Errorf("a writer can't wait for others: %v", err)
	}
}

// A user that is no superuser migrates all the same, and says what is left to do.
func TestMigrateSaysWhenItMayNotBoundAnalysts(t *testing.T) {
	t.Parallel()
	db := database(t)
	owner := login(t, db, "guard_owner", "pg_read_all_data")
	exec(t, db, "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I OWNER TO guard_owner', current_database()); END $$")
	exec(t, db, "DO $$ BEGIN CREATE ROLE whisper_analyst NOLOGIN; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$")
	var log bytes.Buffer
	for range 2 {
		log.Reset()
		if err := migrations.Up(t.Context(), owner, slog.New(slog.NewTextHandler(&log, nil))); err != nil {
			t.Fatal(err)
		}
		if got := log.String(); !strings.Contains(got, "guard.sql") || !strings.Contains(got, "large objects") ||
			!strings.Contains(got, "locks of migrations") || strings.Contains(got, "temporary tables") {
			t.Errorf("it says %s", got)
		}
	}
	guarded := strs(t, db, "SELECT has_database_privilege('whisper_analyst', current_database(), 'TEMP')::text")
	if guarded[0] != "false" {
		t.Error("the owner did not take the temporary tables away")
	}
	// What the administrator then runs leaves the owner able to migrate and to project.
	sql, err := os.ReadFile("guard.sql")
	if err != nil {
		t.Fatal(err)
	}
	exec(t, db, string(sql))
	log.Reset()
	if err := migrations.Up(t.Context(), owner, slog.New(slog.NewTextHandler(&log, nil))); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(log.String(), "guard.sql") {
		t.Errorf("it still says %s", &log)
	}
	exec(t, owner, "SELECT pg_advisory_xact_lock(1, 2)")
}

// What docker-compose.yml has its Postgres run: Whisper is no superuser there, and needs none.
func TestTheDatabaseOfContainersHasNoSuperusers(t *testing.T) {
	t.Parallel()
	server, err := embedded.StartPostgres(t.Context(), embedded.PostgresConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Stop(context.Background()) })
	admin, err := url.Parse(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	exec(t, admin.String(), "CREATE DATABASE contained")
	admin.Path = "/contained"
	as := func(user string) string {
		u := *admin
		u.User = url.UserPassword(user+"_c", user)
		return u.String()
	}
	for _, path := range []string{"../deploy/postgres/init.sql", "guard.sql"} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		// The server of this test has a superuser of the name whisper.
		sql := strings.NewReplacer("ROLE whisper LOGIN", "ROLE whisper_c LOGIN", "OWNER TO whisper'", "OWNER TO whisper_c'", "ROLE analyst ",
			"ROLE analyst_c ").Replace(string(text))
		exec(t, admin.String(), sql)
	}
	var log bytes.Buffer
	if err := migrations.Up(t.Context(), as("whisper"),
		slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))); err != nil {
		t.Fatal(err)
	}
	if log.Len() > 0 {
		t.Errorf("it warns: %s", &log)
	}
	if got := strs(t, as("whisper"), "SELECT rolsuper::text FROM pg_roles WHERE rolname = current_user"); got[0] != "false" {
		t.Error("whisper is a superuser")
	}
	if got := strs(t, as("analyst"), "SELECT count(*) || current_setting('statement_timeout') FROM whisper.notifications"); got[0] != "05min" {
		t.Errorf("the analyst reads %s", got[0])
	}
	for user, allowed := range map[string]bool{"whisper": true, "analyst": false} {
		for _, sql := range []string{"CREATE TEMP TABLE mine (a int)", "SELECT pg_advisory_xact_lock(1, 2)", "SELECT lo_create(0)"} {
			if _, err := connect(t, as(user)).Exec(t.Context(), sql); (err == nil) != allowed {
				t.Errorf("%s: %s: %v", user, sql, err)
			}
		}
	}
}
