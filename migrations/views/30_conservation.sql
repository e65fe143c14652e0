-- revision 2
CREATE OR REPLACE VIEW conservation AS
SELECT b.notification_id, f.recipients, f.counted, f.duplicates, f.accepted_at,
    EXISTS (
        SELECT FROM gaps AS g
        WHERE coalesce(g.until, g.at) >= coalesce(f.accepted_at, b.day) AND (g.since IS NULL OR g.since <= coalesce(f.accepted_at, b.day) + interval '1 day')
    ) AS gap
FROM (
    -- Those whose kept balance is not 0: what is not complete yet, running broadcasts, and what is wrong.
    SELECT notification_id, min(day)::timestamp AT TIME ZONE 'UTC' AS day FROM notification_balances GROUP BY notification_id HAVING sum(balance) <> 0
) AS b
CROSS JOIN LATERAL (
    SELECT * FROM conservation_full AS f WHERE f.notification_id = b.notification_id OFFSET 0
) AS f;
COMMENT ON VIEW conservation IS 'Notifications that do not add up. Empty, always, once the projector has caught up. A broadcast adds up by its nature while it runs, and is held to what dispatch counted when it is settled. Days from before balances were kept are looked through within minutes of the first start.';
COMMENT ON COLUMN conservation.notification_id IS 'The notification.';
COMMENT ON COLUMN conservation.recipients IS 'Recipients that its requests named.';
COMMENT ON COLUMN conservation.counted IS 'Deliveries and dropped duplicates that are known.';
COMMENT ON COLUMN conservation.duplicates IS 'How many of counted are dropped duplicates.';
COMMENT ON COLUMN conservation.accepted_at IS 'Time of the first request; null where none was read yet.';
COMMENT ON COLUMN conservation.gap IS 'True: Kafka''s retention removed records of that time before the projector read them (see gaps), and what is missing may have been among them. False: it was not.';
