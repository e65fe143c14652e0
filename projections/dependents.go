package projections

import (
	"context"
	"fmt"
	"strings"
)

// What others build on the table or view of one day is in the way when that is dropped or replaced. They can build on the whole table
// instead, which stays what it is. Postgres would refuse the DROP as well, but only after everything else was done.

// refuseDependents fails, and names them, if views or functions of others stand on any of a schema's tables or views.
func refuseDependents(ctx context.Context, conn rowQuerier, schema string, names []string) error {
	var found []string
	if err := conn.QueryRow(ctx, `
		WITH ours AS MATERIALIZED (SELECT oid FROM pg_class WHERE relnamespace = to_regnamespace(quote_ident($1)) AND relname = ANY ($2::text[])),
		others AS (
			SELECT d.classid, d.objid FROM pg_depend AS d JOIN ours ON d.refobjid = ours.oid
			WHERE d.refclassid = 'pg_class'::regclass AND d.classid IN ('pg_rewrite'::regclass, 'pg_proc'::regclass)
		)
		SELECT coalesce(array_agg(name ORDER BY name), '{}') FROM (
			SELECT r.ev_class::regclass::text AS name FROM others AS o JOIN pg_rewrite AS r ON r.oid = o.objid
			WHERE o.classid = 'pg_rewrite'::regclass AND r.ev_class NOT IN (SELECT oid FROM ours)
			UNION SELECT objid::regprocedure::text FROM others WHERE classid = 'pg_proc'::regclass
		) AS n`, schema, names).Scan(&found); err != nil {
		return fmt.Errorf("look what stands on daily tables: %w", err)
	}
	if len(found) > 0 {
		return fmt.Errorf("these stand on the tables of single days or months, build them on the whole table instead: %s",
			strings.Join(found, ", "))
	}
	return nil
}

// tableNames are the names that the days of a span have in a table: their own tables or views, and that of a month.
func (sp span) tableNames(table string) []string {
	names := []string{sp.table(table)}
	if sp.month() {
		for _, day := range sp.days() {
			names = append(names, dayTable(table, day))
		}
	}
	return names
}
