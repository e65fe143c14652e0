package intake

import (
	"context"
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/request"
)

// requestsOf takes the requests of one lane.
func (r *Role) requestsOf(lane domain.Lane) func(context.Context, *receipt) error {
	in := &requests{Role: r, lane: lane, topic: consumers.TopicDeliveries(lane), metrics: r.metrics.lanes[lane]}
	return in.take
}

type requests struct {
	*Role
	lane    domain.Lane
	topic   string
	metrics laneMetrics
}

// take turns a request into its deliveries, a cancel, or a dead letter. The error is only about Kafka.
func (in *requests) take(ctx context.Context, rc *receipt) error {
	req, err := request.Parse(rc.rec.Value, contentType(rc.rec))
	if err != nil {
		in.refuse(ctx, rc, err)
		return nil
	}
	src := request.Source{Lane: in.lane, Position: consumers.PositionOf(rc.rec), At: rc.rec.Timestamp}
	if req.Command != "" {
		return in.command(ctx, rc, req, src)
	}
	var version int64
	if req.Template != "" {
		t, bad, err := in.template(ctx, rc, req.Template)
		if err != nil {
			return err
		}
		if bad == nil {
			bad = prefixed(req.Template, t.parsed.CheckVariables(req.Variables))
		}
		if bad != nil {
			in.refuse(ctx, rc, bad)
			return nil
		}
		version = t.version
		req.Template = t.name
	}
	if req.Broadcast {
		return in.broadcast(ctx, rc, req, src, version)
	}
	deliveries, err := req.Deliveries(src, version, in.cfg.Now())
	if err != nil {
		in.refuse(ctx, rc, err)
		return nil
	}
	in.deliver(ctx, rc, deliveries)
	return nil
}

// template is [catalogue.find], without a turn while it waits.
func (in *requests) template(ctx context.Context, rc *receipt, id string) (t knownTemplate, bad, err error) {
	if t, bad = in.templates.get(id); bad != nil {
		rc.feed.work.apart(ctx, func() { t, bad, err = in.templates.find(ctx, id) })
	}
	return t, bad, err
}

func prefixed(template string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("template %q: %w", template, err)
}

// eventHeaders are the kind and the trace; every record that follows shares them.
func eventHeaders(kind string, rec *kgo.Record) []kgo.RecordHeader {
	return append([]kgo.RecordHeader{{Key: consumers.HeaderEvent, Value: []byte(kind)}}, trace(rec)...)
}

func (in *requests) deliver(ctx context.Context, rc *receipt, d *request.Deliveries) {
	users := d.Users()
	headers := eventHeaders("delivery_accepted", rc.rec)
	rc.settled = func() {
		in.metrics.accepted.Inc()
		in.metrics.deliveries.Add(len(users))
		in.metrics.seconds.Update(max(0, in.cfg.Now().Sub(rc.rec.Timestamp).Seconds()))
	}
	rc.write(ctx, len(users), func(i int) *kgo.Record {
		return &kgo.Record{
			Topic:     in.topic,
			Partition: consumers.PartitionOf(users[i], in.cfg.Partitions),
			Key:       []byte(users[i]),
			Value:     d.Encode(users[i]),
			Headers:   headers,
		}
	})
}

func (in *requests) refuse(ctx context.Context, rc *receipt, reason error) {
	rc.settled = in.metrics.refused.Inc
	rc.refuse(ctx, reason)
}

func contentType(rec *kgo.Record) string {
	for i := range rec.Headers {
		if strings.EqualFold(rec.Headers[i].Key, "content-type") {
			return string(rec.Headers[i].Value)
		}
	}
	return ""
}
