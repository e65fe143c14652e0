-- +goose Up
-- Whose a dropped duplicate is, is judged by the time of the request that it stands for, as that request's own row is: an
-- erasure may lie between the two requests. NULL in rows of versions before, and where the fact does not tell it: then at.
ALTER TABLE duplicates ADD COLUMN IF NOT EXISTS requested_at timestamptz;

COMMENT ON COLUMN duplicates.requested_at IS 'When the request that was dropped was made; NULL where the fact does not tell it.';

-- +goose Down
-- Forward only.
