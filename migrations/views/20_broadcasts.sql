-- revision 1
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
COMMENT ON VIEW broadcasts IS 'Notifications to a segment or to everyone, and how far they are.';
COMMENT ON COLUMN broadcasts.notification_id IS 'The request''s id. One that was used again after the window of duplicates is another broadcast: the key is this and accepted_at.';
COMMENT ON COLUMN broadcasts.state IS 'scheduled, running, paused, walked (everyone was looked at, some deliveries are open), cancelling; ends: finished, cancelled, expired.';
COMMENT ON COLUMN broadcasts.lane IS 'high, normal or low.';
COMMENT ON COLUMN broadcasts.category IS 'The request''s category.';
COMMENT ON COLUMN broadcasts.template IS 'The request''s template; empty where it brought its own content.';
COMMENT ON COLUMN broadcasts.segment IS 'CEL expression of who is meant; empty: everyone with a profile.';
COMMENT ON COLUMN broadcasts.rate IS 'Deliveries a second that were asked for at most; null: no bound.';
COMMENT ON COLUMN broadcasts.audience IS 'Users that there were when it started.';
COMMENT ON COLUMN broadcasts.walked IS 'Users that were looked at so far.';
COMMENT ON COLUMN broadcasts.unwalked IS 'Users who were not looked at when it was cancelled or expired: they are no deliveries.';
COMMENT ON COLUMN broadcasts.segment_errors IS 'Users about whom the segment could not be answered (a missing attribute): not meant.';
COMMENT ON COLUMN broadcasts.total IS 'Users who were meant, so far; each is a delivery.';
COMMENT ON COLUMN broadcasts.sent IS 'Deliveries that were sent, delivered or read.';
COMMENT ON COLUMN broadcasts.delivered IS 'Deliveries that a client acknowledged, read ones included.';
COMMENT ON COLUMN broadcasts.failed IS 'Deliveries that no channel took.';
COMMENT ON COLUMN broadcasts.skipped IS 'Deliveries suppressed, expired or cancelled.';
COMMENT ON COLUMN broadcasts.skipped_by IS 'skipped, by reason.';
COMMENT ON COLUMN broadcasts.pending IS 'Deliveries still to settle.';
COMMENT ON COLUMN broadcasts.walked_per_second IS 'Users looked at a second since it started.';
COMMENT ON COLUMN broadcasts.estimated_end IS 'When everyone will have been looked at, if it goes on as it did; null where it does not run.';
COMMENT ON COLUMN broadcasts.accepted_at IS 'Time of the request.';
COMMENT ON COLUMN broadcasts.send_at IS 'When it was to start; null: at once.';
COMMENT ON COLUMN broadcasts.send_at_local IS 'Time of day in each user''s zone; empty: for all at once.';
COMMENT ON COLUMN broadcasts.expires_at IS 'Nothing of it is sent later.';
COMMENT ON COLUMN broadcasts.started_at IS 'When the first user was looked at.';
COMMENT ON COLUMN broadcasts.walked_at IS 'When the last one was; null before.';
COMMENT ON COLUMN broadcasts.finished_at IS 'When its last delivery settled; null before.';
