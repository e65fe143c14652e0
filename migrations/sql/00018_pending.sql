-- +goose Up
-- Finds the deliveries that are pending, by the end of their time. What is pending was neither sent nor ended. The condition names these
-- columns and not `status`: an update of a column that an index names gets a new entry in every index of the day, and most updates
-- (sent, delivered, read) change the status of a delivery that is not pending any more.
CREATE INDEX deliveries_pending ON ONLY deliveries (expires_at) WHERE sent_at IS NULL AND ended_at IS NULL;

-- +goose Down
-- Forward only.
