-- revision 2
CREATE OR REPLACE VIEW delivery_stats_daily AS
SELECT
    day, lane, category, channel, status, count,
    q.p50 AS latency_p50_ms,
    q.p95 AS latency_p95_ms,
    q.p99 AS latency_p99_ms
FROM (
    SELECT day, lane, category, channel, status, sum(count)::bigint AS count, concat_buckets(buckets) AS buckets
    FROM (
        SELECT day, lane, category, channel, status, count, buckets FROM delivery_stat_days
        UNION ALL
        -- What was not merged yet: the last hour, and what was told of older ones since. A minute first, as in the hourly view.
        SELECT day, lane, category, channel, status, sum(count),
            add_packed(concat_buckets(CASE WHEN latencies IS NULL THEN buckets ELSE array_cat(buckets, pack_buckets(latencies)) END), NULL)
        FROM delivery_stat_shards WHERE partition >= 0 GROUP BY minute, lane, category, channel, status, day
    ) AS parts GROUP BY day, lane, category, channel, status
) AS summed CROSS JOIN LATERAL bucket_quantiles(buckets) AS q WHERE count <> 0;
COMMENT ON VIEW delivery_stats_daily IS 'Deliveries by the day of their request and by where they stand now, with the time that it took to get there.';
COMMENT ON COLUMN delivery_stats_daily.day IS 'UTC day of the request.';
COMMENT ON COLUMN delivery_stats_daily.lane IS 'high, normal or low.';
COMMENT ON COLUMN delivery_stats_daily.category IS 'Category; empty until the accepted record was read.';
COMMENT ON COLUMN delivery_stats_daily.channel IS 'Channel of the last attempt; empty before the first.';
COMMENT ON COLUMN delivery_stats_daily.status IS 'Where the deliveries stand now.';
COMMENT ON COLUMN delivery_stats_daily.count IS 'Number of deliveries.';
COMMENT ON COLUMN delivery_stats_daily.latency_p50_ms IS 'Half of them took at most this from the request to the status; from buckets, at most a factor 1.5 off; null for pending statuses.';
COMMENT ON COLUMN delivery_stats_daily.latency_p95_ms IS '95% of them took at most this.';
COMMENT ON COLUMN delivery_stats_daily.latency_p99_ms IS '99% of them took at most this.';
