package projections

import (
	"context"
	"strings"

	"github.com/klivvr/whisper/domain"
)

// A dropped duplicate is no delivery, yet intake, which knows nothing of earlier requests, opened one:
// each request's accepted record carries an id with that request's time. Such a ghost is told by the
// request that the duplicate names; it is taken out of the table, or kept from getting in, whichever
// fact comes first. The duplicate counts in its place. (A repeated request of the same millisecond has the
// first one's id: then there is one delivery, which stays.)

// ghostly rows know nothing but that one request was accepted. Whatever was tried is no duplicate.
func (r *row) ghostly() bool {
	return r.accepted() && r.status == domain.Accepted && r.attempts == 0
}

func (t *transaction) writeDuplicates(ctx context.Context) error {
	if len(t.duplicates) > 0 {
		inserted, err := t.insertDuplicates(ctx)
		if err != nil {
			return err
		}
		for _, d := range inserted {
			f := t.duplicates[d]
			t.shards.of(d.notificationID, duplicateDay(f), t.stripe).duplicates++
		}
		if err := t.removeGhosts(ctx, inserted); err != nil {
			return err
		}
	}
	return t.dropGhosts(ctx)
}

// duplicateDay is the day of the request that was dropped, on which its recipients are counted: it may have been
// dropped after midnight. Facts of versions before don't tell it.
func duplicateDay(f fact) int32 {
	if ms := f.ev.GetDuplicateDropped().GetRequestedAtMs(); ms > 0 {
		return dayOfUS(ms * 1000)
	}
	return factDay(f)
}

func duplicateColumns(n int, each func(i int) duplicate) *columns {
	cols := arrays(oidText, oidText, oidText, oidInt4, oidInt8)
	for i := range n {
		d := each(i)
		f := cols.add()
		f[0].text(d.notificationID)
		f[1].text(d.userID)
		f[2].text(d.request.topic)
		f[3].int4(d.request.partition)
		f[4].int8(d.request.offset)
	}
	return cols
}

// insertDuplicates returns those that were not known before: a fact that was written twice counts once.
func (t *transaction) insertDuplicates(ctx context.Context) ([]duplicate, error) {
	all := sorted(t.duplicates, compareDuplicates)
	cols := duplicateColumns(len(all), func(i int) duplicate { return all[i] })
	more := arrays(oidUUID, oidDate, oidTimestamp, oidTimestamp)
	for _, d := range all {
		f := more.add()
		f[0].uuid(t.duplicates[d].id)
		f[1].day(duplicateDay(t.duplicates[d]))
		f[2].int8(t.duplicates[d].ev.GetAtUs() - pgEpochUS)
		f[3].time(t.duplicates[d].ev.GetDuplicateDropped().GetRequestedAtMs() * 1000)
	}
	res, err := t.run(ctx, t.tx, `
		INSERT INTO $.duplicates (notification_id, user_id, topic, partition, "offset", delivery_id, day, at, requested_at)
		SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::int4[], $5::int8[], $6::uuid[],
			$7::date[], $8::timestamptz[], $9::timestamptz[])
		ON CONFLICT DO NOTHING RETURNING notification_id, user_id, topic, partition, "offset"`, append(cols.params(), more.params()...)...)
	if err != nil {
		return nil, err
	}
	inserted := make([]duplicate, len(res.Rows))
	for i, v := range res.Rows {
		inserted[i] = duplicate{string(v[0]), string(v[1]), position{string(v[2]), readInt4(v[3]), readInt8(v[4])}}
	}
	return inserted, nil
}

func compareDuplicates(a, b duplicate) int {
	if c := strings.Compare(a.notificationID, b.notificationID); c != 0 {
		return c
	}
	if c := strings.Compare(a.userID, b.userID); c != 0 {
		return c
	}
	return a.request.compare(b.request)
}

// removeGhosts deletes the deliveries that earlier batches wrote for requests that were dropped as duplicates.
func (t *transaction) removeGhosts(ctx context.Context, dropped []duplicate) error {
	if len(dropped) == 0 {
		return nil
	}
	cols, firsts := duplicateColumns(len(dropped), func(i int) duplicate { return dropped[i] }), arrays(oidUUID)
	for _, d := range dropped {
		firsts.add()[0].uuid(t.duplicates[d].id)
	}
	res, err := t.run(ctx, t.tx, `
		SELECT d.* FROM unnest($1::text[], $2::text[], $3::text[], $4::int4[], $5::int8[], $6::uuid[])
			AS k(notification_id, user_id, topic, partition, "offset", first)
		CROSS JOIN LATERAL (
			SELECT `+rowColumns+` FROM $.deliveries AS d
			WHERE d.notification_id = k.notification_id AND d.user_id = k.user_id
			AND d.request_topic = k.topic AND d.request_partition = k.partition AND d.request_offset = k."offset"
			AND d.delivery_id <> k.first AND d.status = 'accepted' AND d.attempts = 0 OFFSET 0
		) AS d`, append(cols.params(), firsts.params()...)...)
	if err != nil {
		return err
	}
	byDay := map[int32]*columns{}
	for _, v := range res.Rows {
		r := readRow(v)
		f := t.duplicates[duplicate{r.notificationID, r.userID, r.request}]
		t.count(&r, f.userPartition(), -1)
		day := dayOf(r.id)
		if byDay[day] == nil {
			byDay[day] = arrays(oidUUID)
		}
		byDay[day].add()[0].uuid(r.id)
	}
	for day, ids := range byDay {
		var d field
		d.day(day)
		if _, err := t.run(ctx, t.tx, "DELETE FROM $.deliveries WHERE delivery_id = ANY ($1::uuid[]) AND day = $2::date", ids.params()[0],
			d[4:]); err != nil {
			return err
		}
	}
	return nil
}

// dropGhosts leaves out the deliveries of this batch whose requests are known to be duplicates.
func (t *transaction) dropGhosts(ctx context.Context) error {
	ghosts := map[duplicate]domain.DeliveryID{}
	for id, r := range t.rows {
		if r.ghostly() {
			ghosts[duplicate{r.notificationID, r.userID, r.request}] = id
		}
	}
	if len(ghosts) == 0 {
		return nil
	}
	suspects := sorted(ghosts, compareDuplicates)
	cols, ids := duplicateColumns(len(suspects), func(i int) duplicate { return suspects[i] }), arrays(oidUUID)
	for _, d := range suspects {
		ids.add()[0].uuid(ghosts[d])
	}
	res, err := t.run(ctx, t.tx, `
		SELECT k.i FROM unnest($1::text[], $2::text[], $3::text[], $4::int4[], $5::int8[], $6::uuid[])
			WITH ORDINALITY AS k(notification_id, user_id, topic, partition, "offset", id, i)
		WHERE EXISTS (
			SELECT FROM $.duplicates AS d WHERE d.notification_id = k.notification_id AND d.user_id = k.user_id
			AND d.topic = k.topic AND d.partition = k.partition AND d."offset" = k."offset" AND d.delivery_id <> k.id OFFSET 0
		)`, append(cols.params(), ids.params()...)...)
	if err != nil {
		return err
	}
	for _, v := range res.Rows {
		delete(t.rows, ghosts[suspects[readInt8(v[0])-1]])
	}
	return nil
}
