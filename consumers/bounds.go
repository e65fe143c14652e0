package consumers

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Bounds are the first offset that there is of a partition and its last stable offset: one past the last record
// that may be read now. Where no transaction is open, that is the partition's end. It asks again until Kafka
// answers or ctx ends; an error before that is one that waiting can't help.
func (r *Reader) Bounds(ctx context.Context, topic string, partition int32) (start, end int64, err error) {
	all, err := r.BoundsOf(ctx, partition, topic)
	if err != nil {
		return 0, 0, err
	}
	return all[0].Start, all[0].End, nil
}

// Span is what a partition holds: see [Reader.Bounds].
type Span struct{ Start, End int64 }

// BoundsOf are the bounds of one partition number of several topics, in their order, for two requests a broker.
func (r *Reader) BoundsOf(ctx context.Context, partition int32, topics ...string) ([]Span, error) {
	const earliest, latest = -2, -1
	spans := make([]Span, len(topics))
	err := r.persist(ctx, "find the ends of", func(ctx context.Context) error {
		starts, err := r.offsets(ctx, partition, topics, earliest)
		if err != nil {
			return err
		}
		ends, err := r.offsets(ctx, partition, topics, latest)
		for i := range ends {
			spans[i] = Span{starts[i], ends[i]}
		}
		return err
	})
	return spans, err
}

// Since is the offset of the first record of a partition whose time is not before at; the one that comes next, where
// there is none.
func (r *Reader) Since(ctx context.Context, topic string, partition int32, at time.Time) (offset int64, err error) {
	topics := []string{topic}
	err = r.persist(ctx, "find a time in", func(ctx context.Context) error {
		found, err := r.offsets(ctx, partition, topics, max(at.UnixMilli(), 0))
		if err == nil && found[0] < 0 {
			found, err = r.offsets(ctx, partition, topics, -1)
		}
		if err == nil {
			offset = found[0]
		}
		return err
	})
	return offset, err
}

// readCommitted is the isolation level of a request. An open transaction ends the log for us: nothing behind its
// first record can be read until it ends.
const readCommitted = 1

// offsets asks for one partition of each topic only: with all of them in every answer, a restore of n partitions
// would cost n².
func (r *Reader) offsets(ctx context.Context, partition int32, topics []string, which int64) ([]int64, error) {
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID, req.IsolationLevel = -1, readCommitted
	for _, topic := range topics {
		p := kmsg.NewListOffsetsRequestTopicPartition()
		p.Partition, p.Timestamp = partition, which
		t := kmsg.NewListOffsetsRequestTopic()
		t.Topic, t.Partitions = topic, append(t.Partitions, p)
		req.Topics = append(req.Topics, t)
	}
	resp, err := req.RequestWith(ctx, r.cl)
	if err != nil && (resp == nil || !errors.Is(err, kerr.UnknownTopicOrPartition)) { // which one is unknown, the answer says
		return nil, fmt.Errorf("%s/%d: %w", strings.Join(topics, ", "), partition, err)
	}
	found := make([]int64, len(topics))
	for i, topic := range topics {
		err := error(kerr.UnknownTopicOrPartition)
		for _, t := range resp.Topics {
			for _, p := range t.Partitions {
				if t.Topic == topic && p.Partition == partition {
					found[i], err = p.Offset, kerr.ErrorForCode(p.ErrorCode)
				}
			}
		}
		if err != nil {
			return nil, fmt.Errorf("%s/%d: %w", topic, partition, err)
		}
	}
	return found, nil
}

// persist repeats what needs Kafka until it succeeds, can't, or ctx ends. The errors of do name the partition.
func (r *Reader) persist(ctx context.Context, doing string, do func(context.Context) error) error {
	unknown := time.Now().Add(metadataWait) // until then metadata may be behind
	gone := func(err error) bool { return errors.Is(err, kerr.UnknownTopicOrPartition) && time.Now().After(unknown) }
	err := Retry{
		First: 100 * time.Millisecond, Most: 2 * time.Second,
		Over: func(err error) bool { return gone(err) || IsFatal(err) || errors.Is(err, kgo.ErrClientClosed) },
		Tell: func(err error, next time.Duration) {
			r.cfg.logger().Warn("kafka does not say where a partition stands", "error", err, "next_try", next)
		},
	}.Do(ctx, func() error {
		attempt, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		return do(attempt)
	})
	switch {
	case err == nil:
		return nil
	case gone(err):
		return fmt.Errorf("no such partition, and none came within %s; run `whisper topics apply`: %w", metadataWait, err)
	default:
		return fmt.Errorf("%s %w", doing, err)
	}
}

// probeEvery is how long a partition may stand still before its end before it is looked at closely.
const probeEvery = time.Second

// probe ends the wait for records that do not exist: the last offsets of a partition may hold none, after a
// compaction or at the end of a transaction, and a consumer is never told. It lasts until f has caught up.
func (r *Reader) probe(f *followed) {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for last := f.next.Load(); ; {
		select {
		case <-f.caughtUp:
			return
		case <-f.gone:
			return
		case <-r.ctx.Done():
			return
		case <-tick.C:
		}
		next := f.next.Load()
		if next != last {
			last = next
			continue
		}
		empty, err := r.emptyUpTo(r.ctx, f.topic, f.partition, next, f.end)
		if err != nil && r.ctx.Err() == nil {
			r.cfg.logger().Warn("look for the last record", "topic", f.topic, "partition", f.partition, "error", err)
		}
		if empty {
			f.done()
			return
		}
	}
}

// Passed is how far a partition that is followed is read: where nothing but holes, as compaction leaves them, is between
// what its sink was handed last (from is the offset after it) and the partition's end, that is the end. Otherwise it
// is from.
func (r *Reader) Passed(ctx context.Context, topic string, partition int32, from int64) (next int64, err error) {
	_, end, err := r.Bounds(ctx, topic, partition)
	if err != nil || end <= from {
		return from, err
	}
	empty, err := r.emptyUpTo(ctx, topic, partition, from, end)
	if err != nil || !empty {
		return from, err
	}
	return end, nil
}

// emptyUpTo says that there is no record in [from, end), which must not be above the last stable offset.
func (r *Reader) emptyUpTo(ctx context.Context, topic string, partition int32, from, end int64) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	id, leader, err := leaderOf(ctx, r.adm, topic, partition)
	if err != nil {
		return false, err
	}
	for from < end {
		rp, err := fetchOne(ctx, r.cl, topic, id, leader, partition, from)
		if err != nil {
			return false, err
		}
		if errors.Is(kerr.ErrorForCode(rp.ErrorCode), kerr.OffsetOutOfRange) && from < rp.LogStartOffset {
			from = rp.LogStartOffset // retention was faster
			continue
		}
		got, next := kgo.ProcessFetchPartition(
			kgo.ProcessFetchPartitionOpts{Topic: topic, Partition: partition, Offset: from, IsolationLevel: kgo.ReadCommitted()}, rp, bounded(), nil)
		switch {
		case got.Err != nil:
			return false, got.Err
		case len(got.Records) > 0:
			return got.Records[0].Offset >= end, nil
		case next <= from: // nothing at all comes after
			return got.LastStableOffset >= end, nil
		}
		from = next
	}
	return true, nil
}

func leaderOf(ctx context.Context, adm *kadm.Client, topic string, partition int32) (id [16]byte, leader int32, err error) {
	topics, err := adm.ListTopics(ctx, topic)
	if err != nil {
		return id, 0, err
	}
	t := topics[topic]
	p, ok := t.Partitions[partition]
	if !ok && t.Err == nil {
		return id, 0, kerr.UnknownTopicOrPartition
	}
	return t.ID, p.Leader, errors.Join(t.Err, p.Err)
}

// fetchOne fetches the batch that holds from, whatever its size.
func fetchOne(
	ctx context.Context, cl *kgo.Client, topic string, id [16]byte, leader, partition int32, from int64,
) (*kmsg.FetchResponseTopicPartition, error) {
	req := kmsg.NewPtrFetchRequest()
	req.ReplicaID, req.MinBytes, req.MaxBytes, req.IsolationLevel = -1, 0, 1<<20, readCommitted
	p := kmsg.NewFetchRequestTopicPartition()
	p.Partition, p.FetchOffset, p.PartitionMaxBytes, p.CurrentLeaderEpoch = partition, from, 1, -1 // the first batch comes whatever its size
	t := kmsg.NewFetchRequestTopic()
	t.Topic, t.TopicID, t.Partitions = topic, id, append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	defer looking(cl)()
	raw, err := cl.Broker(int(leader)).RetriableRequest(ctx, req)
	if err != nil {
		return nil, err
	}
	resp, ok := raw.(*kmsg.FetchResponse)
	if !ok || kerr.ErrorForCode(resp.ErrorCode) != nil {
		return nil, fmt.Errorf("fetch at %d: %w", from, kerr.ErrorForCode(resp.ErrorCode))
	}
	for i := range resp.Topics {
		for j := range resp.Topics[i].Partitions {
			return &resp.Topics[i].Partitions[j], nil
		}
	}
	return nil, errors.New("the broker's answer names no partition")
}
