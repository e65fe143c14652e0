-- +goose Up
ALTER TABLE notification_requests ADD COLUMN template_version bigint;
COMMENT ON COLUMN notification_requests.template_version IS 'Which version of the template: every recipient''s text was rendered from it. Null where there is no template, or one without versions.';

ALTER TABLE broadcast_shards ADD COLUMN template_version bigint;
COMMENT ON COLUMN broadcast_shards.template_version IS 'Which version of the template. Null where there is no template, or one without versions.';

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
        sum(matched)::bigint AS matched,
        bool_and(settled) AND count(*) = max(partitions) AS settled
    FROM broadcast_shards GROUP BY notification_id
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
COMMENT ON COLUMN notifications.template_version IS 'Version of the template of the first request; null where there is no template, or one without versions.';

-- +goose Down
-- Forward only.
