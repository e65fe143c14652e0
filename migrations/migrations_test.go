package migrations_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/klivvr/whisper/embedded"
	"github.com/klivvr/whisper/migrations"
)

var (
	server    *embedded.Postgres
	databases atomic.Int64
)

func TestMain(m *testing.M) {
	embedded.RunIfPostgresHost()
	var err error
	if server, err = embedded.StartPostgres(context.Background(), embedded.PostgresConfig{}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	migrations.ServerURL = server.URL
	code := m.Run()
	if err := server.Stop(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

// database makes an empty database, dropped with the server.
func database(t *testing.T) string {
	t.Helper()
	name := fmt.Sprintf("migrations_%d", databases.Add(1))
	exec(t, server.URL(), "CREATE DATABASE "+name)
	u, err := url.Parse(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/" + name
	return u.String()
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func exec(t *testing.T, url, sql string) {
	t.Helper()
	if _, err := connect(t, url).Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func strs(t *testing.T, url, sql string) []string {
	t.Helper()
	rows, err := connect(t, url).Query(t.Context(), sql)
	if err != nil {
		t.Fatal(err)
	}
	got, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return got
}

func TestManyProcessesMayStartAtOnce(t *testing.T) {
	t.Parallel()
	dbs := []string{database(t), database(t), database(t)}
	var wg sync.WaitGroup
	for range 4 {
		for _, db := range dbs {
			wg.Go(func() {
				if err := migrations.Up(t.Context(), db, nil); err != nil {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	for _, db := range dbs {
		if err := migrations.Check(t.Context(), db); err != nil {
			t.Error(err)
		}
		if got := strs(t, db, "SELECT version_id::text FROM whisper.schema_version GROUP BY 1 HAVING count(*) > 1"); len(got) > 0 {
			t.Errorf("versions %v were applied more than once", got)
		}
	}
}

func TestCheckSaysWhatToRun(t *testing.T) {
	t.Parallel()
	db := database(t)
	var outdated *migrations.OutdatedError
	err := migrations.Check(t.Context(), db)
	if !errors.As(err, &outdated) || outdated.Have != 0 || !strings.Contains(err.Error(), "run `whisper migrate`") {
		t.Errorf("without a schema: %v", err)
	}
	if err := migrations.Up(t.Context(), db, nil); err != nil {
		t.Fatal(err)
	}
	needs := strs(t, db, "SELECT max(version_id)::text FROM whisper.schema_version")[0]
	exec(t, db, "DELETE FROM whisper.schema_version WHERE version_id > 1")
	err = migrations.Check(t.Context(), db)
	if !errors.As(err, &outdated) || outdated.Have != 1 || !strings.Contains(err.Error(), "is at version 1, this program needs "+needs+": run `whisper migrate`") {
		t.Errorf("with an old schema: %v", err)
	}
	exec(t, db, "INSERT INTO whisper.schema_version (version_id, is_applied) VALUES (999, true)")
	if err := migrations.Check(t.Context(), db); err != nil {
		t.Errorf("with a newer schema: %v", err)
	}
}

func TestEverythingHasAComment(t *testing.T) {
	t.Parallel()
	db := database(t)
	if err := migrations.Up(t.Context(), db, nil); err != nil {
		t.Fatal(err)
	}
	missing := strs(t, db, `
		SELECT c.relname || coalesce('.' || a.attname, '')
		FROM pg_class c
		LEFT JOIN LATERAL (
			SELECT attname, attnum FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped
			UNION ALL SELECT NULL, 0
		) a ON true
		WHERE c.relnamespace = 'whisper'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm')
		AND coalesce(btrim(pg_catalog.col_description(c.oid, a.attnum::int)), btrim(CASE WHEN a.attnum = 0 THEN obj_description(c.oid, 'pg_class') END), '') = ''
		ORDER BY 1`)
	if len(missing) > 0 {
		t.Errorf("without a comment: %v", missing)
	}
	tables := strs(t, db, "SELECT relname FROM pg_class WHERE relnamespace = 'whisper'::regnamespace AND relkind IN ('r','p','v') ORDER BY 1")
	for _, want := range []string{"notifications", "deliveries", "attempts", "timeline", "broadcasts", "delivery_stats", "conservation"} {
		if !strings.Contains(" "+strings.Join(tables, " ")+" ", " "+want+" ") {
			t.Errorf("no table or view %s in %v", want, tables)
		}
	}
}

func TestAnalystsReadAndNothingElse(t *testing.T) {
	t.Parallel()
	db := database(t)
	if err := migrations.Up(t.Context(), db, nil); err != nil {
		t.Fatal(err)
	}
	// What a later migration or a daily partition adds is readable too.
	exec(t, db, "CREATE TABLE whisper.later (a int)")
	conn := connect(t, db)
	if _, err := conn.Exec(t.Context(), "SET ROLE whisper_analyst"); err != nil {
		t.Fatal(err)
	}
	closed := []string{"erasures", "erasure_keys", "early_facts", "checkpoints"} // who was erased, and what waits under a user's name
	for _, rel := range strs(t, db, "SELECT relname FROM pg_class WHERE relnamespace = 'whisper'::regnamespace AND relkind IN ('r','p','v')") {
		_, err := conn.Exec(t.Context(), "SELECT * FROM whisper."+rel)
		if slices.Contains(closed, rel) {
			if err == nil || !strings.Contains(err.Error(), "42501") {
				t.Errorf("read %s: %v, want permission denied", rel, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("read %s: %v", rel, err)
		}
	}
	for _, sql := range []string{
		"DELETE FROM whisper.deliveries",
		"UPDATE whisper.checkpoints SET next_offset = 0",
		"INSERT INTO whisper.later VALUES (1)",
		"CREATE TABLE whisper.mine (a int)",
	} {
		if _, err := conn.Exec(t.Context(), sql); err == nil || !strings.Contains(err.Error(), "42501") {
			t.Errorf("%s: %v, want permission denied", sql, err)
		}
	}
	if got := strs(t, db, "SELECT rolcanlogin::text FROM pg_roles WHERE rolname = 'whisper_analyst'"); got[0] != "false" {
		t.Error("the role may log in")
	}
}

func TestQuantilesComeFromBuckets(t *testing.T) {
	t.Parallel()
	db := database(t)
	if err := migrations.Up(t.Context(), db, nil); err != nil {
		t.Fatal(err)
	}
	for sql, want := range map[string]string{
		"SELECT coalesce(whisper.latency_quantile(NULL, 0.5)::text, 'null')":    "null",
		"SELECT coalesce(whisper.latency_quantile('{0,0}', 0.5)::text, 'null')": "null",
		"SELECT whisper.latency_quantile('{0,0,4}', 1)::numeric(9,3)::text":     "2.250",
		"SELECT whisper.latency_quantile('{0,0,4}', 0)::numeric(9,3)::text":     "1.500",
		"SELECT count(*) || ' ' || count(*) FILTER (WHERE q.p50 IS NOT DISTINCT FROM whisper.latency_quantile(b, 0.5) AND q.p95 IS NOT DISTINCT FROM whisper.latency_quantile(b, 0.95) AND q.p99 IS NOT DISTINCT FROM whisper.latency_quantile(b, 0.99)) FROM unnest(ARRAY['{0,0,4}', '{98,0,0,1,1}', '{0}', '{7}', '{1,2,3,4,5,6,7,8,9,0,0,0,0,0,0,0,0,0,0,3}']) AS t, LATERAL (SELECT t::bigint[] AS b) AS h, LATERAL whisper.bucket_quantiles(whisper.pack_buckets(b)) AS q": "5 5",
		"SELECT whisper.add_packed('{65,-62}', '{-64,130}')::text":                            "{-64,65,66}",
		"SELECT coalesce(whisper.add_packed('{65}', '{-63}')::text, 'null')":                  "null",
		"SELECT whisper.latency_quantile('{98,0,0,1,1}', 0.99)::numeric(9,3)::text":           "3.375",
		"SELECT whisper.add_buckets('{1,2}', '{1,1,5}')::text":                                "{2,3,5}",
		"SELECT whisper.sum_buckets(b)::text FROM (VALUES ('{1}'::bigint[]), (NULL)) AS v(b)": "{1}",
	} {
		if got := strs(t, db, sql); got[0] != want {
			t.Errorf("%s = %s, want %s", sql, got[0], want)
		}
	}
}
