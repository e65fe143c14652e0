package projections

import "context"

// beats compares rank, class, reason and code as [attempt.beats] does: a total order.
const beats = `(
	(CASE EXCLUDED.outcome WHEN 'delivered' THEN 4 WHEN 'sent' THEN 3 WHEN 'unknown' THEN 1 ELSE 2 END,
		EXCLUDED.outcome COLLATE "C", coalesce(EXCLUDED.reason, '') COLLATE "C", coalesce(EXCLUDED.status, 0))
	> (CASE a.outcome WHEN 'delivered' THEN 4 WHEN 'sent' THEN 3 WHEN 'unknown' THEN 1 ELSE 2 END,
		a.outcome COLLATE "C", coalesce(a.reason, '') COLLATE "C", coalesce(a.status, 0)))`

// writeAttempts upserts; where the table has the attempt already, SQL merges as [attempt.merge] does.
func (t *transaction) writeAttempts(ctx context.Context) error {
	if len(t.attempts) == 0 {
		return nil
	}
	cols := arrays(oidUUID, oidDate, oidInt4, oidText, oidText, oidText, oidText, oidText, oidInt4, oidFloat8, oidTimestamp)
	for _, key := range sorted(t.attempts, compareAttempts) {
		a := t.attempts[key]
		f := cols.add()
		f[0].uuid(a.id)
		f[1].day(dayOf(a.id))
		f[2].int4(a.number)
		f[3].text(a.target)
		f[4].text(a.channel)
		f[5].text(a.provider)
		f[6].text(a.outcome)
		f[7].optional(a.reason)
		if a.status == 0 {
			f[8].null()
		} else {
			f[8].int4(a.status)
		}
		if a.latencyUS == 0 {
			f[9].null()
		} else {
			f[9].float(float64(a.latencyUS) / 1000)
		}
		f[10].int8(a.at - pgEpochUS)
	}
	_, err := t.run(ctx, t.tx, `
		INSERT INTO $.attempts AS a (delivery_id, day, attempt, target, channel, provider, outcome, reason, status, latency_ms, at)
		SELECT * FROM unnest($1::uuid[], $2::date[], $3::int4[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::int4[],
			$10::float8[], $11::timestamptz[])
		ON CONFLICT (delivery_id, attempt, target, day) DO UPDATE SET
			outcome    = CASE WHEN `+beats+` THEN EXCLUDED.outcome ELSE a.outcome END,
			reason     = CASE WHEN `+beats+` THEN EXCLUDED.reason ELSE a.reason END,
			status     = CASE WHEN `+beats+` THEN EXCLUDED.status ELSE a.status END,
			channel    = CASE WHEN `+beats+` THEN EXCLUDED.channel ELSE a.channel END,
			provider   = CASE WHEN `+beats+` THEN EXCLUDED.provider ELSE a.provider END,
			latency_ms = greatest(a.latency_ms, EXCLUDED.latency_ms),
			at         = least(a.at, EXCLUDED.at)`, cols.params()...)
	return err
}
