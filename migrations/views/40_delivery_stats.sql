-- revision 2
CREATE OR REPLACE VIEW delivery_stats AS
SELECT
    minute, lane, category, channel, status, count,
    q.p50 AS latency_p50_ms,
    q.p95 AS latency_p95_ms,
    q.p99 AS latency_p99_ms,
    day
FROM (
    SELECT minute, lane, category, channel, status, sum(count)::bigint AS count,
        concat_buckets(CASE WHEN latencies IS NULL THEN buckets ELSE array_cat(buckets, pack_buckets(latencies)) END) AS buckets, day
    FROM delivery_stat_shards GROUP BY minute, lane, category, channel, status, day
) AS summed CROSS JOIN LATERAL bucket_quantiles(buckets) AS q WHERE count <> 0;
COMMENT ON VIEW delivery_stats IS 'Deliveries by the minute of their request and by where they stand now, with the time that it took to get there.';
COMMENT ON COLUMN delivery_stats.minute IS 'Minute of the request.';
COMMENT ON COLUMN delivery_stats.lane IS 'high, normal or low.';
COMMENT ON COLUMN delivery_stats.category IS 'Category; empty until the accepted record was read.';
COMMENT ON COLUMN delivery_stats.channel IS 'Channel of the last attempt; empty before the first.';
COMMENT ON COLUMN delivery_stats.status IS 'Where the deliveries stand now.';
COMMENT ON COLUMN delivery_stats.count IS 'Number of deliveries.';
COMMENT ON COLUMN delivery_stats.latency_p50_ms IS 'Half of them took at most this from the request to the status; from buckets, at most a factor 1.5 off; null for pending statuses.';
COMMENT ON COLUMN delivery_stats.latency_p95_ms IS '95% of them took at most this.';
COMMENT ON COLUMN delivery_stats.latency_p99_ms IS '99% of them took at most this.';
COMMENT ON COLUMN delivery_stats.day IS 'UTC day of minute. Give it where you can: a day is a table of its own.';
