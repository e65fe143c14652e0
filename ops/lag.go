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
	// hold is how long a record may be uncommitted though it was worked on.
	hold time.Duration
}

func (m *HealthMonitor) queues(lane domain.Lane) []queue {
	return []queue{
		{m.cfg.IntakeGroup, consumers.TopicRequests(lane), 0},
		{m.cfg.DispatchGroup, consumers.TopicDeliveries(lane), m.cfg.HoldBack},
	}
}

// lanes measures how much waits on each lane, and whether something waits for too long.
func (m *HealthMonitor) lanes(ctx context.Context, doc *Health, now time.Time) {
	commits, err := m.commits(ctx)
	if err != nil {
		m.cfg.Logger.Warn("measure lag", "error", err)
		doc.Reasons = append(doc.Reasons, "kafka does not answer, so queue depths are unknown")
		return
	}
	for _, lane := range domain.Lanes {
		depth, late, err := m.lane(ctx, lane, commits, now)
		if err != nil {
			m.cfg.Logger.Warn("measure lag", "lane", lane.String(), "error", err)
			doc.Reasons = append(doc.Reasons, fmt.Sprintf("the queue of lane %s could not be measured", lane))
			continue
		}
		doc.QueueDepths[lane.String()] = depth
		m.depths[lane].Set(float64(depth))
		if late {
			doc.Reasons = append(doc.Reasons, fmt.Sprintf("lane %s: the oldest of %d undispatched records is older than %s", lane, depth, m.cfg.MaxWait[lane]))
		}
	}
}

func (m *HealthMonitor) commits(ctx context.Context) (map[string]kadm.OffsetResponses, error) {
	commits := map[string]kadm.OffsetResponses{}
	for _, group := range []string{m.cfg.IntakeGroup, m.cfg.DispatchGroup} {
		offsets, err := m.adm.FetchOffsets(ctx, group)
		if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
			return nil, fmt.Errorf("fetch the offsets of %s: %w", group, err)
		}
		commits[group] = offsets
	}
	return commits, nil
}

// lane sums what was not committed. Whether the oldest of it is past the bound is asked from Kafka's time
// index, without reading a record: the first record within the bound stands behind the commit.
func (m *HealthMonitor) lane(ctx context.Context, lane domain.Lane, commits map[string]kadm.OffsetResponses, now time.Time) (depth int64, late bool, err error) {
	for _, q := range m.queues(lane) {
		n, old, err := m.measure(ctx, q, commits[q.group], now.Add(-m.cfg.MaxWait[lane]-q.hold))
		if err != nil {
			return 0, false, err
		}
		depth, late = depth+n, late || old
	}
	return depth, late, nil
}

func (m *HealthMonitor) measure(ctx context.Context, q queue, commits kadm.OffsetResponses, bound time.Time) (depth int64, late bool, err error) {
	starts, err := m.adm.ListStartOffsets(ctx, q.topic)
	if err != nil {
		return 0, false, err
	}
	// The last stable offsets: what an open transaction holds back is not ours to work off yet.
	ends, err := m.adm.ListCommittedOffsets(ctx, q.topic)
	if err != nil {
		return 0, false, err
	}
	recent, err := m.adm.ListOffsetsAfterMilli(ctx, bound.UnixMilli(), q.topic)
	if err != nil {
		return 0, false, err
	}
	if err := errors.Join(starts.Error(), ends.Error(), recent.Error()); err != nil {
		return 0, false, err
	}
	for partition, end := range ends[q.topic] {
		next := starts[q.topic][partition].Offset
		if c, ok := commits.Lookup(q.topic, partition); ok && c.At > next {
			next = c.At
		}
		depth += max(end.Offset-next, 0)
		// Records that came after the ends were listed are no reason.
		late = late || next < min(recent[q.topic][partition].Offset, end.Offset)
	}
	return depth, late, nil
}
