-- Every name here is relative to the connection's search_path, never written as whisper.x: the same
-- files build the schema `whisper` and, for a rebuild, another one beside it that is renamed later.

-- +goose Up
-- +goose StatementBegin
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'whisper_analyst') THEN
        CREATE ROLE whisper_analyst NOLOGIN;
    END IF;
EXCEPTION
    -- Roles belong to the whole cluster: another database may be migrating at this moment.
    WHEN duplicate_object OR unique_violation THEN NULL;
    WHEN insufficient_privilege THEN
        RAISE EXCEPTION 'the role whisper_analyst does not exist and % may not create it', current_user
            USING HINT = 'have an administrator run: CREATE ROLE whisper_analyst NOLOGIN';
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
DO $$
BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO whisper_analyst', current_schema());
    EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA %I TO whisper_analyst', current_schema());
    -- Daily partitions and what later migrations create, too.
    EXECUTE format('ALTER DEFAULT PRIVILEGES IN SCHEMA %I GRANT SELECT ON TABLES TO whisper_analyst', current_schema());
    EXECUTE format('COMMENT ON SCHEMA %I IS %L', current_schema(),
        'Whisper''s deliveries, folded from Kafka by `whisper project`. Everything here can be rebuilt from the log.');
END $$;
-- +goose StatementEnd

COMMENT ON TABLE schema_version IS 'Which migrations this schema has had; kept by `whisper migrate`.';
COMMENT ON COLUMN schema_version.id IS 'Order of applying.';
COMMENT ON COLUMN schema_version.version_id IS 'The migration''s number.';
COMMENT ON COLUMN schema_version.is_applied IS 'True: applied.';
COMMENT ON COLUMN schema_version.tstamp IS 'When, in the server''s time zone.';

-- The labels stand in the order of rank: of two facts about a delivery the greater status stands.
CREATE TYPE delivery_status AS ENUM (
    'accepted', 'scheduled', 'deferred', 'unknown', 'cancelled', 'suppressed', 'expired', 'failed',
    'sent', 'delivered', 'read'
);
COMMENT ON TYPE delivery_status IS 'Where a delivery stands; ordered by how much it tells.';

CREATE TABLE checkpoints (
    topic       text        NOT NULL,
    partition   integer     NOT NULL,
    next_offset bigint      NOT NULL,
    updated_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (topic, partition)
);
COMMENT ON TABLE checkpoints IS 'How far the tables of this schema follow the log. Moves in the transaction that writes the rows.';
COMMENT ON COLUMN checkpoints.topic IS 'Kafka topic.';
COMMENT ON COLUMN checkpoints.partition IS 'Kafka partition.';
COMMENT ON COLUMN checkpoints.next_offset IS 'The first offset whose record is not in the tables yet.';
COMMENT ON COLUMN checkpoints.updated_at IS 'When it moved last.';

CREATE TABLE deliveries (
    delivery_id       uuid            NOT NULL,
    day               date            NOT NULL,
    notification_id   text            NOT NULL,
    user_id           text            NOT NULL,
    lane              text            NOT NULL,
    category          text,
    status            delivery_status NOT NULL,
    reason            text,
    channel           text,
    attempts          integer         NOT NULL,
    accepted_at       timestamptz     NOT NULL,
    sent_at           timestamptz,
    delivered_at      timestamptz,
    read_at           timestamptz,
    settled_at        timestamptz,
    pushed_at         timestamptz,
    ended_at          timestamptz,
    noted_status      delivery_status,
    noted_at          timestamptz,
    note              text,
    request_topic     text,
    request_partition integer,
    request_offset    bigint,
    PRIMARY KEY (delivery_id, day)
) PARTITION BY RANGE (day);
CREATE INDEX deliveries_user ON deliveries (user_id, accepted_at);
CREATE INDEX deliveries_notification ON deliveries (notification_id, user_id);
COMMENT ON TABLE deliveries IS 'One notification for one user, with its latest status. Partitioned by day.';
COMMENT ON COLUMN deliveries.delivery_id IS 'Key: 48 bits of the request''s time in Unix milliseconds, then 80 bits of a hash of notification and user.';
COMMENT ON COLUMN deliveries.day IS 'UTC day of accepted_at; the partition. Give it, or accepted_at''s day, to read one partition only.';
COMMENT ON COLUMN deliveries.notification_id IS 'The request''s id.';
COMMENT ON COLUMN deliveries.user_id IS 'The recipient.';
COMMENT ON COLUMN deliveries.lane IS 'high, normal or low.';
COMMENT ON COLUMN deliveries.category IS 'The request''s category; null until the accepted record was read.';
COMMENT ON COLUMN deliveries.status IS 'The most telling of all facts: accepted, scheduled, deferred and unknown are pending; the others are ends.';
COMMENT ON COLUMN deliveries.reason IS 'Why it stands there: of a wait, an end without sending, or `unacknowledged` where a socket took it and nobody answered.';
COMMENT ON COLUMN deliveries.channel IS 'Channel of the last attempt; null before the first.';
COMMENT ON COLUMN deliveries.attempts IS 'Highest number of an attempt that was answered.';
COMMENT ON COLUMN deliveries.accepted_at IS 'Time of the request, to the millisecond (it is part of delivery_id).';
COMMENT ON COLUMN deliveries.sent_at IS 'When a socket or a provider first took it.';
COMMENT ON COLUMN deliveries.delivered_at IS 'When a client first acknowledged it.';
COMMENT ON COLUMN deliveries.read_at IS 'When the person first saw it.';
COMMENT ON COLUMN deliveries.settled_at IS 'When it reached an end: sent for push, delivered (or read) for sockets, or the end without sending.';
COMMENT ON COLUMN deliveries.pushed_at IS 'When a push provider first took it (feeds settled_at).';
COMMENT ON COLUMN deliveries.ended_at IS 'When it was first called failed, suppressed, expired or cancelled (feeds settled_at).';
COMMENT ON COLUMN deliveries.noted_status IS 'Highest status below sent that any fact claimed (feeds reason).';
COMMENT ON COLUMN deliveries.noted_at IS 'Time of the last fact that claimed noted_status.';
COMMENT ON COLUMN deliveries.note IS 'Reason that that fact gave.';
COMMENT ON COLUMN deliveries.request_topic IS 'Topic of the request record; null until the accepted record was read. Of several requests of one millisecond, the first by position.';
COMMENT ON COLUMN deliveries.request_partition IS 'Partition of the request record.';
COMMENT ON COLUMN deliveries.request_offset IS 'Offset of the request record.';

CREATE TABLE attempts (
    delivery_id uuid        NOT NULL,
    day         date        NOT NULL,
    attempt     integer     NOT NULL,
    target      text        NOT NULL,
    channel     text        NOT NULL,
    provider    text        NOT NULL,
    outcome     text        NOT NULL,
    reason      text,
    status      integer,
    latency_ms  double precision,
    at          timestamptz NOT NULL,
    PRIMARY KEY (delivery_id, attempt, target, day)
) PARTITION BY RANGE (day);
CREATE INDEX attempts_at ON attempts USING brin (at) WITH (pages_per_range = 32, autosummarize = on);
COMMENT ON TABLE attempts IS 'One try of a delivery on one endpoint or node. Partitioned by the delivery''s day.';
COMMENT ON COLUMN attempts.delivery_id IS 'The delivery.';
COMMENT ON COLUMN attempts.day IS 'The delivery''s day; the partition.';
COMMENT ON COLUMN attempts.attempt IS 'Number of the try under the delivery, from 1.';
COMMENT ON COLUMN attempts.target IS 'Name of the user''s endpoint (push) or of the gateway node (sockets); empty where the fact names none.';
COMMENT ON COLUMN attempts.channel IS 'socket, apns, fcm, ...';
COMMENT ON COLUMN attempts.provider IS 'Who was asked; empty for sockets.';
COMMENT ON COLUMN attempts.outcome IS 'delivered, sent, or the class of failure: unreachable, retry, drop, prune, stop, unknown, expired. Of several facts the most telling one.';
COMMENT ON COLUMN attempts.reason IS 'The provider''s own word for a failure, or ours.';
COMMENT ON COLUMN attempts.status IS 'The provider''s status code of a failure, where it has one.';
COMMENT ON COLUMN attempts.latency_ms IS 'Milliseconds from taking the attempt up to its answer.';
COMMENT ON COLUMN attempts.at IS 'When it was answered first.';

CREATE TABLE timeline (
    delivery_id uuid        NOT NULL,
    day         date        NOT NULL,
    at          timestamptz NOT NULL,
    kind        text        NOT NULL,
    detail      jsonb       NOT NULL,
    topic       text        NOT NULL,
    partition   integer     NOT NULL,
    "offset"    bigint      NOT NULL,
    cause       text,
    traceparent text
) PARTITION BY RANGE (day);
CREATE INDEX timeline_delivery ON timeline (delivery_id);
COMMENT ON TABLE timeline IS 'One record of the log about one delivery. A fact that was written twice stands here twice. Partitioned by the delivery''s day.';
COMMENT ON COLUMN timeline.delivery_id IS 'The delivery.';
COMMENT ON COLUMN timeline.day IS 'The delivery''s day; the partition.';
COMMENT ON COLUMN timeline.at IS 'When it happened, by the writer''s clock.';
COMMENT ON COLUMN timeline.kind IS 'Name of the fact, as in the record''s header `event`.';
COMMENT ON COLUMN timeline.detail IS 'What the fact says beside its ids. Never contents, variables or tokens: those stay in Kafka.';
COMMENT ON COLUMN timeline.topic IS 'Where the record stands: topic.';
COMMENT ON COLUMN timeline.partition IS 'Where the record stands: partition.';
COMMENT ON COLUMN timeline."offset" IS 'Where the record stands: offset.';
COMMENT ON COLUMN timeline.cause IS 'Position of the record that made the writer write this: topic/partition/offset.';
COMMENT ON COLUMN timeline.traceparent IS 'W3C trace context of the record.';

CREATE TABLE notification_requests (
    day             date        NOT NULL,
    topic           text        NOT NULL,
    partition       integer     NOT NULL,
    "offset"        bigint      NOT NULL,
    notification_id text        NOT NULL,
    lane            text        NOT NULL,
    category        text        NOT NULL,
    template        text        NOT NULL,
    kind            text        NOT NULL,
    accepted_at     timestamptz NOT NULL,
    recipients      bigint      NOT NULL,
    PRIMARY KEY (topic, partition, "offset", day)
) PARTITION BY RANGE (day);
CREATE INDEX notification_requests_notification ON notification_requests (notification_id);
COMMENT ON TABLE notification_requests IS 'One accepted request record; several may carry one notification id. Partitioned by day. Read `notifications` instead.';
COMMENT ON COLUMN notification_requests.day IS 'UTC day of accepted_at; the partition.';
COMMENT ON COLUMN notification_requests.topic IS 'Where the request stands: topic.';
COMMENT ON COLUMN notification_requests.partition IS 'Where the request stands: partition.';
COMMENT ON COLUMN notification_requests."offset" IS 'Where the request stands: offset.';
COMMENT ON COLUMN notification_requests.notification_id IS 'The request''s id.';
COMMENT ON COLUMN notification_requests.lane IS 'high, normal or low.';
COMMENT ON COLUMN notification_requests.category IS 'The request''s category.';
COMMENT ON COLUMN notification_requests.template IS 'The request''s template; empty where it brought its own content.';
COMMENT ON COLUMN notification_requests.kind IS 'direct (a list of users) or broadcast.';
COMMENT ON COLUMN notification_requests.accepted_at IS 'Time of the request.';
COMMENT ON COLUMN notification_requests.recipients IS 'How many recipients it named.';

CREATE TABLE notification_shards (
    notification_id text    NOT NULL,
    day             date    NOT NULL,
    partition       integer NOT NULL,
    accepted        bigint  NOT NULL DEFAULT 0,
    scheduled       bigint  NOT NULL DEFAULT 0,
    deferred        bigint  NOT NULL DEFAULT 0,
    unknown         bigint  NOT NULL DEFAULT 0,
    cancelled       bigint  NOT NULL DEFAULT 0,
    suppressed      bigint  NOT NULL DEFAULT 0,
    expired         bigint  NOT NULL DEFAULT 0,
    failed          bigint  NOT NULL DEFAULT 0,
    sent            bigint  NOT NULL DEFAULT 0,
    delivered       bigint  NOT NULL DEFAULT 0,
    read            bigint  NOT NULL DEFAULT 0,
    duplicates      bigint  NOT NULL DEFAULT 0,
    PRIMARY KEY (notification_id, partition, day)
) PARTITION BY RANGE (day);
COMMENT ON TABLE notification_shards IS 'Deliveries of a notification by status, one row a user partition, so that projectors do not wait for each other. Read `notifications` instead.';
COMMENT ON COLUMN notification_shards.notification_id IS 'The notification.';
COMMENT ON COLUMN notification_shards.day IS 'Day of the deliveries counted here; the partition of the table.';
COMMENT ON COLUMN notification_shards.partition IS 'User partition in Kafka.';
COMMENT ON COLUMN notification_shards.accepted IS 'Deliveries that stand at accepted.';
COMMENT ON COLUMN notification_shards.scheduled IS 'Deliveries that stand at scheduled.';
COMMENT ON COLUMN notification_shards.deferred IS 'Deliveries that stand at deferred.';
COMMENT ON COLUMN notification_shards.unknown IS 'Deliveries that stand at unknown.';
COMMENT ON COLUMN notification_shards.cancelled IS 'Deliveries that stand at cancelled.';
COMMENT ON COLUMN notification_shards.suppressed IS 'Deliveries that stand at suppressed.';
COMMENT ON COLUMN notification_shards.expired IS 'Deliveries that stand at expired.';
COMMENT ON COLUMN notification_shards.failed IS 'Deliveries that stand at failed.';
COMMENT ON COLUMN notification_shards.sent IS 'Deliveries that stand at sent.';
COMMENT ON COLUMN notification_shards.delivered IS 'Deliveries that stand at delivered.';
COMMENT ON COLUMN notification_shards.read IS 'Deliveries that stand at read.';
COMMENT ON COLUMN notification_shards.duplicates IS 'Recipients of later requests that were dropped as duplicates.';

CREATE TABLE duplicates (
    notification_id text        NOT NULL,
    user_id         text        NOT NULL,
    topic           text        NOT NULL,
    partition       integer     NOT NULL,
    "offset"        bigint      NOT NULL,
    delivery_id     uuid        NOT NULL,
    day             date        NOT NULL,
    at              timestamptz NOT NULL,
    PRIMARY KEY (notification_id, user_id, topic, partition, "offset")
);
CREATE INDEX duplicates_day ON duplicates (day);
COMMENT ON TABLE duplicates IS 'One recipient of one later request that was dropped because the delivery exists already.';
COMMENT ON COLUMN duplicates.notification_id IS 'The notification that both requests name.';
COMMENT ON COLUMN duplicates.user_id IS 'The recipient.';
COMMENT ON COLUMN duplicates.topic IS 'Where the dropped request stands: topic.';
COMMENT ON COLUMN duplicates.partition IS 'Where the dropped request stands: partition.';
COMMENT ON COLUMN duplicates."offset" IS 'Where the dropped request stands: offset.';
COMMENT ON COLUMN duplicates.delivery_id IS 'The delivery that existed already.';
COMMENT ON COLUMN duplicates.day IS 'UTC day of at; old ones are deleted by it.';
COMMENT ON COLUMN duplicates.at IS 'When it was dropped.';

CREATE TABLE early_facts (
    topic           text        NOT NULL,
    partition       integer     NOT NULL,
    "offset"        bigint      NOT NULL,
    notification_id text        NOT NULL,
    user_id         text        NOT NULL,
    at              timestamptz NOT NULL,
    event           bytea       NOT NULL,
    traceparent     text,
    PRIMARY KEY (topic, partition, "offset")
);
CREATE INDEX early_facts_delivery ON early_facts (notification_id, user_id);
COMMENT ON TABLE early_facts IS 'Facts that name no time of their delivery and were read before anything else of it. They wait here for it; normally empty.';
COMMENT ON COLUMN early_facts.topic IS 'Where the record stands: topic.';
COMMENT ON COLUMN early_facts.partition IS 'Where the record stands: partition.';
COMMENT ON COLUMN early_facts."offset" IS 'Where the record stands: offset.';
COMMENT ON COLUMN early_facts.notification_id IS 'The notification.';
COMMENT ON COLUMN early_facts.user_id IS 'The recipient.';
COMMENT ON COLUMN early_facts.at IS 'When it happened; old ones are deleted by it.';
COMMENT ON COLUMN early_facts.event IS 'The record''s value (whisper.v1.Event).';
COMMENT ON COLUMN early_facts.traceparent IS 'W3C trace context of the record.';

CREATE TABLE delivery_stat_shards (
    day       date            NOT NULL,
    minute    timestamptz     NOT NULL,
    lane      text            NOT NULL,
    category  text            NOT NULL,
    channel   text            NOT NULL,
    status    delivery_status NOT NULL,
    partition integer         NOT NULL,
    count     bigint          NOT NULL,
    latencies bigint[],
    PRIMARY KEY (minute, lane, category, channel, status, partition, day)
) PARTITION BY RANGE (day);
COMMENT ON TABLE delivery_stat_shards IS 'delivery_stats, one row a user partition. Read `delivery_stats` instead.';
COMMENT ON COLUMN delivery_stat_shards.day IS 'UTC day of minute; the partition of the table.';
COMMENT ON COLUMN delivery_stat_shards.minute IS 'Minute of the requests.';
COMMENT ON COLUMN delivery_stat_shards.lane IS 'high, normal or low.';
COMMENT ON COLUMN delivery_stat_shards.category IS 'Category; empty until the accepted record was read.';
COMMENT ON COLUMN delivery_stat_shards.channel IS 'Channel of the last attempt; empty before the first.';
COMMENT ON COLUMN delivery_stat_shards.status IS 'Where the deliveries counted here stand now.';
COMMENT ON COLUMN delivery_stat_shards.partition IS 'User partition in Kafka.';
COMMENT ON COLUMN delivery_stat_shards.count IS 'Number of deliveries.';
COMMENT ON COLUMN delivery_stat_shards.latencies IS 'Deliveries by time from the request to that status: bucket i holds up to 1.5^(i-1) ms. Null for pending statuses.';

-- +goose StatementBegin
CREATE FUNCTION add_buckets(a bigint[], b bigint[]) RETURNS bigint[]
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT CASE WHEN a IS NULL THEN b WHEN b IS NULL THEN a
        ELSE ARRAY(SELECT coalesce(x, 0) + coalesce(y, 0) FROM unnest(a, b) WITH ORDINALITY AS u(x, y, i) ORDER BY i) END;
END;
-- +goose StatementEnd
COMMENT ON FUNCTION add_buckets IS 'Adds two histograms.';

CREATE AGGREGATE sum_buckets(bigint[]) (sfunc = add_buckets, stype = bigint[], combinefunc = add_buckets, parallel = safe);
COMMENT ON AGGREGATE sum_buckets(bigint[]) IS 'Adds histograms.';

-- +goose StatementBegin
CREATE FUNCTION latency_quantile(buckets bigint[], q double precision) RETURNS double precision
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT power(1.5, i - 2 + (q * total - (upto - n))::double precision / n)
    FROM (
        SELECT i, n, sum(n) OVER (ORDER BY i) AS upto, sum(n) OVER () AS total
        FROM unnest(buckets) WITH ORDINALITY AS u(n, i)
    ) AS cumulated
    WHERE n > 0 AND upto >= q * total
    ORDER BY i LIMIT 1;
END;
-- +goose StatementEnd
COMMENT ON FUNCTION latency_quantile IS 'A quantile in ms, interpolated within its bucket: at most a factor 1.5 off.';

-- +goose Down
-- Forward only: a rebuild makes everything here again from the log.
