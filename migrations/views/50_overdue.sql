-- revision 4
CREATE OR REPLACE VIEW overdue AS
SELECT d.delivery_id, d.day, d.notification_id, d.user_id, d.lane, d.category, d.status, d.reason, d.channel, d.attempts, d.accepted_at, d.expires_at,
    EXISTS (
        -- Its end was written up to a day after its time, by whatever was late.
        SELECT FROM gaps AS g
        WHERE coalesce(g.until, g.at) >= d.accepted_at AND (g.since IS NULL OR g.since <= d.expires_at + interval '1 day')
            AND g.partition = (SELECT l.partition FROM timeline AS l WHERE l.delivery_id = d.delivery_id AND l.day = d.day LIMIT 1)
    ) AS gap
FROM deliveries AS d
-- The first two conditions follow from the third. They are those of the index deliveries_pending.
WHERE d.sent_at IS NULL AND d.ended_at IS NULL AND d.status < 'cancelled' AND d.expires_at < now() - interval '10 minutes';
COMMENT ON VIEW overdue IS 'Deliveries that are pending though they expired more than ten minutes ago: their facts were lost, or dispatch does not do its work. Empty, always, once the projector has caught up.';
COMMENT ON COLUMN overdue.delivery_id IS 'The delivery.';
COMMENT ON COLUMN overdue.day IS 'UTC day of accepted_at.';
COMMENT ON COLUMN overdue.notification_id IS 'The request''s id.';
COMMENT ON COLUMN overdue.user_id IS 'The recipient.';
COMMENT ON COLUMN overdue.lane IS 'high, normal or low.';
COMMENT ON COLUMN overdue.category IS 'The request''s category.';
COMMENT ON COLUMN overdue.status IS 'accepted, scheduled, deferred or unknown.';
COMMENT ON COLUMN overdue.reason IS 'Why it waits.';
COMMENT ON COLUMN overdue.channel IS 'Channel of the last attempt; null before the first.';
COMMENT ON COLUMN overdue.attempts IS 'Highest number of an attempt that was answered.';
COMMENT ON COLUMN overdue.accepted_at IS 'Time of the request.';
COMMENT ON COLUMN overdue.expires_at IS 'When it should have come to an end.';
COMMENT ON COLUMN overdue.gap IS 'True: Kafka''s retention removed records of its user''s partition and of that time before the projector read them (see gaps), and its end may have been among them. False: it was not.';
