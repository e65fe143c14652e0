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
	d.request_topic, d.request_partition, d.request_offset, d.template, d.template_version, d.expires_at, d.send_at, d.broadcast, d.due_at`

func readRow(v [][]byte) row {
	r := row{
		id:             domain.DeliveryID(v[0]),
		notificationID: string(v[1]),
		userID:         string(v[2]),
		asked: asked{
			known: v[23] != nil, category: string(v[4]), template: string(v[19]), templateVersion: readInt8(v[20]),
			expiresAt: readTime(v[21]), sendAt: readTime(v[22]),
			broadcast: len(v[23]) > 0 && v[23][0] != 0,
		},
		channel:     string(v[6]),
		attempts:    readInt4(v[7]),
		sentAt:      readTime(v[8]),
		deliveredAt: readTime(v[9]),
		readAt:      readTime(v[10]),
		pushedAt:    readTime(v[11]),
		endedAt:     readTime(v[12]),
		dueAt:       readTime(v[24]),
		request:     position{string(v[16]), readInt4(v[17]), readInt8(v[18])},
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

// writeDeliveries merges the batch's rows into the table: what is new by COPY, what changed by an
// UNNEST upsert, what stays not at all. Counts move by the difference.
func (t *transaction) writeDeliveries(ctx context.Context) error {
	byDay := map[int32][]*foldedRow{}
	for id, r := range t.rows {
		byDay[dayOf(id)] = append(byDay[dayOf(id)], r)
	}
	added := newCopy(len(deliveryTypes), 256*len(t.rows))
	changed := arrays(deliveryTypes...)
	for _, day := range sorted(byDay, func(a, b int32) int { return int(a - b) }) {
		rows := byDay[day]
		slices.SortFunc(rows, func(a, b *foldedRow) int { return a.id.Compare(b.id) })
		olds, err := t.load(ctx, day, rows)
		if err != nil {
			return err
		}
		for _, r := range rows {
			old, known := olds[r.id]
			if !known {
				t.count(&r.row, r.partition, 1)
				f := added.add()
				addRow(func(int) *field { return f }, &r.row, day)
				continue
			}
			merged := old
			merged.merge(r.row)
			if merged == old {
				continue
			}
			t.count(&old, r.partition, -1)
			t.count(&merged, r.partition, 1)
			f := changed.add()
			addRow(func(i int) *field { return &f[i] }, &merged, day)
		}
	}
	if err := t.change(ctx, changed); err != nil {
		return err
	}
	if added.rows == 0 {
		return nil
	}
	return t.copy(ctx, "deliveries ("+deliveryColumns+")", added)
}

const deliveryColumns = `delivery_id, day, notification_id, user_id, lane, category, status, reason, channel, attempts,
	accepted_at, sent_at, delivered_at, read_at, settled_at, pushed_at, ended_at, noted_status, noted_at, note,
	request_topic, request_partition, request_offset, template, template_version, expires_at, send_at, broadcast, due_at`

// deliveryTypes are those of deliveryColumns; a status goes as its text.
var deliveryTypes = []uint32{
	oidUUID, oidDate, oidText, oidText, oidText, oidText, oidText, oidText, oidText, oidInt4,
	oidTimestamp, oidTimestamp, oidTimestamp, oidTimestamp, oidTimestamp, oidTimestamp, oidTimestamp, oidText, oidTimestamp, oidText,
	oidText, oidInt4, oidInt8, oidText, oidInt8, oidTimestamp, oidTimestamp, oidBool, oidTimestamp,
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
		SELECT `+rowColumns+` FROM $.deliveries AS d WHERE d.delivery_id = ANY ($1::uuid[]) AND d.day = $2::date`, ids.params()[0], d[4:])
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

// change writes merged rows over those that are there. An upsert, not an UPDATE … FROM: it finds rows by
// the key whatever the planner thinks of the table.
func (t *transaction) change(ctx context.Context, changed *columns) error {
	if changed.rows == 0 {
		return nil
	}
	_, err := t.run(ctx, t.tx, `
		INSERT INTO $.deliveries AS d (`+deliveryColumns+`)
		SELECT delivery_id, day, notification_id, user_id, lane, category, status::$.delivery_status, reason, channel, attempts,
			accepted_at, sent_at, delivered_at, read_at, settled_at, pushed_at, ended_at, noted_status::$.delivery_status, noted_at, note,
			request_topic, request_partition, request_offset, template, template_version, expires_at, send_at, broadcast, due_at
		FROM unnest($1::uuid[], $2::date[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::int4[],
			$11::timestamptz[], $12::timestamptz[], $13::timestamptz[], $14::timestamptz[], $15::timestamptz[], $16::timestamptz[],
			$17::timestamptz[],
			$18::text[], $19::timestamptz[], $20::text[], $21::text[], $22::int4[], $23::int8[], $24::text[], $25::int8[], $26::timestamptz[],
			$27::timestamptz[], $28::bool[], $29::timestamptz[]) AS k(`+deliveryColumns+`)
		ON CONFLICT (delivery_id, day) DO UPDATE SET
			lane = EXCLUDED.lane, category = EXCLUDED.category, status = EXCLUDED.status, reason = EXCLUDED.reason,
			channel = EXCLUDED.channel, attempts = EXCLUDED.attempts, sent_at = EXCLUDED.sent_at, delivered_at = EXCLUDED.delivered_at,
			read_at = EXCLUDED.read_at, settled_at = EXCLUDED.settled_at, pushed_at = EXCLUDED.pushed_at, ended_at = EXCLUDED.ended_at,
			noted_status = EXCLUDED.noted_status, noted_at = EXCLUDED.noted_at, note = EXCLUDED.note,
			request_topic = EXCLUDED.request_topic, request_partition = EXCLUDED.request_partition, request_offset = EXCLUDED.request_offset,
			template = EXCLUDED.template, template_version = EXCLUDED.template_version, expires_at = EXCLUDED.expires_at, send_at = EXCLUDED.send_at,
			broadcast = EXCLUDED.broadcast, due_at = EXCLUDED.due_at`, changed.params()...)
	return err
}

// addRow appends a row's columns; column gives the place for each, by its index in deliveryColumns.
func addRow(column func(i int) *field, r *row, day int32) {
	column(0).uuid(r.id)
	column(1).day(day)
	column(2).text(r.notificationID)
	column(3).text(r.userID)
	column(4).text(domain.LaneOf(r.lane).String())
	if r.accepted() {
		column(5).text(r.category)
	} else {
		column(5).null()
	}
	column(6).text(r.status.String())
	column(7).optional(r.reason())
	column(8).optional(r.channel)
	column(9).int4(r.attempts)
	for i, at := range [...]int64{r.id.Time().UnixMicro(), r.sentAt, r.deliveredAt, r.readAt, r.settledAt(), r.pushedAt, r.endedAt} {
		column(10 + i).time(at)
	}
	if r.noted.known {
		column(17).text(r.noted.status.String())
	} else {
		column(17).null()
	}
	column(18).time(r.noted.at)
	column(19).optional(r.noted.reason)
	if r.accepted() {
		column(20).text(r.request.topic)
		column(21).int4(r.request.partition)
		column(22).int8(r.request.offset)
	} else {
		column(20).null()
		column(21).null()
		column(22).null()
	}
	if r.known {
		column(23).text(r.template)
	} else {
		column(23).null()
	}
	if r.templateVersion > 0 {
		column(24).int8(r.templateVersion)
	} else {
		column(24).null()
	}
	column(25).time(r.expiresAt)
	column(26).time(r.sendAt)
	if r.known {
		column(27).bool(r.broadcast)
	} else {
		column(27).null()
	}
	column(28).time(r.dueAt)
}
