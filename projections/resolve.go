package projections

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// A client's word that its user read a notification is no proof: it may name what was never sent. A node vouches only for
// the attempts that it holds; any other read ("unproven") counts where the tables, or the same batch, have an attempt of
// the delivery that may have reached the user. With the client's receipt the read names its delivery. Without one its
// time is not known, and it belongs to the latest delivery of the notification to the user with such an attempt.
//
// An attempt's fact may come later than the read, since writers are not in step: until then the read waits in early_facts,
// where a user has room for earlyPerUser and each of them earlyFor. What is let go claims nothing, and nor does a read from
// before the first such attempt.

const (
	// earlyPerUser is some eight screens of notifications.
	earlyPerUser = 64
	// earlyFor is by the time of the log: a node that can't reach Kafka holds its facts for as long as its publisher tries.
	earlyFor = 15 * time.Minute
	// clockSkew is how far the clocks of two nodes may differ for a read to count as later than the sending.
	clockSkew = 5 * time.Second
)

// unproven facts are a client's word.
func (f fact) unproven() bool {
	return f.timeless() || f.ev.GetDeliveryRead() != nil && !domain.ProvenRead(f.ev)
}

// reachedUser are the outcomes of attempts after which the user may have had the notification.
const reachedUser = `('delivered', 'sent', 'unknown')`

func (a *attempt) reachedUser() bool {
	return a.outcome == "delivered" || a.outcome == "sent" || a.outcome == "unknown"
}

// reachedHere are the batch's own attempts that may have reached their users.
func (t *transaction) reachedHere() map[domain.DeliveryHash][]*attempt {
	found := map[domain.DeliveryHash][]*attempt{}
	for key, a := range t.attempts {
		if a.reachedUser() {
			found[key.id.Hash()] = append(found[key.id.Hash()], a)
		}
	}
	return found
}

// readOf is the latest delivery that an unproven fact can be about; zero: none of these attempts'.
func (f fact) readOf(reached map[domain.DeliveryHash][]*attempt) (id domain.DeliveryID) {
	for _, a := range reached[f.id.Hash()] {
		if (f.timeless() || f.id == a.id) && a.at <= f.ev.GetAtUs()+clockSkew.Microseconds() && a.id.Compare(id) > 0 {
			id = a.id
		}
	}
	return id
}

func (t *transaction) resolve(ctx context.Context) error {
	if len(t.unproven) == 0 {
		return nil
	}
	here := t.reachedHere()
	found := make([]domain.DeliveryID, len(t.unproven))
	for n, f := range t.unproven {
		found[n] = f.readOf(here)
	}
	if err := t.lookUp(ctx, found); err != nil {
		return err
	}
	if err := t.lookUpExact(ctx, found); err != nil {
		return err
	}
	var early []fact
	for n, f := range t.unproven {
		switch {
		case found[n] != domain.DeliveryID{}:
			f.id = found[n]
			t.add(f)
		case tellsOfDelivery(f):
			early = append(early, f)
		default: // only the timeline is about it
			t.add(f)
		}
	}
	return t.writeEarly(ctx, early)
}

func tellsOfDelivery(f fact) bool {
	_, ok := rowOf(f)
	return ok
}

// lookUp finds the deliveries of facts without a time, as far as the tables have them.
func (t *transaction) lookUp(ctx context.Context, found []domain.DeliveryID) error {
	cols, any := arrays(oidInt4, oidText, oidText, oidTimestamp), false
	for n, f := range t.unproven {
		if !f.timeless() || found[n] != (domain.DeliveryID{}) {
			continue
		}
		any = true
		names := []string{f.ev.GetUserId()}
		for _, a := range t.known[f.ev.GetUserId()] { // read after the user was erased, of a delivery from before
			names = append(names, a.name)
		}
		for _, name := range names {
			c := cols.add()
			c[0].int4(int32(n))
			c[1].text(f.ev.GetNotificationId())
			c[2].text(name)
			c[3].int8(f.ev.GetAtUs() + clockSkew.Microseconds() - pgEpochUS)
		}
	}
	if !any {
		return nil
	}
	return t.addFound(ctx, found, `
		SELECT k.n, d.delivery_id FROM unnest($1::int4[], $2::text[], $3::text[], $4::timestamptz[]) AS k(n, notification_id, user_id, before)
		CROSS JOIN LATERAL (
			SELECT delivery_id FROM $.deliveries AS d
			WHERE d.notification_id = k.notification_id AND d.user_id = k.user_id AND EXISTS (
				SELECT FROM $.attempts AS a WHERE a.delivery_id = d.delivery_id AND a.day = d.day AND a.at <= k.before AND a.outcome IN `+reachedUser+`)
			ORDER BY delivery_id DESC LIMIT 1
		) AS d`, cols)
}

// lookUpExact finds the deliveries of the other facts.
func (t *transaction) lookUpExact(ctx context.Context, found []domain.DeliveryID) error {
	cols, any := arrays(oidInt4, oidUUID, oidDate, oidTimestamp), false
	for n, f := range t.unproven {
		if f.timeless() || found[n] != (domain.DeliveryID{}) {
			continue
		}
		any = true
		c := cols.add()
		c[0].int4(int32(n))
		c[1].uuid(f.id)
		c[2].day(dayOf(f.id))
		c[3].int8(f.ev.GetAtUs() + clockSkew.Microseconds() - pgEpochUS)
	}
	if !any {
		return nil
	}
	return t.addFound(ctx, found, `
		SELECT k.n, k.id FROM unnest($1::int4[], $2::uuid[], $3::date[], $4::timestamptz[]) AS k(n, id, day, before) WHERE EXISTS (
			SELECT FROM $.attempts AS a WHERE a.delivery_id = k.id AND a.day = k.day AND a.at <= k.before AND a.outcome IN `+reachedUser+`)`, cols)
}

// addFound takes pairs of a fact's number and its delivery; of several of one fact, the latest.
func (t *transaction) addFound(ctx context.Context, found []domain.DeliveryID, sql string, cols *columns) error {
	res, err := t.run(ctx, t.tx, sql, cols.params()...)
	if err != nil {
		return err
	}
	for _, v := range res.Rows {
		if n, id := readInt4(v[0]), domain.DeliveryID(v[1]); id.Compare(found[n]) > 0 {
			found[n] = id
		}
	}
	return nil
}

type recipient struct{ notificationID, userID string }

func recipientColumns(all map[recipient]bool) *columns {
	cols := arrays(oidText, oidText)
	for r := range all {
		f := cols.add()
		f[0].text(r.notificationID)
		f[1].text(r.userID)
	}
	return cols
}

func (t *transaction) writeEarly(ctx context.Context, early []fact) error {
	early = newest(early)
	if len(early) == 0 {
		return nil
	}
	rows := newCopy(8, 256*len(early))
	for _, f := range early {
		c := rows.add()
		c.text(f.rec.Topic)
		c.int4(f.rec.Partition)
		c.int8(f.rec.Offset)
		c.text(f.ev.GetNotificationId())
		c.text(f.ev.GetUserId())
		c.int8(f.ev.GetAtUs() - pgEpochUS)
		c.raw(f.rec.Value)
		c.optional(f.traceparent())
	}
	if err := t.copy(ctx, `early_facts (topic, partition, "offset", notification_id, user_id, at, event, traceparent)`, rows); err != nil {
		return err
	}
	cols := arrays(oidText)
	seen := map[string]bool{}
	for _, f := range early {
		if user := f.ev.GetUserId(); !seen[user] {
			seen[user] = true
			cols.add()[0].text(user)
		}
	}
	_, err := t.run(ctx, t.tx, fmt.Sprintf(`
		DELETE FROM $.early_facts AS e USING unnest($1::text[]) AS k(user_id)
		CROSS JOIN LATERAL (
			SELECT ctid AS at_row FROM $.early_facts AS e WHERE e.user_id = k.user_id
			ORDER BY at DESC, topic DESC, partition DESC, "offset" DESC OFFSET %d
		) AS old WHERE e.ctid = old.at_row`, earlyPerUser), cols.params()...)
	return err
}

// newest leaves out what a user has no room for.
func newest(early []fact) []fact {
	kept := make([]fact, 0, len(early))
	count := map[string]int{}
	for _, f := range slices.Backward(early) {
		if user := f.ev.GetUserId(); count[user] < earlyPerUser {
			count[user]++
			kept = append(kept, f)
		}
	}
	slices.Reverse(kept)
	return kept
}

// dropEarly lets go of what has waited for too long, by the time that each partition's facts have come to.
func (t *transaction) dropEarly(ctx context.Context) error {
	if len(t.reachedUS) == 0 {
		return nil
	}
	cols := arrays(oidText, oidInt4, oidTimestamp)
	for src, us := range t.reachedUS {
		f := cols.add()
		f[0].text(src.topic)
		f[1].int4(src.partition)
		f[2].int8(us - earlyFor.Microseconds() - pgEpochUS)
	}
	_, err := t.run(ctx, t.tx, `
		DELETE FROM $.early_facts AS e USING unnest($1::text[], $2::int4[], $3::timestamptz[]) AS k(topic, partition, before)
		WHERE e.topic = k.topic AND e.partition = k.partition AND e.at < k.before`, cols.params()...)
	return err
}

// takeEarly takes up the facts that waited for deliveries of this batch.
func (t *transaction) takeEarly(ctx context.Context) error {
	var any bool
	if err := t.tx.QueryRow(ctx, t.sql("SELECT EXISTS (SELECT FROM $.early_facts)")).Scan(&any); err != nil || !any {
		return err
	}
	if err := t.dropEarly(ctx); err != nil {
		return err
	}
	here := t.reachedHere()
	if len(here) == 0 {
		return nil
	}
	all := map[recipient]bool{}
	for _, attempts := range here {
		for _, a := range attempts {
			all[recipient{t.rows[a.id].notificationID, t.rows[a.id].userID}] = true
		}
	}
	res, err := t.run(ctx, t.tx, `
		WITH found AS MATERIALIZED (
			SELECT e.at_row FROM unnest($1::text[], $2::text[]) AS k(notification_id, user_id)
			CROSS JOIN LATERAL (
				SELECT ctid AS at_row FROM $.early_facts AS e
				WHERE e.notification_id = k.notification_id AND e.user_id = k.user_id OFFSET 0
			) AS e
		)
		DELETE FROM $.early_facts AS e USING found WHERE e.ctid = found.at_row
		RETURNING e.topic, e.partition, e."offset", e.event, e.traceparent`, recipientColumns(all).params()...)
	if err != nil {
		return err
	}
	facts := make([]fact, 0, len(res.Rows))
	var early []fact
	for _, v := range res.Rows {
		f, err := earlyFact(v)
		if err != nil {
			return err
		}
		id := f.readOf(here)
		if id == (domain.DeliveryID{}) { // of another delivery under the same id
			early = append(early, f)
			continue
		}
		f.id = id
		facts = append(facts, f)
	}
	slices.SortFunc(facts, func(a, b fact) int { return int(a.rec.Offset - b.rec.Offset) })
	for _, f := range facts {
		t.add(f)
	}
	return t.writeEarly(ctx, early)
}

func earlyFact(v [][]byte) (fact, error) {
	ev := new(whisperv1.Event)
	if err := proto.Unmarshal(v[3], ev); err != nil {
		return fact{}, fmt.Errorf("an early fact does not decode any more: %w", err)
	}
	if len(ev.GetDeliveryId()) != len(domain.DeliveryID{}) {
		return fact{}, errors.New("an early fact has no delivery id")
	}
	rec := &kgo.Record{Topic: string(v[0]), Partition: readInt4(v[1]), Offset: readInt8(v[2]), Value: v[3]}
	if v[4] != nil {
		rec.Headers = []kgo.RecordHeader{{Key: "traceparent", Value: v[4]}}
	}
	return fact{rec: rec, ev: ev, id: domain.DeliveryID(ev.GetDeliveryId())}, nil
}
