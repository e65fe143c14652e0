-- +goose Up
-- What /v1/health asks every few seconds; counting attempts for it took a second of Postgres at 5,000 a second.
CREATE TABLE answer_shards (
    minute  timestamptz NOT NULL,
    channel text        NOT NULL,
    outcome text        NOT NULL,
    shard   integer     NOT NULL,
    count   bigint      NOT NULL,
    PRIMARY KEY (minute, channel, outcome, shard)
) WITH (fillfactor = 50);
COMMENT ON TABLE answer_shards IS 'Answers of sockets and providers by the minute. An attempt that was answered twice (unknown, later sent) counts twice, and so does a fact that was written twice.';
COMMENT ON COLUMN answer_shards.minute IS 'Minute of the answer; old ones are deleted by it.';
COMMENT ON COLUMN answer_shards.channel IS 'socket, apns, fcm, ...';
COMMENT ON COLUMN answer_shards.outcome IS 'As in attempts, but sent also where a client has acknowledged it since.';
COMMENT ON COLUMN answer_shards.shard IS 'A user partition that the writing transaction had to itself, so that projectors do not wait for each other.';
COMMENT ON COLUMN answer_shards.count IS 'Number of answers.';

-- +goose Down
-- Forward only.
