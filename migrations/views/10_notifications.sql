-- revision 1
CREATE OR REPLACE VIEW notifications AS
SELECT
    notification_id,
    coalesce(n.request_lane, n.broadcast_lane)         AS lane,
    coalesce(n.request_category, n.broadcast_category) AS category,
    coalesce(n.request_template, n.broadcast_template) AS template,
    CASE WHEN n.settled IS NULL THEN n.request_kind ELSE 'broadcast' END AS kind,
    n.accepted_at,
    t.recipients,
    n.accepted + CASE WHEN NOT n.settled THEN greatest(t.recipients - t.counted, 0) ELSE 0 END AS accepted,
    n.scheduled,
    n.deferred,
    n.unknown,
    n.cancelled,
    n.suppressed + n.duplicates AS suppressed,
    n.expired,
    n.failed,
    n.sent,
    n.delivered,
    n.read,
    n.duplicates,
    CASE WHEN n.request_lane IS NULL THEN n.broadcast_version ELSE n.request_version END AS template_version
FROM (
    -- One row a notification, of everything that stands under its id. UNION ALL and not a join of three sums: a
    -- condition on notification_id reaches the index of each table only so.
    SELECT
        notification_id,
        min(accepted_at) AS accepted_at,
        -- What the first request says; requests of one moment, by their position.
        (array_agg(lane ORDER BY accepted_at, topic, partition, "offset") FILTER (WHERE part = 'request'))[1]             AS request_lane,
        (array_agg(category ORDER BY accepted_at, topic, partition, "offset") FILTER (WHERE part = 'request'))[1]         AS request_category,
        (array_agg(template ORDER BY accepted_at, topic, partition, "offset") FILTER (WHERE part = 'request'))[1]         AS request_template,
        (array_agg(template_version ORDER BY accepted_at, topic, partition, "offset") FILTER (WHERE part = 'request'))[1] AS request_version,
        (array_agg(kind ORDER BY accepted_at, topic, partition, "offset") FILTER (WHERE part = 'request'))[1]             AS request_kind,
        min(lane) FILTER (WHERE part = 'broadcast')             AS broadcast_lane,
        min(category) FILTER (WHERE part = 'broadcast')         AS broadcast_category,
        min(template) FILTER (WHERE part = 'broadcast')         AS broadcast_template,
        min(template_version) FILTER (WHERE part = 'broadcast') AS broadcast_version,
        bool_and(settled)                                       AS settled, -- null where it is no broadcast
        coalesce(sum(recipients), 0)::bigint AS named,
        coalesce(sum(accepted), 0)::bigint   AS accepted,
        coalesce(sum(scheduled), 0)::bigint  AS scheduled,
        coalesce(sum(deferred), 0)::bigint   AS deferred,
        coalesce(sum(unknown), 0)::bigint    AS unknown,
        coalesce(sum(cancelled), 0)::bigint  AS cancelled,
        coalesce(sum(suppressed), 0)::bigint AS suppressed,
        coalesce(sum(expired), 0)::bigint    AS expired,
        coalesce(sum(failed), 0)::bigint     AS failed,
        coalesce(sum(sent), 0)::bigint       AS sent,
        coalesce(sum(delivered), 0)::bigint  AS delivered,
        coalesce(sum(read), 0)::bigint       AS read,
        coalesce(sum(duplicates), 0)::bigint AS duplicates
    FROM (
        SELECT 'request' AS part, notification_id, accepted_at, topic, partition, "offset", lane, category, template, template_version, kind, recipients,
            NULL::boolean AS settled, NULL::bigint AS accepted, NULL::bigint AS scheduled, NULL::bigint AS deferred, NULL::bigint AS unknown,
            NULL::bigint AS cancelled, NULL::bigint AS suppressed, NULL::bigint AS expired, NULL::bigint AS failed, NULL::bigint AS sent,
            NULL::bigint AS delivered, NULL::bigint AS read, NULL::bigint AS duplicates
        FROM notification_requests
        UNION ALL
        -- An id that is used again after the window of duplicates is another broadcast, with shares of its own.
        SELECT 'broadcast', notification_id, min(accepted_at), NULL, NULL, NULL, min(lane), min(category), min(template), min(template_version), NULL,
            sum(matched)::bigint, bool_and(settled) AND count(*) = max(partitions),
            NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
        FROM broadcast_shards GROUP BY notification_id, day
        UNION ALL
        SELECT 'counts', notification_id, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
            accepted, scheduled, deferred, unknown, cancelled, suppressed, expired, failed, sent, delivered, read, duplicates
        FROM notification_shards
    ) AS parts GROUP BY notification_id
) AS n
CROSS JOIN LATERAL (
    SELECT n.accepted + n.scheduled + n.deferred + n.unknown + n.cancelled + n.suppressed + n.duplicates + n.expired + n.failed
        + n.sent + n.delivered + n.read AS counted
) AS c
CROSS JOIN LATERAL (
    -- Dispatch tells of those who are meant twice a second, so while a broadcast runs facts may be ahead of it.
    SELECT c.counted, CASE WHEN NOT n.settled THEN greatest(n.named, c.counted) ELSE n.named END AS recipients
) AS t;
COMMENT ON VIEW notifications IS 'One notification, with how many of its deliveries stand where. Requests that repeat an id add up.';
COMMENT ON COLUMN notifications.notification_id IS 'Key: the request''s id.';
COMMENT ON COLUMN notifications.lane IS 'high, normal or low, of the first request.';
COMMENT ON COLUMN notifications.category IS 'Category of the first request.';
COMMENT ON COLUMN notifications.template IS 'Template of the first request; empty where it brought its own content.';
COMMENT ON COLUMN notifications.kind IS 'direct (a list of users) or broadcast.';
COMMENT ON COLUMN notifications.accepted_at IS 'Time of the first request.';
COMMENT ON COLUMN notifications.recipients IS 'Recipients that its requests named, together; of a broadcast, users found to be meant so far. Always the sum of all statuses.';
COMMENT ON COLUMN notifications.accepted IS 'Deliveries taken, nothing more known yet (pending).';
COMMENT ON COLUMN notifications.scheduled IS 'Deliveries that wait for their send_at (pending).';
COMMENT ON COLUMN notifications.deferred IS 'Deliveries that wait for the user or a provider (pending).';
COMMENT ON COLUMN notifications.unknown IS 'Deliveries whose provider never answered (pending).';
COMMENT ON COLUMN notifications.cancelled IS 'Deliveries cancelled before sending.';
COMMENT ON COLUMN notifications.suppressed IS 'Deliveries not sent on purpose, dropped duplicates included.';
COMMENT ON COLUMN notifications.expired IS 'Deliveries whose time was over before anything took them.';
COMMENT ON COLUMN notifications.failed IS 'Deliveries that no channel took.';
COMMENT ON COLUMN notifications.sent IS 'Deliveries that a socket or a provider took, not acknowledged.';
COMMENT ON COLUMN notifications.delivered IS 'Deliveries that a client acknowledged, not read.';
COMMENT ON COLUMN notifications.read IS 'Deliveries that the person saw.';
COMMENT ON COLUMN notifications.duplicates IS 'How many of suppressed were recipients of a repeated request.';
COMMENT ON COLUMN notifications.template_version IS 'Version of the template of the first request; null where there is no template, or one without versions.';
