package migrations

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// An index on a partitioned table would stop its writers until it is built on every day. So a migration makes it
// ON ONLY the parent, and finishIndexes builds it day by day beside the writers (CONCURRENTLY) and attaches it;
// days that come later have it from the start. A build that was interrupted leaves an index that counts for
// nothing: it is dropped and built again.
func finishIndexes(ctx context.Context, db *sql.DB, patient patience) error {
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	missing, err := missingIndexes(ctx, conn)
	if err != nil {
		return fmt.Errorf("look for indexes to build: %w", err)
	}
	for _, m := range missing {
		patient.log.Info("building an index", "schema", patient.schema, "index", m.index, "table", m.table)
		if err := m.build(ctx, conn, patient); err != nil {
			return fmt.Errorf("build the index %s of %s: %w", m.index, m.table, err)
		}
	}
	return nil
}

// missingIndex is one that a partition lacks of those that its table is to have.
type missingIndex struct {
	parent, table, index string
	definition           string // of the parent's
	invalid              bool   // there, but not whole
}

func missingIndexes(ctx context.Context, conn *sql.Conn) ([]missingIndex, error) {
	rows, err := conn.QueryContext(ctx, `
		SELECT pc.relname, t.relname, left(t.relname || '_' || pc.relname, 63), mine.relname IS NOT NULL,
			format('CREATE INDEX CONCURRENTLY %I ON %I.%I ', left(t.relname || '_' || pc.relname, 63), n.nspname, t.relname)
				|| substring(pg_get_indexdef(p.indexrelid) FROM 'USING .*$')
		FROM pg_index AS p
		JOIN pg_class AS pc ON pc.oid = p.indexrelid AND pc.relkind = 'I'
		JOIN pg_namespace AS n ON n.oid = pc.relnamespace AND n.nspname = current_schema()
		JOIN pg_inherits AS day ON day.inhparent = p.indrelid AND NOT day.inhdetachpending
		JOIN pg_class AS t ON t.oid = day.inhrelid
		LEFT JOIN pg_class AS mine ON mine.relnamespace = n.oid AND mine.relname = left(t.relname || '_' || pc.relname, 63)
		WHERE NOT p.indisvalid AND NOT EXISTS (
			SELECT FROM pg_inherits AS i JOIN pg_index AS own ON own.indexrelid = i.inhrelid
			WHERE i.inhparent = p.indexrelid AND own.indrelid = t.oid)
		ORDER BY pc.relname, t.relname DESC`)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	var all []missingIndex
	for rows.Next() {
		var m missingIndex
		if err := rows.Scan(&m.parent, &m.table, &m.index, &m.invalid, &m.definition); err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	return all, rows.Err()
}

func (m missingIndex) build(ctx context.Context, conn *sql.Conn, patient patience) error {
	statements := []string{m.definition, "ALTER INDEX " + quoted(m.parent) + " ATTACH PARTITION " + quoted(m.index)}
	if m.invalid {
		statements = append([]string{"DROP INDEX CONCURRENTLY " + quoted(m.index)}, statements...)
	}
	for i, statement := range statements {
		// Building waits for the transactions that are open, and nobody waits for it: as long as it takes.
		timeout := "0"
		if i == len(statements)-1 {
			timeout = lockTimeout
		}
		if _, err := conn.ExecContext(ctx, "SELECT set_config('lock_timeout', $1, false)", timeout); err != nil {
			return err
		}
		err := patient.do(ctx, func(ctx context.Context) error {
			_, err := conn.ExecContext(ctx, statement)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func quoted(name string) string { return pgx.Identifier{name}.Sanitize() }
