-- +goose Up
-- Minutes that are over an hour old are merged by the projector: their rows under all user partitions become one, and hours and
-- days are added up beside them. The merged row of a minute stands in the same table, so readers of the version before add it
-- up as they always did, and a rebuild by that version leaves nothing behind that counts twice.
ALTER TABLE delivery_stat_shards ADD COLUMN buckets bigint[];
COMMENT ON COLUMN delivery_stat_shards.partition IS 'One of the user partitions of the transactions that counted here; -1: what was merged of all. Only sums over all rows say something: a row may count below zero.';
COMMENT ON COLUMN delivery_stat_shards.latencies IS 'As projectors of versions before counted: bucket i holds up to 1.5^(i-1) ms. Adds to buckets.';
COMMENT ON COLUMN delivery_stat_shards.buckets IS 'Deliveries by time from the request to that status, as count * 64 + bucket; bucket i holds up to 1.5^i ms. Null where there are none.';
CREATE INDEX delivery_stat_shards_live ON ONLY delivery_stat_shards (minute) WHERE partition >= 0;

CREATE TABLE delivery_stat_hours (
    day      date            NOT NULL,
    hour     timestamptz     NOT NULL,
    lane     text            NOT NULL,
    category text            NOT NULL,
    channel  text            NOT NULL,
    status   delivery_status NOT NULL,
    count    bigint          NOT NULL,
    buckets  bigint[],
    PRIMARY KEY (hour, lane, category, channel, status)
) WITH (fillfactor = 80);
CREATE INDEX delivery_stat_hours_pending ON delivery_stat_hours (hour) WHERE status < 'cancelled';
COMMENT ON TABLE delivery_stat_hours IS 'What was merged of an hour. Read `delivery_stats_hourly` instead, which adds what was not merged yet.';
COMMENT ON COLUMN delivery_stat_hours.day IS 'UTC day of hour; old ones are deleted by it.';
COMMENT ON COLUMN delivery_stat_hours.hour IS 'Hour of the requests (UTC).';
COMMENT ON COLUMN delivery_stat_hours.lane IS 'high, normal or low.';
COMMENT ON COLUMN delivery_stat_hours.category IS 'Category; empty until the accepted record was read.';
COMMENT ON COLUMN delivery_stat_hours.channel IS 'Channel of the last attempt; empty before the first.';
COMMENT ON COLUMN delivery_stat_hours.status IS 'Where the deliveries counted here stand.';
COMMENT ON COLUMN delivery_stat_hours.count IS 'Number of deliveries.';
COMMENT ON COLUMN delivery_stat_hours.buckets IS 'As in delivery_stat_shards.';

CREATE TABLE delivery_stat_days (
    day      date            NOT NULL,
    lane     text            NOT NULL,
    category text            NOT NULL,
    channel  text            NOT NULL,
    status   delivery_status NOT NULL,
    count    bigint          NOT NULL,
    buckets  bigint[],
    PRIMARY KEY (day, lane, category, channel, status)
) WITH (fillfactor = 80);
COMMENT ON TABLE delivery_stat_days IS 'What was merged of a day. Read `delivery_stats_daily` instead, which adds what was not merged yet.';
COMMENT ON COLUMN delivery_stat_days.day IS 'UTC day of the requests; old ones are deleted by it.';
COMMENT ON COLUMN delivery_stat_days.lane IS 'high, normal or low.';
COMMENT ON COLUMN delivery_stat_days.category IS 'Category; empty until the accepted record was read.';
COMMENT ON COLUMN delivery_stat_days.channel IS 'Channel of the last attempt; empty before the first.';
COMMENT ON COLUMN delivery_stat_days.status IS 'Where the deliveries counted here stand.';
COMMENT ON COLUMN delivery_stat_days.count IS 'Number of deliveries.';
COMMENT ON COLUMN delivery_stat_days.buckets IS 'As in delivery_stat_shards.';

-- +goose StatementBegin
CREATE FUNCTION pack_buckets(latencies bigint[]) RETURNS bigint[]
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT array_agg(n * 64 + i - 1 ORDER BY i) FROM unnest(latencies) WITH ORDINALITY AS u(n, i) WHERE n <> 0;
END;
-- +goose StatementEnd
COMMENT ON FUNCTION pack_buckets IS 'The buckets, as count * 64 + bucket, of a histogram that has a place for each bucket.';

-- +goose StatementBegin
CREATE FUNCTION add_packed(a bigint[], b bigint[]) RETURNS bigint[]
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT array_agg(n * 64 + bucket ORDER BY bucket)
    FROM (SELECT v & 63 AS bucket, sum(v >> 6)::bigint AS n FROM unnest(array_cat(a, b)) AS v GROUP BY 1) AS summed WHERE n <> 0;
END;
-- +goose StatementEnd
COMMENT ON FUNCTION add_packed IS 'Adds two histograms of count * 64 + bucket; null where nothing is left.';

CREATE AGGREGATE concat_buckets(bigint[]) (sfunc = array_cat, stype = bigint[], combinefunc = array_cat, parallel = safe);
COMMENT ON AGGREGATE concat_buckets(bigint[]) IS 'Puts histograms of count * 64 + bucket in a row: a histogram in which a bucket may come more than once.';

-- +goose StatementBegin
CREATE FUNCTION bucket_quantiles(buckets bigint[]) RETURNS TABLE (p50 double precision, p95 double precision, p99 double precision)
    LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 1
BEGIN ATOMIC
    SELECT
        (array_agg(power(1.5, bucket - 1 + (0.5::double precision * total - (upto - n)) / n) ORDER BY bucket) FILTER (WHERE n > 0 AND upto >= 0.5::double precision * total))[1],
        (array_agg(power(1.5, bucket - 1 + (0.95::double precision * total - (upto - n)) / n) ORDER BY bucket) FILTER (WHERE n > 0 AND upto >= 0.95::double precision * total))[1],
        (array_agg(power(1.5, bucket - 1 + (0.99::double precision * total - (upto - n)) / n) ORDER BY bucket) FILTER (WHERE n > 0 AND upto >= 0.99::double precision * total))[1]
    FROM (
        SELECT bucket, n, sum(n) OVER (ORDER BY bucket) AS upto, sum(n) OVER () AS total
        FROM (SELECT v & 63 AS bucket, sum(v >> 6)::double precision AS n FROM unnest(buckets) AS v GROUP BY 1) AS summed WHERE n <> 0
    ) AS cumulated;
END;
-- +goose StatementEnd
COMMENT ON FUNCTION bucket_quantiles IS 'Quantiles in ms of a histogram of count * 64 + bucket, interpolated within their buckets: at most a factor 1.5 off.';

-- +goose Down
-- Forward only.
