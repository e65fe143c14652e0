package projections

import (
	"cmp"
	"context"
	"errors"
	"strconv"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/request"
	"github.com/klivvr/whisper/domain/template"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// A broadcast's deliveries have no accepted record: what they share is told once for each user partition, by a
// fact that stands before theirs in the partition's log. So a row that no accepted record is known of may belong to
// a broadcast, whose category and request it gets here.

// castKey is a row of broadcast_shards. The day is that of the request: an id that is used again after the window is
// another broadcast.
type castKey struct {
	notificationID string
	partition      int32
	day            int32
}

func compareCasts(a, b castKey) int {
	return cmp.Or(cmp.Compare(a.notificationID, b.notificationID), cmp.Compare(a.partition, b.partition), cmp.Compare(a.day, b.day))
}

// A cast is what a broadcast's deliveries share.
type cast struct {
	acceptedMs int64 // of its delivery ids: another request with the same id has another time
	request    position
	asked
}

// skipKey is a row of broadcast_skips.
type skipKey struct {
	castKey
	reason string
}

func ofBroadcast(ev *whisperv1.Event) bool {
	return ev.GetUserId() == "" && (ev.GetBroadcastProgressed() != nil || ev.GetBroadcastDropped() != nil)
}

func checkBroadcast(b *whisperv1.BroadcastAccepted) error {
	switch acc := b.GetAccepted(); {
	case b == nil:
		return nil
	case acc.GetRequest().GetTopic() == "":
		return errors.New("a broadcast names no request")
	case !inRange(acc.GetExpiresAtMs()*1000) || !inRange(acc.GetSendAtMs()*1000):
		return errors.New("a time of a broadcast is none")
	}
	return nil
}

// progressed keeps the last word; facts come in the order of the log.
func (b *folded) progressed(f fact, p *whisperv1.BroadcastProgressed) {
	key := castKey{f.ev.GetNotificationId(), f.userPartition(), dayOf(f.id)}
	b.progress[key] = f
	if p.GetBroadcast() != nil {
		acc := p.GetBroadcast().GetAccepted()
		b.casts[key] = &cast{acceptedMs: f.id.Time().UnixMilli(), request: positionOf(acc.GetRequest()), asked: askedOfBroadcast(acc)}
		b.specs = append(b.specs, f)
	}
}

func askedOfBroadcast(acc *whisperv1.DeliveryAccepted) asked {
	a := askedBy(acc)
	a.broadcast = true
	return a
}

// stateName is a broadcast's state in SQL.
func stateName(s whisperv1.BroadcastState) string {
	switch s {
	case whisperv1.BroadcastState_BROADCAST_STATE_SCHEDULED:
		return "scheduled"
	case whisperv1.BroadcastState_BROADCAST_STATE_PAUSED:
		return "paused"
	case whisperv1.BroadcastState_BROADCAST_STATE_WALKED:
		return "walked"
	case whisperv1.BroadcastState_BROADCAST_STATE_CANCELLED:
		return "cancelled"
	case whisperv1.BroadcastState_BROADCAST_STATE_EXPIRED:
		return "expired"
	case whisperv1.BroadcastState_BROADCAST_STATE_RUNNING, whisperv1.BroadcastState_BROADCAST_STATE_UNSPECIFIED:
		return "running"
	default:
		return "running"
	}
}

func formatRate(rate float64) string { return strconv.FormatFloat(rate, 'g', -1, 64) }

func (t *transaction) writeBroadcasts(ctx context.Context) error {
	if err := t.writeSpecs(ctx); err != nil || len(t.progress) == 0 {
		return err
	}
	cols := arrays(oidText, oidInt4, oidText, oidText, oidInt8, oidInt8, oidInt8, oidInt8, oidInt8, oidTimestamp, oidTimestamp, oidTimestamp,
		oidDate)
	for _, key := range sorted(t.progress, compareCasts) {
		ev := t.progress[key].ev
		p := ev.GetBroadcastProgressed()
		f := cols.add()
		f[0].text(key.notificationID)
		f[1].int4(key.partition)
		f[2].text(stateName(p.GetState()))
		f[3].text(map[bool]string{true: "t", false: "f"}[p.GetSettled()])
		for i, n := range [...]int64{p.GetAudience(), p.GetWalked(), p.GetMatched(), p.GetSegmentErrors(), p.GetUnwalked()} {
			f[4+i].int8(n)
		}
		f[12].day(key.day)
		for i, us := range [...]int64{p.GetStartedMs() * 1000, p.GetWalkedMs() * 1000, ev.GetAtUs()} {
			f[9+i].time(us)
		}
	}
	if err := t.balanceBroadcasts(ctx); err != nil {
		return err
	}
	_, err := t.run(ctx, t.tx, `
		UPDATE $.broadcast_shards AS b SET state = k.state, settled = k.settled::boolean, audience = k.audience, walked = k.walked,
			matched = k.matched,
			segment_errors = k.segment_errors, unwalked = k.unwalked, started_at = k.started_at,
			walked_at = k.walked_at, progressed_at = k.progressed_at
		FROM unnest($1::text[], $2::int4[], $3::text[], $4::text[], $5::int8[], $6::int8[], $7::int8[], $8::int8[], $9::int8[],
			$10::timestamptz[], $11::timestamptz[], $12::timestamptz[], $13::date[])
			AS k(notification_id, partition, state, settled, audience, walked, matched, segment_errors, unwalked,
				started_at, walked_at, progressed_at, day)
		WHERE b.notification_id = k.notification_id AND b.partition = k.partition AND b.day = k.day`, cols.params()...)
	return err
}

// balanceBroadcasts notes by how much the recipients grow. Whoever writes holds the partition's lock, so nobody else
// changes its rows meanwhile.
func (t *transaction) balanceBroadcasts(ctx context.Context) error {
	cols := arrays(oidText, oidInt4, oidDate)
	for _, key := range sorted(t.progress, compareCasts) {
		f := cols.add()
		f[0].text(key.notificationID)
		f[1].int4(key.partition)
		f[2].day(key.day)
	}
	res, err := t.run(ctx, t.tx, `
		SELECT b.notification_id, b.partition, b.day, b.matched
		FROM unnest($1::text[], $2::int4[], $3::date[]) AS k(notification_id, partition, day)
		CROSS JOIN LATERAL (
			SELECT * FROM $.broadcast_shards AS b
			WHERE b.notification_id = k.notification_id AND b.partition = k.partition AND b.day = k.day OFFSET 0
		) AS b`, cols.params()...)
	if err != nil {
		return err
	}
	for _, v := range res.Rows {
		key := castKey{string(v[0]), readInt4(v[1]), readDay(v[2])}
		t.balances[balanceKey{key.notificationID, key.day}] += t.progress[key].ev.GetBroadcastProgressed().GetMatched() - readInt8(v[3])
	}
	return nil
}

// writeSpecs makes the rows. One that is there stands: its first fact was written twice.
func (t *transaction) writeSpecs(ctx context.Context) error {
	if len(t.specs) == 0 {
		return nil
	}
	cols := arrays(oidText, oidInt4, oidDate, oidText, oidText, oidText, oidText, oidText, oidInt4, oidTimestamp, oidTimestamp, oidText,
		oidTimestamp,
		oidText, oidInt4, oidInt8, oidTimestamp, oidInt8)
	for _, spec := range t.specs {
		ev := spec.ev
		b := ev.GetBroadcastProgressed().GetBroadcast()
		acc := b.GetAccepted()
		f := cols.add()
		f[0].text(ev.GetNotificationId())
		f[1].int4(spec.userPartition())
		f[2].day(dayOf(spec.id))
		f[3].text(domain.LaneOf(ev.GetLane()).String())
		f[4].text(acc.GetCategory())
		template, version := template.Split(acc.GetTemplate())
		f[5].text(template)
		f[6].text(request.AudienceOf(b))
		if b.GetRate() > 0 {
			f[7].text(formatRate(b.GetRate()))
		} else {
			f[7].null()
		}
		f[8].int4(b.GetPartitions())
		f[9].time(spec.id.Time().UnixMicro())
		f[10].time(acc.GetSendAtMs() * 1000)
		f[11].text(b.GetSendAtLocal())
		f[12].time(acc.GetExpiresAtMs() * 1000)
		f[13].text(acc.GetRequest().GetTopic())
		f[14].int4(acc.GetRequest().GetPartition())
		f[15].int8(acc.GetRequest().GetOffset())
		f[16].time(ev.GetAtUs())
		if version > 0 {
			f[17].int8(version)
		} else {
			f[17].null()
		}
	}
	_, err := t.run(ctx, t.tx, `
		INSERT INTO $.broadcast_shards (notification_id, partition, day, lane, category, template, segment, rate, partitions, accepted_at,
			send_at,
			send_at_local, expires_at, request_topic, request_partition, request_offset, progressed_at, template_version,
			state, settled, audience, walked, matched, segment_errors, unwalked)
		SELECT notification_id, partition, day, lane, category, template, segment, rate::double precision, partitions, accepted_at, send_at,
			send_at_local, expires_at, request_topic, request_partition, request_offset, progressed_at, template_version,
			'running', false, 0, 0, 0, 0, 0
		FROM unnest($1::text[], $2::int4[], $3::date[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::int4[],
			$10::timestamptz[],
			$11::timestamptz[], $12::text[], $13::timestamptz[], $14::text[], $15::int4[], $16::int8[], $17::timestamptz[], $18::int8[])
			AS k(notification_id, partition, day, lane, category, template, segment, rate, partitions, accepted_at, send_at,
			send_at_local, expires_at, request_topic, request_partition, request_offset, progressed_at, template_version)
		ON CONFLICT DO NOTHING`, cols.params()...)
	return err
}

// joinBroadcasts gives rows without an accepted record what their broadcast says of them.
func (t *transaction) joinBroadcasts(ctx context.Context) error {
	unknown := map[castKey]bool{}
	for id, r := range t.rows {
		if key := (castKey{r.notificationID, r.partition, dayOf(id)}); !r.accepted() && t.casts[key] == nil {
			unknown[key] = true
		}
	}
	if len(unknown) > 0 {
		if err := t.findCasts(ctx, unknown); err != nil {
			return err
		}
	}
	for id, r := range t.rows {
		if c := t.casts[castKey{r.notificationID, r.partition, dayOf(id)}]; c != nil && !r.accepted() && c.acceptedMs == id.Time().UnixMilli() {
			r.request, r.asked = c.request, c.asked
		}
	}
	return nil
}

func (t *transaction) findCasts(ctx context.Context, unknown map[castKey]bool) error {
	cols := arrays(oidText, oidInt4, oidDate)
	for _, key := range sorted(unknown, compareCasts) {
		f := cols.add()
		f[0].text(key.notificationID)
		f[1].int4(key.partition)
		f[2].day(key.day)
	}
	res, err := t.run(ctx, t.tx, `
		SELECT b.notification_id, b.partition, b.accepted_at, b.request_topic, b.request_partition, b.request_offset, b.category,
			b.template, b.template_version, b.expires_at, b.send_at
		FROM unnest($1::text[], $2::int4[], $3::date[]) AS k(notification_id, partition, day)
		JOIN $.broadcast_shards AS b USING (notification_id, partition, day)`, cols.params()...)
	if err != nil {
		return err
	}
	for _, v := range res.Rows {
		acceptedUS := readTime(v[2])
		t.casts[castKey{string(v[0]), readInt4(v[1]), dayOfUS(acceptedUS)}] = &cast{
			acceptedMs: acceptedUS / 1000, request: position{string(v[3]), readInt4(v[4]), readInt8(v[5])},
			asked: asked{
				known: true, category: string(v[6]), template: string(v[7]), templateVersion: readInt8(v[8]),
				expiresAt: readTime(v[9]), sendAt: readTime(v[10]), broadcast: true,
			},
		}
	}
	return nil
}

// skip counts why deliveries of broadcasts were not sent.
func (t *transaction) skip(r *row, partition int32, by int64) {
	if r.status < domain.Cancelled || r.status >= domain.Failed || !r.accepted() {
		return
	}
	key := castKey{r.notificationID, partition, dayOf(r.id)}
	if c := t.casts[key]; c == nil || c.request != r.request {
		return
	}
	reason := r.reason()
	if reason == "" {
		reason = r.status.String()
	}
	key.partition = t.stripe
	t.skips[skipKey{key, reason}] += by
}

func (t *transaction) writeSkips(ctx context.Context) error {
	cols := arrays(oidText, oidInt4, oidDate, oidText, oidInt8)
	compare := func(a, b skipKey) int {
		return cmp.Or(compareCasts(a.castKey, b.castKey), cmp.Compare(a.reason, b.reason))
	}
	for _, key := range sorted(t.skips, compare) {
		if t.skips[key] == 0 {
			continue
		}
		f := cols.add()
		f[0].text(key.notificationID)
		f[1].int4(key.partition)
		f[2].day(key.day)
		f[3].text(key.reason)
		f[4].int8(t.skips[key])
	}
	if cols.rows == 0 {
		return nil
	}
	_, err := t.run(ctx, t.tx, `
		INSERT INTO $.broadcast_skips AS s (notification_id, partition, day, reason, count)
		SELECT * FROM unnest($1::text[], $2::int4[], $3::date[], $4::text[], $5::int8[])
		ON CONFLICT (notification_id, partition, reason, day) DO UPDATE SET count = s.count + EXCLUDED.count`, cols.params()...)
	return err
}
