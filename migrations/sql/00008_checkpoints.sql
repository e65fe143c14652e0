-- +goose Up
-- A transaction moves the checkpoint of every partition that it has read of. While somebody holds a snapshot open (a report, a backup), no version
-- of a row that was replaced may be removed, and a search for (topic, partition) looks at all of them: transactions became slower
-- with each one before. With next_offset in the key a transaction looks for the version that it expects, and finds that one only.
-- The statements of projectors stay what they were, so those of the version before may run beside.
CREATE UNIQUE INDEX checkpoints_at ON checkpoints (topic, partition, next_offset);
ALTER TABLE checkpoints DROP CONSTRAINT checkpoints_pkey;
ALTER TABLE checkpoints REPLICA IDENTITY USING INDEX checkpoints_at;
-- Each move leaves a dead row: vacuumed by number, since as a share of the table they are many after a few transactions.
ALTER TABLE checkpoints SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000, autovacuum_vacuum_cost_delay = 0);

-- +goose StatementBegin
CREATE FUNCTION one_checkpoint() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    there boolean;
BEGIN
    -- The key alone would allow two rows of one partition, begun at different offsets by two projectors that start at once.
    PERFORM pg_advisory_xact_lock(hashtextextended(TG_TABLE_SCHEMA || ' checkpoint ' || NEW.topic || '/' || NEW.partition, 0));
    EXECUTE format('SELECT EXISTS (SELECT FROM %I.%I WHERE topic = $1 AND partition = $2)', TG_TABLE_SCHEMA, TG_TABLE_NAME)
        INTO there USING NEW.topic, NEW.partition;
    RETURN CASE WHEN there THEN NULL ELSE NEW END;
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION one_checkpoint IS 'Lets a partition have one checkpoint: a second one is passed over.';
CREATE TRIGGER one_checkpoint BEFORE INSERT ON checkpoints FOR EACH ROW EXECUTE FUNCTION one_checkpoint();

COMMENT ON COLUMN notification_shards.partition IS 'One of the user partitions of the transactions that counted here. Only sums over all rows say something: a row may count below zero.';
COMMENT ON COLUMN delivery_stat_shards.partition IS 'One of the user partitions of the transactions that counted here. Only sums over all rows say something: a row may count below zero.';
COMMENT ON COLUMN broadcast_skips.partition IS 'One of the user partitions of the transactions that counted here. Only sums over all rows say something: a row may count below zero.';

-- +goose Down
-- Forward only.
