-- +goose Up
ALTER TABLE deliveries ADD COLUMN template text, ADD COLUMN template_version bigint, ADD COLUMN expires_at timestamptz, ADD COLUMN send_at timestamptz,
    ADD COLUMN broadcast boolean;
COMMENT ON COLUMN deliveries.template IS 'The request''s template; empty where it brought its own content; null until the accepted record was read, and in rows from before this column.';
COMMENT ON COLUMN deliveries.template_version IS 'Which version of the template; null where there is none.';
COMMENT ON COLUMN deliveries.expires_at IS 'Nothing of it is sent later; null until the accepted record was read, and in rows from before this column.';
COMMENT ON COLUMN deliveries.send_at IS 'When the request asked to send it; null: at once. Of a broadcast by local time, see broadcasts.';
COMMENT ON COLUMN deliveries.broadcast IS 'True: of a broadcast. Null until the accepted record was read, and in rows from before this column.';

-- None of these has a column that changes when a delivery is sent, delivered or read: such an update stays within its page.
CREATE INDEX deliveries_ended ON ONLY deliveries (noted_status, delivery_id) WHERE ended_at IS NOT NULL;
CREATE INDEX deliveries_accepted ON ONLY deliveries USING brin (accepted_at) WITH (pages_per_range = 32, autosummarize = on);
CREATE INDEX notification_requests_accepted ON ONLY notification_requests USING brin (accepted_at) WITH (pages_per_range = 32, autosummarize = on);

-- +goose StatementBegin
CREATE FUNCTION first_delivery_id(at timestamptz) RETURNS uuid
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT (lpad(to_hex(floor(extract(epoch FROM at) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid;
END;
-- +goose StatementEnd
COMMENT ON FUNCTION first_delivery_id IS 'The least id that a delivery of a request of this time can have: ids are in the order of their requests'' times.';

-- +goose Down
-- Forward only.
