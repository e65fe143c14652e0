package projections

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	// lockMerge is held by the projector that merges counts.
	lockMerge = -6
	// mergeAfter is how old a minute is when its counts are merged: most of its facts have come by then.
	mergeAfter = time.Hour
	// mergeRows is how many rows one transaction merges at most. It takes a quarter of a second.
	mergeRows = 10_000
)

// mergeStats merges the counts of minutes before a time: the rows that transactions counted into become one a minute, and are added
// to their hour and their day. Facts that come later count into rows of their own again, which the next pass merges.
//
// Each transaction takes some rows away and adds their sum, so whoever adds up all rows gets the same before, during
// and after it. Rows that a writer has in hand are passed over, and writers wait for one such transaction at most. Only
// one projector merges at a time; while another does, it returns errElsewhere.
func (s *store) mergeStats(ctx context.Context, before time.Time) (merged int64, err error) {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return 0, err
	}
	defer conn.Release()
	var alone bool
	if err := conn.QueryRow(ctx, "SELECT pg_try_advisory_lock($1, $2)", s.class, int32(lockMerge)).Scan(&alone); err != nil {
		return 0, fmt.Errorf("take the lock of who merges counts: %w", err)
	}
	if !alone {
		return 0, errElsewhere
	}
	defer func() { err = errors.Join(err, s.unlock(ctx, conn.Conn(), lockMerge)) }()
	parts, err := s.parts(ctx, conn, "delivery_stat_shards")
	if err != nil {
		return 0, err
	}
	for _, p := range parts {
		if !p.served() {
			continue
		}
		for _, day := range p.days() {
			for n := int64(mergeRows); n == mergeRows; merged += n {
				if n, err = s.mergeSome(ctx, conn, day, before); err != nil {
					return merged, fmt.Errorf("merge the counts of %s: %w", dayTime(day).Format(time.DateOnly), err)
				}
			}
		}
	}
	n, err := s.mergeTemplates(ctx, conn)
	return merged + n, err
}

// mergeSQL merges some rows and returns how many they were, and their minutes.
const mergeSQL = `
	WITH live AS MATERIALIZED (
		SELECT minute, lane, category, channel, status, partition
		FROM $.delivery_stat_shards WHERE day = $1 AND minute < $2 AND partition >= 0
		ORDER BY minute LIMIT $3 FOR UPDATE SKIP LOCKED
	), gone AS (
		DELETE FROM $.delivery_stat_shards AS s USING live AS l
		WHERE s.day = $1 AND s.minute = l.minute AND s.lane = l.lane AND s.category = l.category AND s.channel = l.channel
			AND s.status = l.status AND s.partition = l.partition
		RETURNING s.minute, s.lane, s.category, s.channel, s.status, s.count,
			CASE WHEN s.latencies IS NULL THEN s.buckets ELSE array_cat(s.buckets, $.pack_buckets(s.latencies)) END AS buckets
	), sums AS MATERIALIZED ( -- few to a minute: putting histograms in a row copies them each time
		SELECT minute, lane, category, channel, status, sum(count)::bigint AS count, $.add_packed($.concat_buckets(buckets), NULL) AS buckets
		FROM gone GROUP BY minute, lane, category, channel, status
	), minutes AS (
		INSERT INTO $.delivery_stat_shards AS s (day, minute, lane, category, channel, status, partition, count, buckets)
		SELECT $1::date, minute, lane, category, channel, status, -1, count, buckets
		FROM sums ORDER BY minute, lane, category, channel, status
		ON CONFLICT (minute, lane, category, channel, status, partition, day) DO UPDATE SET
			count = s.count + EXCLUDED.count, buckets = $.add_packed(s.buckets, EXCLUDED.buckets)
	), hours AS (
		INSERT INTO $.delivery_stat_hours AS s (day, hour, lane, category, channel, status, count, buckets)
		SELECT $1::date, date_trunc('hour', minute, 'UTC'), lane, category, channel, status, sum(count)::bigint,
			$.add_packed($.concat_buckets(buckets), NULL)
		FROM sums GROUP BY 2, lane, category, channel, status ORDER BY 2, lane, category, channel, status
		ON CONFLICT (hour, lane, category, channel, status) DO UPDATE SET
			count = s.count + EXCLUDED.count, buckets = $.add_packed(s.buckets, EXCLUDED.buckets)
	), days AS (
		INSERT INTO $.delivery_stat_days AS s (day, lane, category, channel, status, count, buckets)
		SELECT $1::date, lane, category, channel, status, sum(count)::bigint, $.add_packed($.concat_buckets(buckets), NULL)
		FROM sums GROUP BY lane, category, channel, status ORDER BY lane, category, channel, status
		ON CONFLICT (day, lane, category, channel, status) DO UPDATE SET
			count = s.count + EXCLUDED.count, buckets = $.add_packed(s.buckets, EXCLUDED.buckets)
	)
	SELECT count(*), coalesce(array_agg(DISTINCT minute), '{}') FROM gone`

// forgetEmpty deletes the rows whose count came down to 0: those of pending statuses, once their deliveries have ended.
var forgetEmpty = []string{
	`DELETE FROM $.delivery_stat_shards
		WHERE day = $1 AND minute = ANY ($2::timestamptz[]) AND partition = -1 AND count = 0 AND buckets IS NULL`,
	`DELETE FROM $.delivery_stat_hours
		WHERE day = $1 AND hour = ANY (SELECT date_trunc('hour', m, 'UTC') FROM unnest($2::timestamptz[]) AS m)
			AND count = 0 AND buckets IS NULL`,
	`DELETE FROM $.delivery_stat_days
		WHERE day = $1 AND $2::timestamptz[] IS NOT NULL AND count = 0 AND buckets IS NULL`,
}

// mergeSome merges at most mergeRows rows of a day.
func (s *store) mergeSome(ctx context.Context, conn *pgxpool.Conn, day int32, before time.Time) (merged int64, err error) {
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		defer s.tellBlockers(ctx, tx.Conn(), "merge counts")()
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock_shared($1, $2)", s.class, int32(lockSwap)); err != nil {
			return fmt.Errorf("wait for a rebuild: %w", err)
		}
		var minutes []time.Time
		if err := tx.QueryRow(ctx, s.sql(mergeSQL), dayTime(day), before, mergeRows).Scan(&merged, &minutes); err != nil {
			return err
		}
		if merged == 0 {
			return nil
		}
		for _, sql := range forgetEmpty {
			if _, err := tx.Exec(ctx, s.sql(sql), dayTime(day), minutes); err != nil {
				return err
			}
		}
		return nil
	})
	return merged, err
}
