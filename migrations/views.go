package migrations

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"strconv"
)

// Views stand in files of their own, one each, which are edited in place: each says its revision in the first line,
// and is applied by Up where the schema has a lower one. CREATE OR REPLACE keeps what others built on a view, and
// their grants; so columns are only ever added, at the end. A schema that a newer program has replaced the views of
// keeps them when an older program migrates.

var viewRevision = regexp.MustCompile(`^-- revision (\d+)\n`)

type view struct {
	name, sql string
	revision  int
}

// readViews are in the order of their names' numbers: a view may stand on one before it.
func (src source) readViews() ([]view, error) {
	names, err := fs.Glob(src.views, "*.sql")
	if err != nil {
		return nil, err
	}
	views := make([]view, 0, len(names))
	for _, name := range names {
		text, err := fs.ReadFile(src.views, name)
		if err != nil {
			return nil, err
		}
		found := viewRevision.FindSubmatch(text)
		if found == nil {
			return nil, fmt.Errorf("views/%s does not begin with its revision", name)
		}
		revision, err := strconv.Atoi(string(found[1]))
		if err != nil {
			return nil, fmt.Errorf("views/%s: %w", name, err)
		}
		views = append(views, view{name, string(text), revision})
	}
	return views, nil
}

func (src source) replaceViews(ctx context.Context, db *sql.DB, patient patience) error {
	views, err := src.readViews()
	if err != nil {
		return err
	}
	for _, v := range views {
		err := patient.do(ctx, func(ctx context.Context) error { return v.replace(ctx, db, patient) })
		if err != nil {
			return fmt.Errorf("replace the view of %s: %w", v.name, err)
		}
	}
	return nil
}

func (v view) replace(ctx context.Context, db *sql.DB, patient patience) (err error) {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, tx.Rollback())
		}
	}()
	var have int
	if err := tx.QueryRowContext(ctx, "SELECT coalesce(max(revision), 0) FROM schema_views WHERE name = $1", v.name).Scan(&have); err != nil {
		return err
	}
	if have >= v.revision {
		return tx.Commit()
	}
	if _, err := tx.ExecContext(ctx, v.sql); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `
		INSERT INTO schema_views AS s (name, revision, applied_at) VALUES ($1, $2, now())
		ON CONFLICT (name) DO UPDATE SET revision = EXCLUDED.revision, applied_at = EXCLUDED.applied_at`, v.name, v.revision); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	patient.log.Info("view replaced", "schema", patient.schema, "view", v.name, "revision", v.revision)
	return nil
}
