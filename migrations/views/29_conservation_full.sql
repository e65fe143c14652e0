-- revision 1
CREATE OR REPLACE VIEW conservation_full AS
SELECT notification_id, recipients, counted, duplicates, accepted_at
FROM (
    -- The sums of `notifications` without what a first request says, which would have to be sorted for.
    SELECT
        notification_id,
        CASE WHEN NOT bool_and(settled) THEN greatest(coalesce(sum(recipients), 0)::bigint, coalesce(sum(counted), 0)::bigint)
            ELSE coalesce(sum(recipients), 0)::bigint END AS recipients,
        CASE WHEN NOT bool_and(settled) THEN greatest(coalesce(sum(recipients), 0)::bigint, coalesce(sum(counted), 0)::bigint)
            ELSE coalesce(sum(counted), 0)::bigint END AS counted,
        coalesce(sum(duplicates), 0)::bigint AS duplicates,
        min(accepted_at) AS accepted_at
    FROM (
        SELECT notification_id, accepted_at, recipients, NULL::boolean AS settled, NULL::bigint AS counted, NULL::bigint AS duplicates
        FROM notification_requests
        UNION ALL
        SELECT notification_id, min(accepted_at), sum(matched)::bigint, bool_and(settled) AND count(*) = max(partitions), NULL, NULL
        FROM broadcast_shards GROUP BY notification_id, day
        UNION ALL
        SELECT notification_id, NULL, NULL, NULL,
            accepted + scheduled + deferred + unknown + cancelled + suppressed + duplicates + expired + failed + sent + delivered + read, duplicates
        FROM notification_shards
    ) AS parts GROUP BY notification_id
) AS sums WHERE recipients <> counted;
COMMENT ON VIEW conservation_full IS 'What `conservation` says, from all requests and counts instead of the kept balances: for audits, since it reads every notification.';
COMMENT ON COLUMN conservation_full.notification_id IS 'The notification.';
COMMENT ON COLUMN conservation_full.recipients IS 'Recipients that its requests named.';
COMMENT ON COLUMN conservation_full.counted IS 'Deliveries and dropped duplicates that are known.';
COMMENT ON COLUMN conservation_full.duplicates IS 'How many of counted are dropped duplicates.';
COMMENT ON COLUMN conservation_full.accepted_at IS 'Time of the first request; null where none was read yet.';
