package projections

import (
	"context"
	"slices"

	"github.com/klivvr/whisper/domain"
)

// rowColumns is what readRow reads. The status is cast so that the type's identity, which changes when
// a rebuilt schema takes the name, is in no prepared result.
const rowColumns = `d.delivery_id, d.notification_id, d.user_id, d.lane, d.category, d.status::text, d.channel, d.attempts,
	d.sent_at, d.delivered_at, d.read_at, d.pushed_at, d.ended_at, d.noted_status::text, d.noted_at, d.note,
	d.request_topic, d.request_partition, d.request_offset, d.several_requests`

func readRow(v [][]byte) row {
	r := row{
		id:             domain.DeliveryID(v[0]),
		notificationID: string(v[1]),
		userID:         string(v[2]),
		category:       string(v[4]),
		channel:        string(v[6]),
		attempts:       readInt4(v[7]),
		sentAt:         readTime(v[8]),
		deliveredAt:    readTime(v[9]),
		readAt:         readTime(v[10]),
		pushedAt:       readTime(v[11]),
		endedAt:        readTime(v[12]),
		request:        position{string(v[16]), readInt4(v[17]), readInt8(v[18])},
		several:        readFlag(v[19]),
	}
	// What the table holds was written from these; a lane or status that does not parse can't be there.
	lane, _ := domain.ParseLane(string(v[3]))
	r.lane = lane.Proto()
	r.status, _ = domain.ParseStatus(string(v[5]))
	if v[13] != nil {
		r.noted = note{known: true, at: readTime(v[14]), reason: string(v[15])}
		r.noted.status, _ = domain.ParseStatus(string(v[13]))
	}
	return r
}

// writeDeliveries merges the batch's rows into the table: what is new by COPY, what changed by one
// UPDATE a day, what stays not at all. Counts move by the difference.
func (t *transaction) writeDeliveries(ctx context.Context) error {
	byDay := map[int32][]*foldedRow{}
	for id, r := range t.rows {
		byDay[dayOf(id)] = append(byDay[dayOf(id)], r)
	}
	added := newCopy(24, 256*len(t.rows))
	for _, day := range sorted(byDay, func(a, b int32) int { return int(a - b) }) {
		rows := byDay[day]
		slices.SortFunc(rows, func(a, b *foldedRow) int { return a.id.Compare(b.id) })
		olds, err := t.load(ctx, day, rows)
		if err != nil {
			return err
		}
		changed := arrays(oidUUID, oidText, oidText, oidText, oidText, oidText, oidInt4,
			oidTimestamp, oidTimestamp, oidTimestamp, oidTimestamp, oidTimestamp, oidTimestamp,
			oidText, oidTimestamp, oidText, oidText, oidInt4, oidInt8, oidBool)
		for _, r := range rows {
			old, known := olds[r.id]
			if !known {
				t.count(&r.row, r.partition, 1)
				addRow(added.add(), &r.row, day)
				continue
			}
			merged := old
			merged.merge(r.row)
			if merged == old {
				continue
			}
			t.count(&old, r.partition, -1)
			t.count(&merged, r.partition, 1)
			changeRow(changed.add(), &merged)
		}
		if err := t.update(ctx, day, changed); err != nil {
			return err
		}
	}
	if added.rows == 0 {
		return nil
	}
	return t.copy(ctx, t.tx, `deliveries (delivery_id, day, notification_id, user_id, lane, category, status, reason, channel, attempts,
		accepted_at, sent_at, delivered_at, read_at, settled_at, pushed_at, ended_at, noted_status, noted_at, note,
		request_topic, request_partition, request_offset, several_requests)`, added)
}

// load reads the rows of one day that the table has already.
func (t *transaction) load(ctx context.Context, day int32, rows []*foldedRow) (map[domain.DeliveryID]row, error) {
	ids := arrays(oidUUID)
	for _, r := range rows {
		ids.add()[0].uuid(r.id)
	}
	var d field
	d.day(day)
	res, err := t.run(ctx, t.tx, `
		SELECT `+rowColumns+` FROM unnest($1::uuid[]) AS k(id)
		JOIN $.deliveries AS d ON d.delivery_id = k.id AND d.day = $2::date`, ids.params()[0], d[4:])
	if err != nil {
		return nil, err
	}
	olds := make(map[domain.DeliveryID]row, len(res.Rows))
	for _, v := range res.Rows {
		r := readRow(v)
		olds[r.id] = r
	}
	return olds, nil
}

func (t *transaction) update(ctx context.Context, day int32, changed *columns) error {
	if changed.rows == 0 {
		return nil
	}
	var d field
	d.day(day)
	_, err := t.run(ctx, t.tx, `
		UPDATE $.deliveries AS d SET
			lane = k.lane, category = k.category, status = k.status::$.delivery_status, reason = k.reason, channel = k.channel, attempts = k.attempts,
			sent_at = k.sent_at, delivered_at = k.delivered_at, read_at = k.read_at, settled_at = k.settled_at, pushed_at = k.pushed_at, ended_at = k.ended_at,
			noted_status = k.noted_status::$.delivery_status, noted_at = k.noted_at, note = k.note,
			request_topic = k.request_topic, request_partition = k.request_partition, request_offset = k.request_offset, several_requests = k.several
		FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::int4[],
			$8::timestamptz[], $9::timestamptz[], $10::timestamptz[], $11::timestamptz[], $12::timestamptz[], $13::timestamptz[],
			$14::text[], $15::timestamptz[], $16::text[], $17::text[], $18::int4[], $19::int8[], $20::bool[])
			AS k(id, lane, category, status, reason, channel, attempts, sent_at, delivered_at, read_at, settled_at, pushed_at, ended_at,
			noted_status, noted_at, note, request_topic, request_partition, request_offset, several)
		WHERE d.delivery_id = k.id AND d.day = $21::date`, append(changed.params(), d[4:])...)
	return err
}

func addRow(f *field, r *row, day int32) {
	f.uuid(r.id)
	f.day(day)
	f.text(r.notificationID)
	f.text(r.userID)
	f.text(domain.LaneOf(r.lane).String())
	category(f, r)
	f.text(r.status.String())
	f.optional(r.reason())
	f.optional(r.channel)
	f.int4(r.attempts)
	f.int8(r.id.Time().UnixMicro() - pgEpochUS)
	for _, at := range [...]int64{r.sentAt, r.deliveredAt, r.readAt, r.settledAt(), r.pushedAt, r.endedAt} {
		f.time(at)
	}
	notedStatus(f, r)
	f.time(r.noted.at)
	f.optional(r.noted.reason)
	acceptedBy(f, f, f, r)
	f.flag(r.several)
}

func changeRow(f []field, r *row) {
	f[0].uuid(r.id)
	f[1].text(domain.LaneOf(r.lane).String())
	category(&f[2], r)
	f[3].text(r.status.String())
	f[4].optional(r.reason())
	f[5].optional(r.channel)
	f[6].int4(r.attempts)
	for i, at := range [...]int64{r.sentAt, r.deliveredAt, r.readAt, r.settledAt(), r.pushedAt, r.endedAt} {
		f[7+i].time(at)
	}
	notedStatus(&f[13], r)
	f[14].time(r.noted.at)
	f[15].optional(r.noted.reason)
	acceptedBy(&f[16], &f[17], &f[18], r)
	f[19].flag(r.several)
}

func category(f *field, r *row) {
	if r.accepted() {
		f.text(r.category)
	} else {
		f.null()
	}
}

func notedStatus(f *field, r *row) {
	if r.noted.known {
		f.text(r.noted.status.String())
	} else {
		f.null()
	}
}

func acceptedBy(topic, partition, offset *field, r *row) {
	if !r.accepted() {
		topic.null()
		partition.null()
		offset.null()
		return
	}
	topic.text(r.request.topic)
	partition.int4(r.request.partition)
	offset.int8(r.request.offset)
}
