package projections

import (
	"cmp"
	"context"

	"github.com/klivvr/whisper/domain"
)

// shardKey is a row of notification_shards.
type shardKey struct {
	notificationID string
	partition      int32
	day            int32
}

// A shard is what its row changes by.
type shard struct {
	statuses   [len(domain.Statuses)]int64
	duplicates int64
}

type shards map[shardKey]*shard

func (s shards) of(notificationID string, day, partition int32) *shard {
	key := shardKey{notificationID, partition, day}
	sh := s[key]
	if sh == nil {
		sh = &shard{}
		s[key] = sh
	}
	return sh
}

// count moves every count that a row belongs to.
func (t *transaction) count(r *row, partition int32, by int64) {
	t.shards.of(r.notificationID, dayOf(r.id), t.stripe).statuses[r.status] += by
	t.stats.add(r, t.stripe, by)
	t.templates[templateKey{dayOf(r.id), r.template, r.templateVersion, r.status, t.stripe}] += by
	t.skip(r, partition, by)
}

func compareShards(a, b shardKey) int {
	return cmp.Or(cmp.Compare(a.day, b.day), cmp.Compare(a.notificationID, b.notificationID), cmp.Compare(a.partition, b.partition))
}

func (t *transaction) writeShards(ctx context.Context) error {
	elems := []uint32{oidText, oidDate, oidInt4}
	for range len(domain.Statuses) + 1 {
		elems = append(elems, oidInt8)
	}
	cols := arrays(elems...)
	for _, key := range sorted(t.shards, compareShards) {
		s := t.shards[key]
		if *s == (shard{}) {
			continue
		}
		f := cols.add()
		f[0].text(key.notificationID)
		f[1].day(key.day)
		f[2].int4(key.partition)
		balance := balanceKey{key.notificationID, key.day}
		t.balances[balance] -= s.duplicates
		for i, n := range s.statuses {
			f[3+i].int8(n)
			t.balances[balance] -= n
		}
		f[3+len(s.statuses)].int8(s.duplicates)
	}
	if cols.rows == 0 {
		return nil
	}
	_, err := t.run(ctx, t.tx, `
		INSERT INTO $.notification_shards AS s (notification_id, day, partition,
			accepted, scheduled, deferred, unknown, cancelled, suppressed, expired, failed, sent, delivered, read, duplicates)
		SELECT * FROM unnest($1::text[], $2::date[], $3::int4[], $4::int8[], $5::int8[], $6::int8[], $7::int8[], $8::int8[], $9::int8[],
			$10::int8[], $11::int8[], $12::int8[], $13::int8[], $14::int8[], $15::int8[])
		ON CONFLICT (notification_id, partition, day) DO UPDATE SET
			accepted = s.accepted + EXCLUDED.accepted, scheduled = s.scheduled + EXCLUDED.scheduled, deferred = s.deferred + EXCLUDED.deferred,
			unknown = s.unknown + EXCLUDED.unknown, cancelled = s.cancelled + EXCLUDED.cancelled, suppressed = s.suppressed + EXCLUDED.suppressed,
			expired = s.expired + EXCLUDED.expired, failed = s.failed + EXCLUDED.failed, sent = s.sent + EXCLUDED.sent,
			delivered = s.delivered + EXCLUDED.delivered, read = s.read + EXCLUDED.read, duplicates = s.duplicates + EXCLUDED.duplicates`, cols.params()...)
	return err
}

// writeRequests comes late in the transaction: the recipients of one request are spread over all
// partitions, so another projector may be waiting for this row.
func (t *transaction) writeRequests(ctx context.Context) error {
	if len(t.requests) == 0 {
		return nil
	}
	cols := arrays(oidDate, oidText, oidInt4, oidInt8, oidText, oidText, oidText, oidText, oidTimestamp, oidInt8, oidInt8)
	for _, key := range sorted(t.requests, compareRequests) {
		r := t.requests[key]
		f := cols.add()
		f[0].day(key.day)
		f[1].text(key.at.topic)
		f[2].int4(key.at.partition)
		f[3].int8(key.at.offset)
		f[4].text(r.notificationID)
		f[5].text(domain.LaneOf(r.lane).String())
		f[6].text(r.category)
		f[7].text(r.template)
		f[8].int8(r.acceptedAt - pgEpochUS)
		f[9].int8(r.recipients)
		if r.templateVersion > 0 {
			f[10].int8(r.templateVersion)
		} else {
			f[10].null()
		}
	}
	res, err := t.run(ctx, t.tx, `
		INSERT INTO $.notification_requests (day, topic, partition, "offset", notification_id, lane, category, template, kind,
			accepted_at, recipients, template_version)
		SELECT day, topic, partition, "offset", notification_id, lane, category, template, 'direct', accepted_at, recipients, template_version
		FROM unnest($1::date[], $2::text[], $3::int4[], $4::int8[], $5::text[], $6::text[], $7::text[], $8::text[], $9::timestamptz[],
			$10::int8[], $11::int8[])
			AS k(day, topic, partition, "offset", notification_id, lane, category, template, accepted_at, recipients, template_version)
		ON CONFLICT DO NOTHING RETURNING notification_id, day, recipients`, cols.params()...)
	if err != nil {
		return err
	}
	for _, v := range res.Rows { // only what was not there
		t.balances[balanceKey{string(v[0]), readDay(v[1])}] += readInt8(v[2])
	}
	return nil
}

func (t *transaction) writeStats(ctx context.Context) error {
	// UNNEST flattens arrays of arrays, so buckets go as the text of one.
	cols := arrays(oidDate, oidTimestamp, oidText, oidText, oidText, oidText, oidInt4, oidInt8, oidText)
	var scratch []byte
	for _, key := range sorted(t.stats, compareStats) {
		s := t.stats[key]
		if s.idle() {
			continue
		}
		f := cols.add()
		f[0].day(int32(key.minute / (24 * 60)))
		f[1].int8(key.minute*60_000_000 - pgEpochUS)
		f[2].text(key.lane.String())
		f[3].text(key.category)
		f[4].text(key.channel)
		f[5].text(key.status.String())
		f[6].int4(key.partition)
		f[7].int8(s.count)
		if scratch = s.appendBuckets(scratch[:0]); len(scratch) == 0 {
			f[8].null()
			continue
		}
		f[8].raw(scratch)
	}
	if cols.rows == 0 {
		return nil
	}
	_, err := t.run(ctx, t.tx, `
		INSERT INTO $.delivery_stat_shards AS s (day, minute, lane, category, channel, status, partition, count, buckets)
		SELECT day, minute, lane, category, channel, status::$.delivery_status, partition, count, buckets::int8[]
		FROM unnest($1::date[], $2::timestamptz[], $3::text[], $4::text[], $5::text[], $6::text[], $7::int4[], $8::int8[], $9::text[])
			AS k(day, minute, lane, category, channel, status, partition, count, buckets)
		ON CONFLICT (minute, lane, category, channel, status, partition, day) DO UPDATE SET
			count = s.count + EXCLUDED.count, buckets = $.add_packed(s.buckets, EXCLUDED.buckets)`, cols.params()...)
	return err
}
