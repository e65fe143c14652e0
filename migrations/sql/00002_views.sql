-- +goose Up
CREATE VIEW notifications AS
SELECT
    notification_id,
    r.lane, r.category, r.template, r.kind, r.accepted_at,
    coalesce(r.recipients, 0) AS recipients,
    coalesce(s.accepted, 0)   AS accepted,
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
    coalesce(s.duplicates, 0) AS duplicates
FROM (
    SELECT
        notification_id,
        (array_agg(lane ORDER BY accepted_at, topic, partition, "offset"))[1]     AS lane,
        (array_agg(category ORDER BY accepted_at, topic, partition, "offset"))[1] AS category,
        (array_agg(template ORDER BY accepted_at, topic, partition, "offset"))[1] AS template,
        (array_agg(kind ORDER BY accepted_at, topic, partition, "offset"))[1]     AS kind,
        min(accepted_at)        AS accepted_at,
        sum(recipients)::bigint AS recipients
    FROM notification_requests GROUP BY notification_id
) AS r
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
        sum(duplicates)::bigint              AS duplicates
    FROM notification_shards GROUP BY notification_id
) AS s USING (notification_id);
COMMENT ON VIEW notifications IS 'One notification, with how many of its deliveries stand where. Requests that repeat an id add up.';
COMMENT ON COLUMN notifications.notification_id IS 'Key: the request''s id.';
COMMENT ON COLUMN notifications.lane IS 'high, normal or low, of the first request.';
COMMENT ON COLUMN notifications.category IS 'Category of the first request.';
COMMENT ON COLUMN notifications.template IS 'Template of the first request; empty where it brought its own content.';
COMMENT ON COLUMN notifications.kind IS 'direct (a list of users) or broadcast.';
COMMENT ON COLUMN notifications.accepted_at IS 'Time of the first request.';
COMMENT ON COLUMN notifications.recipients IS 'Recipients that its requests named, together. Always the sum of all statuses.';
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

CREATE VIEW broadcasts AS
SELECT
    notification_id,
    CASE WHEN accepted + scheduled + deferred + unknown = 0 THEN 'finished' ELSE 'running' END AS state,
    recipients                                       AS total,
    sent + delivered + read                          AS sent,
    failed,
    suppressed + expired + cancelled                 AS skipped,
    accepted + scheduled + deferred + unknown        AS pending,
    accepted_at                                      AS started_at,
    CASE WHEN accepted + scheduled + deferred + unknown = 0 THEN
        (SELECT max(d.settled_at) FROM deliveries d WHERE d.notification_id = n.notification_id)
    END                                              AS finished_at
FROM notifications AS n WHERE kind = 'broadcast';
COMMENT ON VIEW broadcasts IS 'Notifications to a segment or to everyone, and how far they are.';
COMMENT ON COLUMN broadcasts.notification_id IS 'Key: the request''s id.';
COMMENT ON COLUMN broadcasts.state IS 'running or finished.';
COMMENT ON COLUMN broadcasts.total IS 'Recipients.';
COMMENT ON COLUMN broadcasts.sent IS 'Deliveries that were sent, delivered or read.';
COMMENT ON COLUMN broadcasts.failed IS 'Deliveries that no channel took.';
COMMENT ON COLUMN broadcasts.skipped IS 'Deliveries suppressed, expired or cancelled.';
COMMENT ON COLUMN broadcasts.pending IS 'Deliveries still to settle.';
COMMENT ON COLUMN broadcasts.started_at IS 'Time of the request.';
COMMENT ON COLUMN broadcasts.finished_at IS 'When its last delivery settled; null while it runs.';

CREATE VIEW delivery_stats AS
SELECT
    minute, lane, category, channel, status, count,
    latency_quantile(latencies, 0.5)  AS latency_p50_ms,
    latency_quantile(latencies, 0.95) AS latency_p95_ms,
    latency_quantile(latencies, 0.99) AS latency_p99_ms
FROM (
    SELECT minute, lane, category, channel, status, sum(count)::bigint AS count, sum_buckets(latencies) AS latencies
    FROM delivery_stat_shards GROUP BY minute, lane, category, channel, status
) AS summed WHERE count <> 0;
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

CREATE VIEW conservation AS
SELECT notification_id, recipients,
    accepted + scheduled + deferred + unknown + cancelled + suppressed + expired + failed + sent + delivered + read AS counted,
    duplicates, accepted_at
FROM notifications
WHERE recipients <> accepted + scheduled + deferred + unknown + cancelled + suppressed + expired + failed + sent + delivered + read;
COMMENT ON VIEW conservation IS 'Notifications that do not add up. Empty, always, once the projector has caught up.';
COMMENT ON COLUMN conservation.notification_id IS 'The notification.';
COMMENT ON COLUMN conservation.recipients IS 'Recipients that its requests named.';
COMMENT ON COLUMN conservation.counted IS 'Deliveries and dropped duplicates that are known.';
COMMENT ON COLUMN conservation.duplicates IS 'How many of counted are dropped duplicates.';
COMMENT ON COLUMN conservation.accepted_at IS 'Time of the first request; null where none was read yet.';

-- +goose Down
-- Forward only.
