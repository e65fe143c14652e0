-- Daily tables that are old are merged into one table a month (projections/months.go). What is under way stands in these two, so that any
-- projector goes on with it after a crash.

-- +goose Up
CREATE TABLE month_merges (
    source         oid    PRIMARY KEY,
    name           text   NOT NULL,
    target         text   NOT NULL,
    schema_version bigint NOT NULL,
    file_node      oid    NOT NULL,
    next_block     bigint NOT NULL DEFAULT 0
);
CREATE INDEX month_merges_target ON month_merges (target);
COMMENT ON TABLE month_merges IS 'Daily tables that are being copied into the table of their month. Empty when nothing is under way.';
COMMENT ON COLUMN month_merges.source IS 'The daily table, as pg_class.oid.';
COMMENT ON COLUMN month_merges.name IS 'Its name.';
COMMENT ON COLUMN month_merges.target IS 'Name of the table of its month.';
COMMENT ON COLUMN month_merges.schema_version IS 'The newest migration when the copy began; after another one it begins again.';
COMMENT ON COLUMN month_merges.file_node IS 'The file of the daily table when the copy began; once it is rewritten, as by VACUUM FULL, it begins again.';
COMMENT ON COLUMN month_merges.next_block IS 'The first block of the daily table that is not copied yet, the largest number once all are. Moves in the transaction that copies.';

CREATE TABLE month_changes (
    source oid  NOT NULL,
    key    text NOT NULL
);
CREATE INDEX month_changes_source ON month_changes (source);
COMMENT ON TABLE month_changes IS 'Rows of daily tables that changed while they were copied: they are copied again. Empty when nothing is under way.';
COMMENT ON COLUMN month_changes.source IS 'The daily table, as pg_class.oid.';
COMMENT ON COLUMN month_changes.key IS 'delivery_id, notification_id or minute of the rows, whichever the table has.';

-- The merge puts this on the daily tables that it copies, so it sees what projectors of every version write.
-- +goose StatementBegin
CREATE FUNCTION note_month_change() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    changed CONSTANT jsonb := CASE WHEN TG_OP = 'DELETE' THEN to_jsonb(OLD) ELSE to_jsonb(NEW) END;
BEGIN
    EXECUTE format('INSERT INTO %I.month_changes (source, key) VALUES ($1, $2)', TG_TABLE_SCHEMA) USING TG_RELID, changed ->> TG_ARGV[0];
    RETURN NULL;
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION note_month_change IS 'Notes in month_changes which rows of a daily table changed; its argument is the column that finds them.';

-- +goose Down
-- Forward only.
