-- +goose Up
CREATE TABLE broadcast_shards (
    notification_id   text        NOT NULL,
    partition         integer     NOT NULL,
    day               date        NOT NULL,
    lane              text        NOT NULL,
    category          text        NOT NULL,
    template          text        NOT NULL,
    segment           text        NOT NULL,
    rate              double precision,
    partitions        integer     NOT NULL,
    accepted_at       timestamptz NOT NULL,
    send_at           timestamptz,
    send_at_local     text        NOT NULL,
    expires_at        timestamptz NOT NULL,
    request_topic     text        NOT NULL,
    request_partition integer     NOT NULL,
    request_offset    bigint      NOT NULL,
    state             text        NOT NULL,
    settled           boolean     NOT NULL,
    audience          bigint      NOT NULL,
    walked            bigint      NOT NULL,
    matched           bigint      NOT NULL,
    segment_errors    bigint      NOT NULL,
    unwalked          bigint      NOT NULL,
    started_at        timestamptz,
    walked_at         timestamptz,
    progressed_at     timestamptz NOT NULL,
    PRIMARY KEY (notification_id, partition, day)
) WITH (fillfactor = 50);
CREATE INDEX broadcast_shards_day ON broadcast_shards (day);
COMMENT ON TABLE broadcast_shards IS 'One user partition''s share of a broadcast, as dispatch told of it last. Read `broadcasts` instead.';
COMMENT ON COLUMN broadcast_shards.notification_id IS 'The broadcast.';
COMMENT ON COLUMN broadcast_shards.partition IS 'User partition in Kafka.';
COMMENT ON COLUMN broadcast_shards.day IS 'UTC day of accepted_at; old ones are deleted by it.';
COMMENT ON COLUMN broadcast_shards.lane IS 'high, normal or low.';
COMMENT ON COLUMN broadcast_shards.category IS 'The request''s category.';
COMMENT ON COLUMN broadcast_shards.template IS 'The request''s template; empty where it brought its own content.';
COMMENT ON COLUMN broadcast_shards.segment IS 'CEL expression of who is meant; empty: everyone with a profile.';
COMMENT ON COLUMN broadcast_shards.rate IS 'Deliveries a second over all partitions that were asked for at most; null: no bound.';
COMMENT ON COLUMN broadcast_shards.partitions IS 'How many shares the broadcast has.';
COMMENT ON COLUMN broadcast_shards.accepted_at IS 'Time of the request.';
COMMENT ON COLUMN broadcast_shards.send_at IS 'When it was to start; null: at once.';
COMMENT ON COLUMN broadcast_shards.send_at_local IS 'Time of day in each user''s zone; empty: for all at once.';
COMMENT ON COLUMN broadcast_shards.expires_at IS 'Nothing of it is sent later.';
COMMENT ON COLUMN broadcast_shards.request_topic IS 'Where the request stands: topic.';
COMMENT ON COLUMN broadcast_shards.request_partition IS 'Where the request stands: partition.';
COMMENT ON COLUMN broadcast_shards.request_offset IS 'Where the request stands: offset.';
COMMENT ON COLUMN broadcast_shards.state IS 'scheduled, running, paused, walked, cancelled or expired.';
COMMENT ON COLUMN broadcast_shards.settled IS 'True: every delivery of this share has come to an end.';
COMMENT ON COLUMN broadcast_shards.audience IS 'Users that there were when it started.';
COMMENT ON COLUMN broadcast_shards.walked IS 'Users that were looked at.';
COMMENT ON COLUMN broadcast_shards.matched IS 'Users who were meant; each is a delivery, or a dropped duplicate.';
COMMENT ON COLUMN broadcast_shards.segment_errors IS 'Users about whom the segment could not be answered (a missing attribute): not meant.';
COMMENT ON COLUMN broadcast_shards.unwalked IS 'Users who were not looked at when it was cancelled or expired.';
COMMENT ON COLUMN broadcast_shards.started_at IS 'When the first user was looked at.';
COMMENT ON COLUMN broadcast_shards.walked_at IS 'When the last one was.';
COMMENT ON COLUMN broadcast_shards.progressed_at IS 'Time of the fact that this row is from.';

CREATE TABLE broadcast_skips (
    notification_id text    NOT NULL,
    partition       integer NOT NULL,
    day             date    NOT NULL,
    reason          text    NOT NULL,
    count           bigint  NOT NULL,
    PRIMARY KEY (notification_id, partition, reason, day)
) WITH (fillfactor = 50);
CREATE INDEX broadcast_skips_day ON broadcast_skips (day);
COMMENT ON TABLE broadcast_skips IS 'Deliveries of broadcasts that were not sent, by why; one row a user partition. Read `broadcasts` instead.';
COMMENT ON COLUMN broadcast_skips.notification_id IS 'The broadcast.';
COMMENT ON COLUMN broadcast_skips.partition IS 'User partition in Kafka.';
COMMENT ON COLUMN broadcast_skips.day IS 'UTC day of the request; old ones are deleted by it.';
COMMENT ON COLUMN broadcast_skips.reason IS 'Why: the reason of the fact, or its status where it gives none.';
COMMENT ON COLUMN broadcast_skips.count IS 'Number of deliveries.';

DROP VIEW conservation;
DROP VIEW broadcasts;
DROP VIEW notifications;

CREATE VIEW notifications AS
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
        min(lane) AS lane, min(category) AS category, min(template) AS template, min(accepted_at) AS accepted_at,
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

CREATE VIEW broadcasts AS
SELECT
    notification_id,
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
    n.sent + n.delivered + n.read                                AS sent,
    n.delivered + n.read                                         AS delivered,
    n.failed,
    n.suppressed + n.expired + n.cancelled                       AS skipped,
    coalesce(k.reasons, '{}') || CASE WHEN n.duplicates > 0 THEN jsonb_build_object('duplicate', n.duplicates) ELSE '{}' END AS skipped_by,
    n.accepted + n.scheduled + n.deferred + n.unknown            AS pending,
    p.per_second                                                 AS walked_per_second,
    CASE WHEN NOT b.settled AND b.running AND NOT b.paused AND p.per_second > 0 AND b.audience > b.walked THEN
        b.progressed_at + make_interval(secs => (b.audience - b.walked) / p.per_second)
    END                                                          AS estimated_end,
    b.accepted_at, b.send_at, b.send_at_local, b.expires_at, b.started_at, b.walked_at,
    CASE WHEN b.settled THEN b.progressed_at END                 AS finished_at
FROM (
    SELECT
        notification_id,
        min(lane) AS lane, min(category) AS category, min(template) AS template, min(segment) AS segment, min(rate) AS rate,
        max(partitions) AS partitions, count(*) AS shares,
        bool_and(settled) AND count(*) = max(partitions) AS settled,
        bool_or(state = 'cancelled') AS cancelled, bool_or(state = 'expired') AS expired, bool_or(state = 'paused') AS paused,
        bool_or(state = 'running') AS running, bool_or(state = 'scheduled') AS scheduled,
        sum(audience)::bigint AS audience, sum(walked)::bigint AS walked, sum(unwalked)::bigint AS unwalked,
        sum(segment_errors)::bigint AS segment_errors,
        min(accepted_at) AS accepted_at, min(send_at) AS send_at, min(send_at_local) AS send_at_local, min(expires_at) AS expires_at,
        min(started_at) AS started_at, CASE WHEN bool_and(walked_at IS NOT NULL) AND count(*) = max(partitions) THEN max(walked_at) END AS walked_at,
        max(progressed_at) AS progressed_at
    FROM broadcast_shards GROUP BY notification_id
) AS b
JOIN notifications AS n USING (notification_id)
LEFT JOIN (
    SELECT notification_id, jsonb_object_agg(reason, count) AS reasons
    FROM (SELECT notification_id, reason, sum(count)::bigint AS count FROM broadcast_skips GROUP BY notification_id, reason) AS summed
    WHERE count <> 0 GROUP BY notification_id
) AS k USING (notification_id)
CROSS JOIN LATERAL (
    SELECT b.walked / nullif(extract(epoch FROM coalesce(b.walked_at, b.progressed_at) - b.started_at), 0)::double precision AS per_second
) AS p;
COMMENT ON VIEW broadcasts IS 'Notifications to a segment or to everyone, and how far they are.';
COMMENT ON COLUMN broadcasts.notification_id IS 'Key: the request''s id.';
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

CREATE VIEW conservation AS
SELECT notification_id, recipients,
    accepted + scheduled + deferred + unknown + cancelled + suppressed + expired + failed + sent + delivered + read AS counted,
    duplicates, accepted_at
FROM notifications
WHERE recipients <> accepted + scheduled + deferred + unknown + cancelled + suppressed + expired + failed + sent + delivered + read;
COMMENT ON VIEW conservation IS 'Notifications that do not add up. Empty, always, once the projector has caught up. A broadcast adds up by its nature while it runs, and is held to what dispatch counted when it is settled.';
COMMENT ON COLUMN conservation.notification_id IS 'The notification.';
COMMENT ON COLUMN conservation.recipients IS 'Recipients that its requests named.';
COMMENT ON COLUMN conservation.counted IS 'Deliveries and dropped duplicates that are known.';
COMMENT ON COLUMN conservation.duplicates IS 'How many of counted are dropped duplicates.';
COMMENT ON COLUMN conservation.accepted_at IS 'Time of the first request; null where none was read yet.';

-- +goose StatementBegin
DO $$
BEGIN
    EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA %I TO whisper_analyst', current_schema());
END $$;
-- +goose StatementEnd

-- +goose Down
-- Forward only.
