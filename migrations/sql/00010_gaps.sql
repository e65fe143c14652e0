-- +goose Up
CREATE TABLE gaps (
    topic       text        NOT NULL,
    partition   integer     NOT NULL,
    from_offset bigint      NOT NULL,
    to_offset   bigint      NOT NULL,
    at          timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (topic, partition, from_offset)
);
COMMENT ON TABLE gaps IS 'Records that Kafka''s retention removed before the projector read them. What they said is in no table: deliveries stand where the facts before left them.';
COMMENT ON COLUMN gaps.topic IS 'Kafka topic.';
COMMENT ON COLUMN gaps.partition IS 'Kafka partition.';
COMMENT ON COLUMN gaps.from_offset IS 'The first offset that is missing.';
COMMENT ON COLUMN gaps.to_offset IS 'The first offset after them that was read.';
COMMENT ON COLUMN gaps.at IS 'When that was found out.';
COMMENT ON COLUMN duplicates.day IS 'UTC day of the dropped request, where the fact tells it, else of at; old ones are deleted by it.';

-- +goose Down
-- Forward only.
