package projections

import "context"

// writeTimeline appends one row a fact. There is no key: that each record comes once is what the
// checkpoint guarantees.
func (t *transaction) writeTimeline(ctx context.Context) error {
	if len(t.timeline) == 0 {
		return nil
	}
	rows := newCopy(10, 256*len(t.timeline))
	var scratch []byte
	for _, f := range t.timeline {
		c := rows.add()
		c.uuid(f.id)
		c.day(factDay(f))
		c.int8(f.ev.GetAtUs() - pgEpochUS)
		c.text(kindName(f))
		scratch = appendDetail(append(scratch[:0], 1), f.ev) // jsonb's version, then the text
		c.raw(scratch)
		c.text(f.rec.Topic)
		c.int4(f.rec.Partition)
		c.int8(f.rec.Offset)
		if cause := f.ev.GetCause(); cause.GetTopic() != "" {
			scratch = appendPosition(scratch[:0], cause)
			c.raw(scratch)
		} else {
			c.null()
		}
		c.optional(f.traceparent())
	}
	return t.copy(ctx, `timeline (delivery_id, day, at, kind, detail, topic, partition, "offset", cause, traceparent)`, rows)
}

// factDay is the day of the fact's delivery, so that a delivery's story stands in one partition and goes
// with it. A fact whose delivery is not known stands under its own day.
func factDay(f fact) int32 {
	if f.timeless() {
		return dayOfUS(f.ev.GetAtUs())
	}
	return dayOf(f.id)
}
