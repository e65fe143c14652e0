// Package migrations owns the shape of Whisper's Postgres schema: numbered files in sql/, forward only and never
// edited once landed, and views in views/, one text each, which are replaced when their revision grows. It must not
// know how the tables are filled.
package migrations

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
)

// Schema is where the tables are served.
const Schema = "whisper"

// versionTable stands inside the schema, so that it is renamed with it when a rebuild is swapped in.
const versionTable = "schema_version"

//go:embed sql/*.sql views/*.sql
var files embed.FS

// embedded are the files of this program.
func embedded() (source, error) {
	numbered, err := fs.Sub(files, "sql")
	if err != nil {
		return source{}, err
	}
	views, err := fs.Sub(files, "views")
	return source{numbered, views}, err
}

// A source is what a schema is made of: numbered migrations, each applied once, and views, each replaced when its
// revision grows.
type source struct{ numbered, views fs.FS }

// Up brings the schema `whisper` up to date. Any number of processes may call it at once: one
// migrates, the others wait for it and find nothing left to do.
func Up(ctx context.Context, url string, logger *slog.Logger) error {
	return UpSchema(ctx, url, Schema, logger)
}

// UpSchema does the same to a schema of another name, which a rebuild fills before it is swapped in.
//
// It never makes others wait for long: a statement that does not get its lock within a second gives up and is tried
// again later, since whoever asks for a table after it would wait behind it. Each try that failed is told with who
// holds the schema's tables. It ends when ctx does; what was applied by then stays.
func UpSchema(ctx context.Context, url, schema string, logger *slog.Logger) error {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	src, err := embedded()
	if err != nil {
		return err
	}
	return src.up(ctx, url, schema, logger)
}

func (src source) up(ctx context.Context, url, schema string, logger *slog.Logger) error {
	provider, db, err := src.open(url, schema)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	release, err := lock(ctx, db, schema, logger)
	if err != nil {
		return fmt.Errorf("migrate the schema %s: %w", schema, err)
	}
	patient := patience{db: db, schema: schema, log: logger}
	err = patient.do(ctx, func(ctx context.Context) error {
		results, err := provider.Up(ctx)
		if partial := (*goose.PartialError)(nil); errors.As(err, &partial) {
			results = partial.Applied
		}
		for _, r := range results {
			logger.Info("migration applied", "schema", schema, "version", r.Source.Version, "seconds", r.Duration.Seconds())
		}
		return err
	})
	if err == nil {
		err = src.replaceViews(ctx, db, patient)
	}
	if err == nil {
		err = finishIndexes(ctx, db, patient)
	}
	if err == nil && schema == Schema { // a rebuild's own schema is in the same database
		err = guard(ctx, db, logger)
	}
	if err = errors.Join(err, release()); err != nil {
		return fmt.Errorf("migrate the schema %s: %w", schema, withHint(err))
	}
	return nil
}

// Check is nil when the schema has every migration that this program knows. A newer schema passes:
// while a new version is rolled out the old one goes on running, so migrations only ever add.
func Check(ctx context.Context, url string) error {
	src, err := embedded()
	if err != nil {
		return err
	}
	provider, db, err := src.open(url, Schema)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	sources := provider.ListSources()
	want := sources[len(sources)-1].Version
	have, err := version(ctx, db)
	switch {
	case err != nil:
		return fmt.Errorf("check the schema %s: %w", Schema, err)
	case have == 0:
		return &OutdatedError{Want: want, text: "the schema whisper does not exist in this database: run `whisper migrate`"}
	case have < want:
		return &OutdatedError{Have: have, Want: want, text: fmt.Sprintf("the schema whisper is at version %d, this program needs %d: run `whisper migrate`", have, want)}
	}
	return nil
}

// OutdatedError is what [Check] says of a schema that lacks migrations; Have is 0 where there is none.
type OutdatedError struct {
	Have, Want int64
	text       string
}

func (e *OutdatedError) Error() string { return e.text }

// version reads without goose, whose own question would create the version table.
func version(ctx context.Context, db *sql.DB) (int64, error) {
	var have sql.NullInt64
	err := db.QueryRowContext(ctx, "SELECT max(version_id) FROM "+versionTable+" WHERE is_applied").Scan(&have)
	var pg *pgconn.PgError
	if errors.As(err, &pg) && (pg.Code == "42P01" || pg.Code == "3F000") { // no such table, no such schema
		return 0, nil
	}
	return have.Int64, err
}

func (src source) open(url, schema string) (*goose.Provider, *sql.DB, error) {
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, nil, fmt.Errorf("postgres address: %w", err)
	}
	cfg.RuntimeParams["search_path"] = pgx.Identifier{schema}.Sanitize()
	cfg.RuntimeParams["application_name"] = "whisper migrate"
	cfg.RuntimeParams["lock_timeout"] = lockTimeout
	db := stdlib.OpenDB(*cfg)
	provider, err := goose.NewProvider(
		goose.DialectPostgres, db, src.numbered,
		goose.WithTableName(versionTable),
		goose.WithDisableGlobalRegistry(true),
	)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("read the migrations: %w", err), db.Close())
	}
	return provider, db, nil
}

// lockKey is arbitrary; it must not be used for another purpose in the same database.
const lockKey int64 = 0x776869737065726d // "whisperm"

// lock holds a session's advisory lock until release, and makes the schema under it: two processes
// that create one schema at once would fail on its unique name. goose's own lockers come too late for
// that (it makes its table before it locks) and ask every few seconds; this one waits in Postgres and
// goes on at once. The lock ends with its session, so a killed process leaves none.
func lock(ctx context.Context, db *sql.DB, schema string, logger *slog.Logger) (release func() error, err error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	var encoding string
	if err := conn.QueryRowContext(ctx, "SHOW server_encoding").Scan(&encoding); err != nil {
		return nil, errors.Join(fmt.Errorf("connect: %w", err), conn.Close())
	}
	if encoding != "UTF8" {
		return nil, errors.Join(fmt.Errorf("the database's encoding is %s, which can't keep every text: create it with ENCODING 'UTF8'",
			encoding), conn.Close())
	}
	// Waiting for another migration stops nobody else, so this connection waits as long as it takes.
	if _, err := conn.ExecContext(ctx, "SET lock_timeout = 0"); err != nil {
		return nil, errors.Join(fmt.Errorf("connect: %w", err), conn.Close())
	}
	var free bool
	if err := conn.QueryRowContext(ctx, "SELECT pg_try_advisory_lock($1)", lockKey).Scan(&free); err != nil {
		return nil, errors.Join(fmt.Errorf("take the lock: %w", err), conn.Close())
	}
	if !free {
		logger.Info("waiting for another process that migrates", "schema", schema)
		if _, err := conn.ExecContext(ctx, "SELECT pg_advisory_lock($1)", lockKey); err != nil {
			return nil, errors.Join(fmt.Errorf("wait for another process that migrates: %w", err), conn.Close())
		}
	}
	release = func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		_, err := conn.ExecContext(ctx, "SELECT pg_advisory_unlock($1)", lockKey)
		return errors.Join(err, conn.Close())
	}
	if _, err := conn.ExecContext(ctx, "CREATE SCHEMA IF NOT EXISTS "+pgx.Identifier{schema}.Sanitize()); err != nil {
		return nil, errors.Join(fmt.Errorf("create the schema: %w", err), release())
	}
	return release, nil
}

// withHint adds what Postgres advises, which its error leaves out.
func withHint(err error) error {
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Hint != "" {
		return fmt.Errorf("%w (%s)", err, pg.Hint)
	}
	return err
}
