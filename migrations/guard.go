package migrations

import (
	"context"
	"database/sql"
	_ "embed" // guard.sql
	"fmt"
	"log/slog"
	"strings"
)

//go:embed guard.sql
var guardSQL string

// guard takes from analysts what Postgres lets everybody do, as far as this user may, and names what is left for
// an administrator. It is not a numbered migration, since logins are made and rights are given at any time.
func guard(ctx context.Context, db *sql.DB, logger *slog.Logger) error {
	if _, err := db.ExecContext(ctx, guardSQL); err != nil {
		return fmt.Errorf("bound what analysts can do: %w", err)
	}
	left, err := analystsCan(ctx, db)
	if err != nil {
		return err
	}
	if len(left) > 0 {
		logger.Warn("the role whisper_analyst can do more than read; have an administrator run migrations/guard.sql in this database",
			"can", strings.Join(left, ", "))
	}
	return nil
}

func analystsCan(ctx context.Context, db *sql.DB) ([]string, error) {
	var left []string
	for _, ability := range []struct{ name, question string }{
		{"make temporary tables", "has_database_privilege('whisper_analyst', current_database(), 'TEMP')"},
		{"make large objects", "has_function_privilege('whisper_analyst', 'lo_create(oid)', 'EXECUTE')"},
		{"write to the write-ahead log", "has_function_privilege('whisper_analyst', 'pg_logical_emit_message(boolean, text, text)', 'EXECUTE')"},
		{"make tables in the schema public", "coalesce(has_schema_privilege('whisper_analyst', to_regnamespace('public'), 'CREATE'), false)"},
		{"ask without a statement_timeout", `EXISTS (SELECT FROM pg_roles r WHERE rolcanlogin AND NOT rolsuper AND pg_has_role(oid, 'whisper_analyst', 'MEMBER')
			AND NOT has_table_privilege(oid, 'whisper.deliveries', 'INSERT')
			AND NOT EXISTS (SELECT FROM pg_db_role_setting s JOIN pg_database d ON s.setdatabase IN (0, d.oid) AND d.datname = current_database()
				WHERE s.setrole = r.oid AND s.setconfig::text LIKE '%statement_timeout=%'))`},
		{"take the locks of migrations and projectors", "has_function_privilege('whisper_analyst', 'pg_advisory_lock(bigint)', 'EXECUTE')"},
	} {
		var can bool
		if err := db.QueryRowContext(ctx, "SELECT "+ability.question).Scan(&can); err != nil {
			return nil, fmt.Errorf("look what analysts can do: %w", err)
		}
		if can {
			left = append(left, ability.name)
		}
	}
	return left, nil
}
