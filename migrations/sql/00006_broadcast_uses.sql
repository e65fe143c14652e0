-- +goose Up
-- An id that is used again after the window of duplicates is another broadcast, with a row of its own. Before, the shares of both
-- were counted together, so that neither came to its end.
CREATE OR REPLACE VIEW notifications AS
SELECT
    notification_id,
    coalesce(r.lane, b.lane)               AS lane,
    coalesce(r.category, b.category)       AS category,
    coalesce(r.template, b.template)       AS template,
    CASE WHEN b.notification_id IS NULL THEN r.kind ELSE 'broadcast' END AS kind,
    least(r.accepted_at, b.accepted_at)    AS accepted_at,
    n.recipients,
    coalesce(s.accepted, 0) + CASE WHEN b.settled THEN 0 ELSE greatest(n.recipients - n.counted, 0) * (b.notification_id IS NOT NULL)::int END AS accepted,
    coalesce(s.scheduled, 0)  AS scheduled,
    coalesce(s.deferred, 0)   AS deferred,
    coalesce(s.unknown, 0)    AS unknown,
    coalesce(s.cancelled, 0)  AS cancelled,
    coalesce(s.suppressed, 0) AS suppressed,
    coalesce(s.expired, 0)    AS expired,
    coalesce(s.failed, 0)     AS failed,
    coalesce(s.sent, 0)       AS sent,
    coalesce(s.delivered, 0)  AS delivered,
    coalesce(s.read, 0)       AS read,
    coalesce(s.duplicates, 0) AS duplicates,
    coalesce(r.template_version, b.template_version) AS template_version
FROM (
    SELECT
        notification_id,
        (array_agg(lane ORDER BY accepted_at, topic, partition, "offset"))[1]     AS lane,
        (array_agg(category ORDER BY accepted_at, topic, partition, "offset"))[1] AS category,
        (array_agg(template ORDER BY accepted_at, topic, partition, "offset"))[1] AS template,
        (array_agg(template_version ORDER BY accepted_at, topic, partition, "offset"))[1] AS template_version,
        (array_agg(kind ORDER BY accepted_at, topic, partition, "offset"))[1]     AS kind,
        min(accepted_at)        AS accepted_at,
        sum(recipients)::bigint AS recipients
    FROM notification_requests GROUP BY notification_id
) AS r
FULL JOIN (
    SELECT
        notification_id,
        min(lane) AS lane, min(category) AS category, min(template) AS template, min(template_version) AS template_version, min(accepted_at) AS accepted_at,
        sum(matched)::bigint AS matched, bool_and(settled) AS settled
    FROM (
        SELECT
            notification_id, day,
            min(lane) AS lane, min(category) AS category, min(template) AS template, min(template_version) AS template_version, min(accepted_at) AS accepted_at,
            sum(matched) AS matched, bool_and(settled) AND count(*) = max(partitions) AS settled
        FROM broadcast_shards GROUP BY notification_id, day
    ) AS uses GROUP BY notification_id
) AS b USING (notification_id)
FULL JOIN (
    SELECT
        notification_id,
        sum(accepted)::bigint                AS accepted,
        sum(scheduled)::bigint               AS scheduled,
        sum(deferred)::bigint                AS deferred,
        sum(unknown)::bigint                 AS unknown,
        sum(cancelled)::bigint               AS cancelled,
        sum(suppressed + duplicates)::bigint AS suppressed,
        sum(expired)::bigint                 AS expired,
        sum(failed)::bigint                  AS failed,
        sum(sent)::bigint                    AS sent,
        sum(delivered)::bigint               AS delivered,
        sum(read)::bigint                    AS read,
        sum(duplicates)::bigint              AS duplicates,
        sum(accepted + scheduled + deferred + unknown + cancelled + suppressed + duplicates + expired + failed + sent + delivered + read)::bigint AS counted
    FROM notification_shards GROUP BY notification_id
) AS s USING (notification_id)
CROSS JOIN LATERAL (
    -- Dispatch tells of those who are meant twice a second, so while a broadcast runs facts may be ahead of it.
    SELECT coalesce(s.counted, 0) AS counted, CASE
        WHEN b.notification_id IS NULL THEN coalesce(r.recipients, 0)
        WHEN b.settled THEN coalesce(r.recipients, 0) + b.matched
        ELSE greatest(coalesce(r.recipients, 0) + b.matched, coalesce(s.counted, 0))
    END AS recipients
) AS n;
CREATE OR REPLACE VIEW broadcasts AS
SELECT
    b.notification_id,
    CASE
        WHEN b.settled AND b.cancelled THEN 'cancelled'
        WHEN b.settled AND b.expired THEN 'expired'
        WHEN b.settled THEN 'finished'
        WHEN b.cancelled THEN 'cancelling'
        WHEN b.paused THEN 'paused'
        WHEN b.shares < b.partitions OR b.running THEN 'running'
        WHEN b.scheduled THEN 'scheduled'
        ELSE 'walked'
    END                                                          AS state,
    b.lane, b.category, b.template, b.segment, b.rate,
    b.audience, b.walked, b.unwalked, b.segment_errors,
    n.recipients                                                 AS total,
    s.sent                                                       AS sent,
    s.delivered                                                  AS delivered,
    s.failed                                                     AS failed,
    s.skipped                                                    AS skipped,
    k.reasons || CASE WHEN s.duplicates > 0 THEN jsonb_build_object('duplicate', s.duplicates) ELSE '{}' END AS skipped_by,
    s.pending + CASE WHEN b.settled THEN 0 ELSE n.recipients - s.counted END AS pending,
    p.per_second                                                 AS walked_per_second,
    CASE WHEN NOT b.settled AND b.running AND NOT b.paused AND p.per_second > 0 AND b.audience > b.walked THEN
        b.progressed_at + make_interval(secs => (b.audience - b.walked) / p.per_second)
    END                                                          AS estimated_end,
    b.accepted_at, b.send_at, b.send_at_local, b.expires_at, b.started_at, b.walked_at,
    CASE WHEN b.settled THEN b.progressed_at END                 AS finished_at
FROM (
    -- What was counted on days before the first broadcast of an id, or between two, belongs to the one before, or to the first.
    SELECT
        notification_id,
        CASE WHEN lag(day) OVER (PARTITION BY notification_id ORDER BY day) IS NULL THEN '-infinity' ELSE day END AS since,
        coalesce(lead(day) OVER (PARTITION BY notification_id ORDER BY day), 'infinity') AS before,
        min(lane) AS lane, min(category) AS category, min(template) AS template, min(segment) AS segment, min(rate) AS rate,
        max(partitions) AS partitions, count(*) AS shares,
        bool_and(settled) AND count(*) = max(partitions) AS settled,
        bool_or(state = 'cancelled') AS cancelled, bool_or(state = 'expired') AS expired, bool_or(state = 'paused') AS paused,
        bool_or(state = 'running') AS running, bool_or(state = 'scheduled') AS scheduled,
        sum(audience)::bigint AS audience, sum(walked)::bigint AS walked, sum(matched)::bigint AS matched, sum(unwalked)::bigint AS unwalked,
        sum(segment_errors)::bigint AS segment_errors,
        min(accepted_at) AS accepted_at, min(send_at) AS send_at, min(send_at_local) AS send_at_local, min(expires_at) AS expires_at,
        min(started_at) AS started_at, CASE WHEN bool_and(walked_at IS NOT NULL) AND count(*) = max(partitions) THEN max(walked_at) END AS walked_at,
        max(progressed_at) AS progressed_at
    FROM broadcast_shards GROUP BY notification_id, day
) AS b
CROSS JOIN LATERAL (
    SELECT
        coalesce(sum(c.sent + c.delivered + c.read), 0)::bigint                             AS sent,
        coalesce(sum(c.delivered + c.read), 0)::bigint                                      AS delivered,
        coalesce(sum(c.failed), 0)::bigint                                                  AS failed,
        coalesce(sum(c.suppressed + c.duplicates + c.expired + c.cancelled), 0)::bigint     AS skipped,
        coalesce(sum(c.duplicates), 0)::bigint                                              AS duplicates,
        coalesce(sum(c.accepted + c.scheduled + c.deferred + c.unknown), 0)::bigint         AS pending,
        coalesce(sum(c.accepted + c.scheduled + c.deferred + c.unknown + c.cancelled + c.suppressed + c.duplicates + c.expired + c.failed
            + c.sent + c.delivered + c.read), 0)::bigint                                    AS counted
    FROM notification_shards AS c WHERE c.notification_id = b.notification_id AND c.day >= b.since AND c.day < b.before
) AS s
CROSS JOIN LATERAL (
    SELECT coalesce(sum(q.recipients), 0)::bigint AS recipients
    FROM notification_requests AS q WHERE q.notification_id = b.notification_id AND q.day >= b.since AND q.day < b.before
) AS r
CROSS JOIN LATERAL (
    -- Dispatch tells of those who are meant twice a second, so while a broadcast runs facts may be ahead of it.
    SELECT CASE WHEN b.settled THEN r.recipients + b.matched ELSE greatest(r.recipients + b.matched, s.counted) END AS recipients
) AS n
CROSS JOIN LATERAL (
    SELECT coalesce(jsonb_object_agg(reason, count), '{}') AS reasons
    FROM (
        SELECT w.reason, sum(w.count)::bigint AS count FROM broadcast_skips AS w
        WHERE w.notification_id = b.notification_id AND w.day >= b.since AND w.day < b.before GROUP BY w.reason
    ) AS summed WHERE count <> 0
) AS k
CROSS JOIN LATERAL (
    SELECT b.walked / nullif(extract(epoch FROM coalesce(b.walked_at, b.progressed_at) - b.started_at), 0)::double precision AS per_second
) AS p;
COMMENT ON COLUMN broadcasts.notification_id IS 'The request''s id. One that was used again after the window of duplicates is another broadcast: the key is this and accepted_at.';

-- +goose Down
-- Forward only.
