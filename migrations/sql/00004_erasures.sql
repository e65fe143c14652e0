-- +goose Up
CREATE TABLE erasures (
    partition integer     NOT NULL,
    "offset"  bigint      NOT NULL,
    user_hash bytea       NOT NULL,
    alias     text        NOT NULL,
    at        timestamptz NOT NULL,
    PRIMARY KEY (partition, "offset")
);
CREATE INDEX erasures_user ON erasures (user_hash);
CREATE INDEX erasures_at ON erasures (at);
COMMENT ON TABLE erasures IS 'Users who were erased: facts about their earlier deliveries that are read later are told under the alias, too. Kept as long as such facts are.';
COMMENT ON COLUMN erasures.partition IS 'Where the erasure stands in whisper.changes: partition.';
COMMENT ON COLUMN erasures."offset" IS 'Where the erasure stands in whisper.changes: offset.';
COMMENT ON COLUMN erasures.user_hash IS 'SHA-256 of the user id, cut to 16 bytes.';
COMMENT ON COLUMN erasures.alias IS 'What stands in place of the user id now. Made of the position, not of the user.';
COMMENT ON COLUMN erasures.at IS 'When the user was erased; what was accepted until then is told under the alias.';
CREATE INDEX duplicates_user ON duplicates (user_id);
CREATE INDEX early_facts_user ON early_facts (user_id);

-- +goose Down
-- Forward only.
