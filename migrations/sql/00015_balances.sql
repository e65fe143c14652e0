-- +goose Up
-- What is missing of a notification, kept instead of recomputed. A transaction adds a row only where what it writes does not add up by itself: the
-- usual one, a request and its deliveries at once, adds none. Rows are only ever added, so nobody waits for anybody; the projector that merges counts
-- adds them up, and those that come to nothing are gone.
CREATE TABLE notification_balances (
    notification_id text   NOT NULL,
    day             date   NOT NULL,
    balance         bigint NOT NULL
);
COMMENT ON TABLE notification_balances IS 'Recipients minus deliveries and dropped duplicates, of notifications where that is not 0 yet. Only sums over all rows of a notification say something. Read `conservation` instead.';
COMMENT ON COLUMN notification_balances.notification_id IS 'The notification.';
COMMENT ON COLUMN notification_balances.day IS 'UTC day of the requests and deliveries counted here; old ones are deleted by it.';
COMMENT ON COLUMN notification_balances.balance IS 'By how much recipients changed more than what is counted.';

CREATE TABLE balanced_days (
    day date PRIMARY KEY
);
COMMENT ON TABLE balanced_days IS 'Days whose notifications were counted once since notification_balances is kept.';
COMMENT ON COLUMN balanced_days.day IS 'UTC day.';

-- Projectors of the version before keep no balances. While one runs beside, the statements of its transactions do it.
-- +goose StatementBegin
CREATE FUNCTION keep_balances() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    counted CONSTANT text := CASE TG_TABLE_NAME
        WHEN 'notification_requests' THEN 'recipients'
        WHEN 'broadcast_shards' THEN 'matched'
        ELSE '-(accepted + scheduled + deferred + unknown + cancelled + suppressed + expired + failed + sent + delivered + read + duplicates)'
    END;
BEGIN
    EXECUTE format(
        'INSERT INTO %I.notification_balances SELECT notification_id, day, sum(n) FROM (SELECT notification_id, day, %s AS n FROM added%s) AS t GROUP BY 1, 2 HAVING sum(n) <> 0',
        TG_TABLE_SCHEMA, counted, CASE WHEN TG_OP = 'UPDATE' THEN format(' UNION ALL SELECT notification_id, day, -(%s) FROM removed', counted) ELSE '' END);
    RETURN NULL;
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION keep_balances IS 'Keeps notification_balances for transactions that do not do it themselves.';
CREATE TRIGGER balances_of_requests AFTER INSERT ON notification_requests REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT WHEN (current_setting('whisper.balances', true) IS DISTINCT FROM 'kept') EXECUTE FUNCTION keep_balances();
CREATE TRIGGER balances_of_new_counts AFTER INSERT ON notification_shards REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT WHEN (current_setting('whisper.balances', true) IS DISTINCT FROM 'kept') EXECUTE FUNCTION keep_balances();
CREATE TRIGGER balances_of_counts AFTER UPDATE ON notification_shards REFERENCING NEW TABLE AS added OLD TABLE AS removed
    FOR EACH STATEMENT WHEN (current_setting('whisper.balances', true) IS DISTINCT FROM 'kept') EXECUTE FUNCTION keep_balances();
CREATE TRIGGER balances_of_new_broadcasts AFTER INSERT ON broadcast_shards REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT WHEN (current_setting('whisper.balances', true) IS DISTINCT FROM 'kept') EXECUTE FUNCTION keep_balances();
CREATE TRIGGER balances_of_broadcasts AFTER UPDATE ON broadcast_shards REFERENCING NEW TABLE AS added OLD TABLE AS removed
    FOR EACH STATEMENT WHEN (current_setting('whisper.balances', true) IS DISTINCT FROM 'kept') EXECUTE FUNCTION keep_balances();

-- A rebuild puts all checkpoints in the place of others; one of the version before brings no balances along. So the days are counted once more.
-- +goose StatementBegin
CREATE FUNCTION count_balances_anew() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('DELETE FROM %I.balanced_days', TG_TABLE_SCHEMA);
    RETURN NULL;
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION count_balances_anew IS 'Has the next projector that adds balances up count every day.';
CREATE TRIGGER balances_of_a_rebuild AFTER DELETE ON checkpoints FOR EACH STATEMENT EXECUTE FUNCTION count_balances_anew();

-- When what a gap lacks was written: between the last record that was read before it and the first one after it.
ALTER TABLE checkpoints ADD COLUMN record_at timestamptz;
COMMENT ON COLUMN checkpoints.record_at IS 'Kafka''s time of a record before next_offset, the last one as far as it is known.';
ALTER TABLE gaps ADD COLUMN since timestamptz, ADD COLUMN until timestamptz;
COMMENT ON COLUMN gaps.since IS 'Kafka''s time of the last record that was read before it: nothing in the gap is older. Null: not known.';
COMMENT ON COLUMN gaps.until IS 'Kafka''s time of the first record that was read after it: nothing in the gap is younger. Null: not known yet; then at is a bound.';

-- +goose Down
-- Forward only.
