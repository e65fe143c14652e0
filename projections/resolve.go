package projections

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// A person's reading may be reported where nobody knows the delivery's time any more. Such a fact
// belongs to the latest delivery of the notification to the user that was tried at all: nothing else can
// have been read. One that is seen before its delivery's attempt waits in early_facts.

type recipient struct{ notificationID, userID string }

func recipientOf(ev *whisperv1.Event) recipient {
	return recipient{ev.GetNotificationId(), ev.GetUserId()}
}

// wasTried rows are those that a timeless fact may belong to.
func (r *row) wasTried() bool { return r.attempts > 0 }

func (t *transaction) resolve(ctx context.Context) error {
	if len(t.timeless) == 0 {
		return nil
	}
	found := t.triedHere()
	var unknown []recipient
	for _, f := range t.timeless {
		if _, ok := found[f.id.Hash()]; !ok {
			r := recipientOf(f.ev)
			unknown = append(unknown, r)
			for _, a := range t.known[r.userID] { // read after the user was erased, of a delivery from before
				unknown = append(unknown, recipient{r.notificationID, a.name})
			}
		}
	}
	if err := t.lookUp(ctx, unknown, found); err != nil {
		return err
	}
	var early []fact
	for _, f := range t.timeless {
		id, ok := found[f.id.Hash()]
		switch {
		case ok:
			f.id = id
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

// triedHere are the batch's own deliveries that were tried, by hash; of several the latest.
func (t *transaction) triedHere() map[domain.DeliveryHash]domain.DeliveryID {
	found := map[domain.DeliveryHash]domain.DeliveryID{}
	for id, r := range t.rows {
		if r.wasTried() && id.Compare(found[id.Hash()]) > 0 {
			found[id.Hash()] = id
		}
	}
	return found
}

func recipientColumns(all []recipient) *columns {
	cols := arrays(oidText, oidText)
	for _, r := range all {
		f := cols.add()
		f[0].text(r.notificationID)
		f[1].text(r.userID)
	}
	return cols
}

// lookUp adds the latest tried delivery of each recipient, as far as the table has one.
func (t *transaction) lookUp(ctx context.Context, all []recipient, found map[domain.DeliveryHash]domain.DeliveryID) error {
	if len(all) == 0 {
		return nil
	}
	res, err := t.run(ctx, t.tx, `
		SELECT d.delivery_id FROM unnest($1::text[], $2::text[]) AS k(notification_id, user_id)
		CROSS JOIN LATERAL (
			SELECT delivery_id FROM $.deliveries AS d
			WHERE d.notification_id = k.notification_id AND d.user_id = k.user_id AND d.attempts > 0
			ORDER BY delivery_id DESC LIMIT 1
		) AS d`, recipientColumns(all).params()...)
	if err != nil {
		return err
	}
	for _, v := range res.Rows {
		id := domain.DeliveryID(v[0])
		found[id.Hash()] = id
	}
	return nil
}

func (t *transaction) writeEarly(ctx context.Context, early []fact) error {
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
	return t.copy(ctx, `early_facts (topic, partition, "offset", notification_id, user_id, at, event, traceparent)`, rows)
}

// takeEarly takes up the facts that waited for deliveries of this batch.
func (t *transaction) takeEarly(ctx context.Context) error {
	var any bool
	if err := t.tx.QueryRow(ctx, t.sql("SELECT EXISTS (SELECT FROM $.early_facts)")).Scan(&any); err != nil || !any {
		return err
	}
	tried := t.triedHere()
	if len(tried) == 0 {
		return nil
	}
	all := make([]recipient, 0, len(tried))
	for _, id := range tried {
		all = append(all, recipient{t.rows[id].notificationID, t.rows[id].userID})
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
	for _, v := range res.Rows {
		f, err := earlyFact(v)
		if err != nil {
			return err
		}
		f.id = tried[f.id.Hash()]
		facts = append(facts, f)
	}
	slices.SortFunc(facts, func(a, b fact) int { return int(a.rec.Offset - b.rec.Offset) })
	for _, f := range facts {
		t.add(f)
	}
	return nil
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
