package ops

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
)

// A queue is one topic and the group that works it off.
type queue struct {
	group string
	topic string
	lane  domain.Lane
	// channel is of a push topic.
	channel string
	// wait is how old the oldest record may be that is not committed.
	wait time.Duration
}

// queues are all that a delivery may wait in, but for the topics of gateways, which heartbeats speak for.
func (m *HealthMonitor) queues() []queue {
	var all []queue
	for _, lane := range domain.Lanes {
		// Dispatch and push hold an offset back while they wait for an answer, so a record counts as late after both times.
		wait, held := m.cfg.MaxWait[lane], m.cfg.MaxWait[lane]+m.cfg.HoldBack
		all = append(
			all,
			queue{group: m.cfg.IntakeGroup, topic: consumers.TopicRequests(lane), lane: lane, wait: wait},
			queue{group: m.cfg.DispatchGroup, topic: consumers.TopicDeliveries(lane), lane: lane, wait: held},
		)
		for _, channel := range domain.PushChannels {
			all = append(all, queue{
				group: m.cfg.PushGroup(channel, lane), topic: consumers.TopicPush(channel, lane), lane: lane, channel: channel, wait: held,
			})
		}
	}
	return all
}

// waiting is what a queue's offsets say.
type waiting struct {
	records int64
	late    bool
}

// lanes measures how much waits where, whether something waits for too long, and whether somebody works it off.
func (m *HealthMonitor) lanes(ctx context.Context, doc *Health, now time.Time) {
	queues := m.queues()
	log, err := m.logOf(ctx, queues)
	var commits map[string]kadm.OffsetResponses
	if err == nil {
		commits, err = m.commits(ctx, queues)
	}
	if err != nil {
		m.cfg.Logger.Warn("measure lag", "error", err)
		doc.Reasons = append(doc.Reasons, "kafka does not answer, so queue depths are unknown")
		return
	}
	depths := map[string]int64{}
	late := map[domain.Lane]bool{}
	for _, q := range queues {
		w, err := m.measure(ctx, q.topic, log, func(id int32) (int64, bool) {
			c, ok := commits[q.group].Lookup(q.topic, id)
			return c.At, ok
		}, now.Add(-q.wait))
		if err != nil {
			m.cfg.Logger.Warn("measure lag", "topic", q.topic, "error", err)
			doc.Reasons = append(doc.Reasons, fmt.Sprintf("how much waits in %s could not be measured", q.topic))
			continue
		}
		depths[q.topic] = w.records
		m.waiting[q.topic].Set(float64(w.records))
		if q.channel == "" {
			doc.QueueDepths[q.lane.String()] += w.records
			late[q.lane] = late[q.lane] || w.late
			continue
		}
		doc.PushDepths[q.channel+"."+q.lane.String()] = w.records
		if w.late {
			doc.Reasons = append(doc.Reasons, fmt.Sprintf("push %s, lane %s: the oldest of %d records that were not pushed is older than %s",
				q.channel, q.lane, w.records, q.wait))
		}
	}
	for _, lane := range domain.Lanes {
		depth, measured := doc.QueueDepths[lane.String()]
		if measured {
			m.depths[lane].Set(float64(depth))
		}
		if late[lane] {
			doc.Reasons = append(doc.Reasons, fmt.Sprintf("lane %s: the oldest of %d undispatched records is older than %s",
				lane, depth, m.cfg.MaxWait[lane]))
		}
	}
	m.consumers(ctx, doc, queues, depths, log, now)
	m.projection(ctx, doc, log, now)
}

// logOffsets are where topics begin and end.
type logOffsets struct{ starts, ends kadm.ListedOffsets }

func (m *HealthMonitor) logOf(ctx context.Context, queues []queue) (log logOffsets, err error) {
	topics := []string{consumers.TopicEvents}
	for _, q := range queues {
		topics = append(topics, q.topic)
	}
	if log.starts, err = m.adm.ListStartOffsets(ctx, topics...); err != nil {
		return log, err
	}
	// The last stable offsets: records of an open transaction can't be consumed yet.
	log.ends, err = m.adm.ListCommittedOffsets(ctx, topics...)
	return log, err
}

func (m *HealthMonitor) commits(ctx context.Context, queues []queue) (map[string]kadm.OffsetResponses, error) {
	commits := map[string]kadm.OffsetResponses{}
	for _, q := range queues {
		if _, known := commits[q.group]; known {
			continue
		}
		offsets, err := m.adm.FetchOffsets(ctx, q.group)
		if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
			return nil, fmt.Errorf("fetch the offsets of %s: %w", q.group, err)
		}
		commits[q.group] = offsets
	}
	return commits, nil
}

// measure counts the records that are not committed, and finds out whether the oldest is older than bound. It reads no
// record: Kafka's time index gives the first offset within the bound, which is compared with the committed one. Kafka is
// asked only about partitions where records wait.
func (m *HealthMonitor) measure(
	ctx context.Context, topic string, log logOffsets, committed func(id int32) (int64, bool), bound time.Time,
) (w waiting, err error) {
	next := map[int32]int64{}
	for id, end := range log.ends[topic] {
		start := log.starts[topic][id]
		if err := errors.Join(end.Err, start.Err); err != nil {
			return waiting{}, err
		}
		next[id] = start.Offset
		if at, ok := committed(id); ok && at > start.Offset {
			next[id] = at
		}
		w.records += max(end.Offset-next[id], 0)
	}
	if w.records == 0 {
		return w, nil
	}
	recent, err := m.adm.ListOffsetsAfterMilli(ctx, bound.UnixMilli(), topic)
	if err == nil {
		err = recent.Error()
	}
	if err != nil {
		return waiting{}, err
	}
	for id, end := range log.ends[topic] {
		// Records that came after the ends were listed are no reason.
		w.late = w.late || next[id] < min(recent[topic][id].Offset, end.Offset)
	}
	return w, nil
}

// projection measures how far the tables are behind the log. Analysts, and the rates above, lack the same records.
func (m *HealthMonitor) projection(ctx context.Context, doc *Health, log logOffsets, now time.Time) {
	if m.cfg.Projected == nil {
		return
	}
	known, err := m.cfg.Projected(ctx)
	if err != nil {
		m.cfg.Logger.Warn("read how far the tables are", "error", err)
		doc.Reasons = append(doc.Reasons, "how far the tables are behind is unknown")
		return
	}
	late := false
	for _, topic := range projectedTopics() {
		w, err := m.measure(ctx, topic, log, func(id int32) (int64, bool) {
			at, ok := known[topic][id]
			return at, ok
		}, now.Add(-m.cfg.MaxProjectionLag))
		if err != nil {
			m.cfg.Logger.Warn("measure how far the tables are", "topic", topic, "error", err)
			doc.Reasons = append(doc.Reasons, "how far the tables are behind could not be measured")
			return
		}
		doc.ProjectionLag += w.records
		late = late || w.late
	}
	if late {
		doc.Reasons = append(doc.Reasons, fmt.Sprintf("the tables are behind: the oldest of %d records that they lack is older than %s",
			doc.ProjectionLag, m.cfg.MaxProjectionLag))
	}
}

func projectedTopics() []string {
	topics := []string{consumers.TopicEvents}
	for _, lane := range domain.Lanes {
		topics = append(topics, consumers.TopicDeliveries(lane))
	}
	return topics
}
