-- +goose Up
-- A hash of a user id is confirmed by whoever guesses the id. With a key in it, only by who has the key.
CREATE TABLE erasure_keys (
    key     bytea       NOT NULL,
    made_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO erasure_keys (key) SELECT sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()));
COMMENT ON TABLE erasure_keys IS 'The key of the hashes in erasures; one row. A rebuild takes it over. Not for analysts.';
COMMENT ON COLUMN erasure_keys.key IS '32 random bytes.';
COMMENT ON COLUMN erasure_keys.made_at IS 'When it was made. For an hour after that hashes are still written without it, for projectors of the version before.';

ALTER TABLE erasures ADD COLUMN keyed boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN erasures.keyed IS 'True: user_hash is SHA-256 of the key and of the hash of the user id, cut to 16 bytes. False: it has no key yet.';

-- +goose StatementBegin
DO $$
BEGIN
    EXECUTE format('REVOKE SELECT ON %I.erasure_keys, %1$I.erasures, %1$I.early_facts, %1$I.checkpoints FROM whisper_analyst', current_schema());
END $$;
-- +goose StatementEnd

-- +goose Down
-- Forward only.
