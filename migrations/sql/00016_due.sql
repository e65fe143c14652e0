-- +goose Up
-- Not in an index: an update that sets it stays within its page.
ALTER TABLE deliveries ADD COLUMN due_at timestamptz;
COMMENT ON COLUMN deliveries.due_at IS 'Since when nothing but Whisper held back what was sent first: the end of its schedule, of quiet hours, of a cap, or the return of its user; accepted_at where nothing did. sent_at - due_at is how long Whisper took. Null until it was sent, and in rows from before this column.';

-- +goose Down
-- Forward only.
