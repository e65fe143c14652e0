package projections

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// A span is the days of one partition: a day, or a month.
type span struct{ first, end int32 } // end is the day after the last one

// compareSpans orders by the first day; a day comes before its month.
func compareSpans(a, b span) int {
	return cmp.Or(cmp.Compare(a.first, b.first), cmp.Compare(a.end, b.end))
}

func daySpan(day int32) span { return span{day, day + 1} }

// monthSpan is the month that has a day.
func monthSpan(day int32) span {
	at := dayTime(day)
	first := time.Date(at.Year(), at.Month(), 1, 0, 0, 0, 0, time.UTC)
	return span{int32(first.Unix() / 86_400), int32(first.AddDate(0, 1, 0).Unix() / 86_400)}
}

func (sp span) month() bool { return sp.end-sp.first > 1 }

func (sp span) days() []int32 {
	all := make([]int32, 0, sp.end-sp.first)
	for day := sp.first; day < sp.end; day++ {
		all = append(all, day)
	}
	return all
}

// table is the name of a table's partition.
func (sp span) table(name string) string {
	if sp.month() {
		return name + "_" + dayTime(sp.first).Format("200601")
	}
	return dayTable(name, sp.first)
}

// String is the day, or the month, as people write it.
func (sp span) String() string {
	if sp.month() {
		return dayTime(sp.first).Format("2006-01")
	}
	return dayTime(sp.first).Format(time.DateOnly)
}

// bounds are the days of a partition in SQL.
func (sp span) bounds() (from, to string) {
	return dayTime(sp.first).Format(time.DateOnly), dayTime(sp.end).Format(time.DateOnly)
}

// check is a constraint that says what the partition's bounds say.
func (sp span) check() string {
	from, to := sp.bounds()
	return "CONSTRAINT " + spanCheck + " CHECK (day >= '" + from + "' AND day < '" + to + "')"
}

// attach is the statement that makes a table a partition.
func (sp span) attach(table string) string {
	from, to := sp.bounds()
	return "ALTER TABLE $." + table + " ATTACH PARTITION $." + sp.table(table) + " FOR VALUES FROM ('" + from + "') TO ('" + to + "')"
}

// A part is one partition of a table: of a day or of a month.
type part struct {
	OID               uint32
	Name              string
	Attached, Pending bool
	span
}

// served says that its rows are among those of its table.
func (p part) served() bool { return p.Attached && !p.Pending }

// parts are a table's partitions, the oldest first. Among them are one that was detached but not dropped yet, and a month's table that
// is being filled.
func (s *store) parts(ctx context.Context, conn querier, table string) ([]part, error) {
	rows, err := conn.Query(ctx, `
		SELECT c.oid, c.relname, c.relispartition, coalesce(i.inhdetachpending, false)
		FROM pg_class c LEFT JOIN pg_inherits i ON i.inhrelid = c.oid
		WHERE c.relnamespace = to_regnamespace($1) AND c.relkind = 'r' AND c.relname ~ ('^' || $2::text || '_([0-9]{6}|[0-9]{8})$')
		ORDER BY c.relname`, pgx.Identifier{s.schema}.Sanitize(), table)
	if err != nil {
		return nil, fmt.Errorf("list the partitions of %s: %w", table, err)
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (p part, err error) {
		if err := row.Scan(&p.OID, &p.Name, &p.Attached, &p.Pending); err != nil {
			return p, err
		}
		p.span, err = spanOf(p.Name[len(table)+1:])
		if err != nil {
			return p, fmt.Errorf("the table %s is of no day or month: %w", p.Name, err)
		}
		return p, nil
	})
}

// spanOf is what the end of a partition's name says.
func spanOf(suffix string) (span, error) {
	layout, of := "20060102", daySpan
	if len(suffix) == 6 {
		layout, of = "200601", monthSpan
	}
	at, err := time.Parse(layout, suffix)
	if err != nil {
		return span{}, err
	}
	return of(int32(at.Unix() / 86_400)), nil
}

// A querier is a connection or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// A rowQuerier is one as well.
type rowQuerier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}
