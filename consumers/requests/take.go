package requests

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/request"
)

// Taker takes the requests of one lane.
type Taker struct {
	lane       domain.Lane
	topic      string
	partitions int32
	templates  *Catalogue
	now        func() time.Time
	metrics    laneMetrics
}

// NewTaker makes one; partitions is the number that all topics that are keyed by user share.
func NewTaker(lane domain.Lane, partitions int32, templates *Catalogue, now func() time.Time) *Taker {
	return &Taker{
		lane: lane, topic: consumers.TopicDeliveries(lane), partitions: partitions, templates: templates, now: now,
		metrics: newLaneMetrics(lane),
	}
}

// Take turns a request into its deliveries, a command, or a dead letter. The error is only about Kafka.
func (t *Taker) Take(ctx context.Context, rc *Receipt) error {
	req, err := request.Parse(rc.Record.Value, contentType(rc.Record))
	if err != nil {
		t.refuse(ctx, rc, err)
		return nil
	}
	src := request.Source{Lane: t.lane, Position: consumers.PositionOf(rc.Record), At: rc.Record.Timestamp}
	if req.Command != "" {
		return t.command(ctx, rc, req, src)
	}
	var version int64
	if req.Template != "" {
		known, bad, err := t.template(ctx, rc, req.Template)
		if err != nil {
			return err
		}
		if bad == nil {
			bad = prefixed(req.Template, known.parsed.CheckVariables(req.Variables))
		}
		if bad != nil {
			t.refuse(ctx, rc, bad)
			return nil
		}
		version = known.version
		req.Template = known.name
	}
	if req.Broadcast {
		return t.broadcast(ctx, rc, req, src, version)
	}
	deliveries, err := req.Deliveries(src, version, t.now())
	if err != nil {
		t.refuse(ctx, rc, err)
		return nil
	}
	t.deliver(ctx, rc, deliveries)
	return nil
}

// template is [Catalogue.find], without a turn while it waits.
func (t *Taker) template(ctx context.Context, rc *Receipt, id string) (known knownTemplate, bad, err error) {
	if known, bad = t.templates.get(id); bad != nil {
		rc.writer.Work.Apart(ctx, func() { known, bad, err = t.templates.find(ctx, id) })
	}
	return known, bad, err
}

func prefixed(template string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("template %q: %w", template, err)
}

// eventHeaders are the kind and the trace; every record that follows shares them.
func eventHeaders(kind string, rec *kgo.Record) []kgo.RecordHeader {
	return append([]kgo.RecordHeader{{Key: consumers.HeaderEvent, Value: []byte(kind)}}, Trace(rec)...)
}

func (t *Taker) deliver(ctx context.Context, rc *Receipt, d *request.Deliveries) {
	users := d.Users()
	headers := eventHeaders("delivery_accepted", rc.Record)
	rc.Settled = func() {
		t.metrics.accepted.Inc()
		t.metrics.deliveries.Add(len(users))
		t.metrics.seconds.Update(max(0, t.now().Sub(rc.Record.Timestamp).Seconds()))
	}
	rc.Write(ctx, len(users), func(i int) *kgo.Record {
		return &kgo.Record{
			Topic:     t.topic,
			Partition: consumers.PartitionOf(users[i], t.partitions),
			Key:       []byte(users[i]),
			Value:     d.Encode(users[i]),
			Headers:   headers,
		}
	})
}

func (t *Taker) refuse(ctx context.Context, rc *Receipt, reason error) {
	rc.Settled = t.metrics.refused.Inc
	rc.Refuse(ctx, reason)
}

func contentType(rec *kgo.Record) string {
	for i := range rec.Headers {
		if strings.EqualFold(rec.Headers[i].Key, "content-type") {
			return string(rec.Headers[i].Value)
		}
	}
	return ""
}
