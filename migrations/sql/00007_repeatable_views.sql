-- +goose Up
-- From here on views stand in files of their own, which `whisper migrate` applies where their revision has grown.
CREATE TABLE schema_views (
    name       text        PRIMARY KEY,
    revision   integer     NOT NULL,
    applied_at timestamptz NOT NULL
);
COMMENT ON TABLE schema_views IS 'Which revision of each view this schema has; kept by `whisper migrate`.';
COMMENT ON COLUMN schema_views.name IS 'File of the view.';
COMMENT ON COLUMN schema_views.revision IS 'The revision that its first line names.';
COMMENT ON COLUMN schema_views.applied_at IS 'When it was applied.';

-- +goose Down
-- Forward only.
