package projections

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/klivvr/whisper/domain"
)

// templateKey is a row of template_stat_shards.
type templateKey struct {
	day      int32
	template string
	version  int64
	status   domain.Status
	stripe   int32
}

func compareTemplates(a, b templateKey) int {
	return cmp.Or(
		cmp.Compare(a.day, b.day), cmp.Compare(a.template, b.template), cmp.Compare(a.version, b.version),
		cmp.Compare(a.status, b.status), cmp.Compare(a.stripe, b.stripe),
	)
}

// writeTemplates writes by how much the counts of templates change.
func (t *transaction) writeTemplates(ctx context.Context) error {
	cols := arrays(oidDate, oidText, oidInt8, oidText, oidInt4, oidInt8)
	for _, key := range sorted(t.templates, compareTemplates) {
		n := t.templates[key]
		if n == 0 {
			continue
		}
		f := cols.add()
		f[0].day(key.day)
		f[1].text(key.template)
		f[2].int8(key.version)
		f[3].text(key.status.String())
		f[4].int4(key.stripe)
		f[5].int8(n)
	}
	if cols.rows == 0 {
		return nil
	}
	_, err := t.run(ctx, t.tx, `
		INSERT INTO $.template_stat_shards AS s (day, template, template_version, status, partition, count)
		SELECT * FROM unnest($1::date[], $2::text[], $3::int8[], $4::text[], $5::int4[], $6::int8[])
		ON CONFLICT (day, template, template_version, status, partition) DO UPDATE SET count = s.count + EXCLUDED.count`, cols.params()...)
	return err
}

const (
	mergeTemplatesSQL = `
		WITH live AS MATERIALIZED (
			SELECT day, template, template_version, status, partition
			FROM $.template_stat_shards WHERE partition >= 0 LIMIT $1 FOR UPDATE SKIP LOCKED
		), gone AS (
			DELETE FROM $.template_stat_shards AS s USING live AS l
			WHERE s.day = l.day AND s.template = l.template AND s.template_version = l.template_version AND s.status = l.status
				AND s.partition = l.partition
			RETURNING s.day, s.template, s.template_version, s.status, s.count
		), merged AS (
			INSERT INTO $.template_stat_shards AS s (day, template, template_version, status, partition, count)
			SELECT day, template, template_version, status, -1, sum(count)::bigint FROM gone GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
			ON CONFLICT (day, template, template_version, status, partition) DO UPDATE SET count = s.count + EXCLUDED.count
		) SELECT count(*) FROM gone`

	// wrongTemplatesSQL are the days whose deliveries do not stand where their templates' counts say. It sees one state
	// of all tables, and all counts of a delivery change in one transaction, so a day whose counts were all kept is
	// never among them. A delivery's status only rises, so what was not counted never cancels out.
	wrongTemplatesSQL = `
		SELECT DISTINCT day FROM (
			SELECT day, status::text, sum(count) FROM (
				SELECT day, status::text, count FROM $.delivery_stat_days
				UNION ALL SELECT day, status::text, count FROM $.delivery_stat_shards WHERE partition >= 0
				UNION ALL SELECT day, status, -count FROM $.template_stat_shards
			) AS counts GROUP BY 1, 2 HAVING sum(count) <> 0
		) AS wrong ORDER BY day`

	// rightTemplatesSQL adds what a day's counts lack. It adds, so what is counted meanwhile stays counted.
	rightTemplatesSQL = `
		INSERT INTO $.template_stat_shards AS s (day, template, template_version, status, partition, count)
		SELECT $1::date, template, version, status, -1, sum(n)::bigint FROM (
			SELECT coalesce(template, '') AS template, coalesce(template_version, 0) AS version, status::text, count(*) AS n
			FROM $.deliveries WHERE day = $1 GROUP BY 1, 2, 3
			UNION ALL
			SELECT template, template_version, status, -count FROM $.template_stat_shards WHERE day = $1
		) AS counts GROUP BY template, version, status HAVING sum(n) <> 0 ORDER BY 1, 2, 3, 4
		ON CONFLICT (day, template, template_version, status, partition) DO UPDATE SET count = s.count + EXCLUDED.count`
)

// mergeTemplates merges the counts of templates as mergeStats does those of minutes, and puts those of days right that a projector
// without them has written to, or that are from before there were any. Whoever calls it has lockMerge.
func (s *store) mergeTemplates(ctx context.Context, conn *pgxpool.Conn) (merged int64, err error) {
	turn := func(do func(pgx.Tx) error) error {
		return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			defer s.tellBlockers(ctx, tx.Conn(), "merge the counts of templates")()
			// Whole days are counted; the writers' plans look rows up.
			if _, err := tx.Exec(ctx, "SET LOCAL enable_seqscan = on; SET LOCAL enable_bitmapscan = on; SET LOCAL enable_hashjoin = on"); err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock_shared($1, $2)", s.class, int32(lockSwap)); err != nil {
				return fmt.Errorf("wait for a rebuild: %w", err)
			}
			return do(tx)
		})
	}
	for n := int64(mergeRows); n == mergeRows; merged += n {
		err := turn(func(tx pgx.Tx) error {
			if err := tx.QueryRow(ctx, s.sql(mergeTemplatesSQL), mergeRows).Scan(&n); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, s.sql("DELETE FROM $.template_stat_shards WHERE partition = -1 AND count = 0"))
			return err
		})
		if err != nil {
			return merged, fmt.Errorf("merge the counts of templates: %w", err)
		}
	}
	var wrong []time.Time
	err = turn(func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, s.sql(wrongTemplatesSQL))
		if err != nil {
			return err
		}
		wrong, err = pgx.CollectRows(rows, pgx.RowTo[time.Time])
		return err
	})
	if err != nil {
		return merged, fmt.Errorf("compare the counts of templates: %w", err)
	}
	for _, day := range wrong {
		err := turn(func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, s.sql(rightTemplatesSQL), day)
			return err
		})
		if err != nil {
			return merged, fmt.Errorf("count the templates of %s: %w", day.Format(time.DateOnly), err)
		}
	}
	return merged, nil
}
