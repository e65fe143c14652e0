package migrations

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"
)

// Tests of how a schema is changed while others use it, with files of their own. ServerURL is set by TestMain.
var ServerURL func() string

func emptyDatabase(t *testing.T, name string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), ServerURL())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	if _, err := conn.Exec(t.Context(), "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(ServerURL())
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/" + name
	return u.String()
}

func session(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func must(t *testing.T, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func file(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }

// viewsTable is what the views are kept in; migration 7 makes it.
const viewsTable = "CREATE TABLE schema_views (name text PRIMARY KEY, revision integer NOT NULL, applied_at timestamptz NOT NULL);\n"

func up(statements string) *fstest.MapFile { return file("-- +goose Up\n" + statements) }

// said collects log lines.
type said struct {
	mu   sync.Mutex
	text strings.Builder
}

func (s *said) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(b)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func (s *said) await(t *testing.T, what string) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(3 * time.Minute); !strings.Contains(s.String(), what); {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("it never says %q: %s", what, s)
		}
	}
}

// One analyst's open transaction holds up a migration, not everybody who reads after it.
func TestAMigrationThatWaitsLetsOthersPass(t *testing.T) {
	t.Parallel()
	for what, change := range map[string]source{
		"a table": {
			fstest.MapFS{"00001_a.sql": up(viewsTable + "CREATE TABLE a (n int);"), "00002_b.sql": up("ALTER TABLE a ADD COLUMN m int;")},
			fstest.MapFS{"10_v.sql": file("-- revision 1\nCREATE OR REPLACE VIEW v AS SELECT n FROM a;")},
		},
		"a view": {
			fstest.MapFS{"00001_a.sql": up(viewsTable + "CREATE TABLE a (n int);")},
			fstest.MapFS{"10_v.sql": file("-- revision 2\nCREATE OR REPLACE VIEW v AS SELECT n, 2 AS two FROM a;")},
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			db := emptyDatabase(t, "waits_for_"+strings.Fields(what)[1])
			before := source{
				fstest.MapFS{"00001_a.sql": change.numbered.(fstest.MapFS)["00001_a.sql"]},
				fstest.MapFS{"10_v.sql": file("-- revision 1\nCREATE OR REPLACE VIEW v AS SELECT n FROM a;")},
			}
			if err := before.up(t.Context(), db, "s", slog.New(slog.DiscardHandler)); err != nil {
				t.Fatal(err)
			}
			analyst, reader := session(t, db), session(t, db)
			must(t, analyst, "BEGIN")
			must(t, analyst, "SELECT * FROM s.v")

			var log said
			done := make(chan error, 1)
			go func() { done <- change.up(t.Context(), db, "s", slog.New(slog.NewTextHandler(&log, nil))) }()
			log.await(t, "trying again")
			// The bound is for what hangs: without a lock timeout this one waits until the analyst has ended.
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			if _, err := reader.Exec(ctx, "SELECT * FROM s.v"); err != nil {
				t.Fatalf("who reads while the migration waits: %v", err)
			}
			if pid := fmt.Sprintf("pid %d ", analyst.PgConn().PID()); !strings.Contains(log.String(), pid) {
				t.Errorf("it does not name %s: %s", pid, log.String())
			}
			select {
			case err := <-done:
				t.Fatalf("it is done though the analyst still reads: %v", err)
			default:
			}
			must(t, analyst, "COMMIT")
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestAViewIsReplacedOnceARevisionAndKeepsWhatStandsOnIt(t *testing.T) {
	t.Parallel()
	db := emptyDatabase(t, "replaced_views")
	numbered := fstest.MapFS{"00001_a.sql": up(viewsTable)}
	apply := func(text string) {
		t.Helper()
		if err := (source{numbered, fstest.MapFS{"10_v.sql": file(text)}}).up(t.Context(), db, "s", slog.New(slog.DiscardHandler)); err != nil {
			t.Fatal(err)
		}
	}
	conn := session(t, db)
	want := func(sql, want string) {
		t.Helper()
		var got string
		if err := conn.QueryRow(t.Context(), sql).Scan(&got); err != nil || got != want {
			t.Errorf("%s gives %q, %v; want %q", sql, got, err, want)
		}
	}
	apply("-- revision 1\nCREATE OR REPLACE VIEW v AS SELECT 'one' AS a;")
	must(t, conn, "CREATE VIEW s.others AS SELECT a FROM s.v")
	apply("-- revision 1\nCREATE OR REPLACE VIEW v AS SELECT 'not applied' AS a;")
	want("SELECT a FROM s.others", "one")
	apply("-- revision 3\nCREATE OR REPLACE VIEW v AS SELECT 'three' AS a, 'more' AS b;")
	want("SELECT a FROM s.others", "three")
	want("SELECT b FROM s.v", "more")
	apply("-- revision 2\nCREATE OR REPLACE VIEW v AS SELECT 'an older program' AS a;")
	want("SELECT a FROM s.others", "three")
	err := source{numbered, fstest.MapFS{"10_v.sql": file("SELECT 1")}}.up(t.Context(), db, "s", slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "revision") {
		t.Errorf("a view without a revision: %v", err)
	}
}

// An index on a partitioned table is built on each day beside its writers.
func TestIndexesOfDaysAreBuiltBesideTheirWriters(t *testing.T) {
	t.Parallel()
	db := emptyDatabase(t, "built_indexes")
	first := fstest.MapFS{"00001_a.sql": up(viewsTable + `CREATE TABLE a (day int, n int) PARTITION BY RANGE (day);
		CREATE TABLE a_1 PARTITION OF a FOR VALUES FROM (1) TO (2); CREATE TABLE a_2 PARTITION OF a FOR VALUES FROM (2) TO (3);`)}
	if err := (source{first, fstest.MapFS{}}).up(t.Context(), db, "s", slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	conn := session(t, db)
	// As a build that was killed leaves one behind.
	must(t, conn, "CREATE INDEX a_1_few ON s.a_1 (n) WHERE n > 5; UPDATE pg_index SET indisvalid = false WHERE indexrelid = 's.a_1_few'::regclass")

	writer := session(t, db)
	must(t, writer, "BEGIN")
	must(t, writer, "INSERT INTO s.a VALUES (1, 9), (2, 9)")
	second := fstest.MapFS{"00001_a.sql": first["00001_a.sql"], "00002_b.sql": up("CREATE INDEX few ON ONLY a (n) WHERE n > 5;")}
	var log said
	done := make(chan error, 1)
	go func() {
		done <- (source{second, fstest.MapFS{}}).up(t.Context(), db, "s", slog.New(slog.NewTextHandler(&log, nil)))
	}()
	log.await(t, "trying again") // even ON ONLY has to have the parent for a moment
	must(t, writer, "COMMIT")
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	// A day that comes later has it from the start.
	must(t, conn, "CREATE TABLE s.a_3 PARTITION OF s.a FOR VALUES FROM (3) TO (4)")
	rows, err := conn.Query(t.Context(), `
		SELECT format('%s %s %s', c.relname, x.indisvalid, pg_get_expr(x.indpred, x.indrelid)) FROM pg_index x JOIN pg_class c ON c.oid = x.indexrelid
		WHERE x.indrelid::regclass::text LIKE 's.a%' ORDER BY 1`)
	if err != nil {
		t.Fatal(err)
	}
	got, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	want := "a_1_few t (n > 5), a_2_few t (n > 5), a_3_n_idx t (n > 5), few t (n > 5)"
	if strings.Join(got, ", ") != want {
		t.Errorf("indexes are %s, want %s", strings.Join(got, ", "), want)
	}
}

// What is interrupted says what it waited for.
func TestAMigrationThatIsStoppedNamesWhoHeldIt(t *testing.T) {
	t.Parallel()
	db := emptyDatabase(t, "stopped_migration")
	first := fstest.MapFS{"00001_a.sql": up(viewsTable + "CREATE TABLE a (n int);")}
	if err := (source{first, fstest.MapFS{}}).up(t.Context(), db, "s", slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	analyst := session(t, db)
	must(t, analyst, "BEGIN")
	must(t, analyst, "SELECT * FROM s.a")
	ctx, stop := context.WithCancel(t.Context())
	var log said
	done := make(chan error, 1)
	second := fstest.MapFS{"00001_a.sql": first["00001_a.sql"], "00002_b.sql": up("ALTER TABLE a ADD COLUMN m int;")}
	go func() {
		done <- (source{second, fstest.MapFS{}}).up(ctx, db, "s", slog.New(slog.NewTextHandler(&log, nil)))
	}()
	log.await(t, "trying again")
	stop()
	if err := <-done; err == nil {
		t.Fatal("no error")
	}
	must(t, analyst, "COMMIT")
	if err := (source{second, fstest.MapFS{}}).up(t.Context(), db, "s", slog.New(slog.DiscardHandler)); err != nil {
		t.Errorf("after it was stopped: %v", err)
	}
}
