package consumers

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Where to start reading, instead of an offset.
const (
	FromStart int64 = -2
	FromEnd   int64 = -1
)

// Reader follows partitions directly, without a group and without commits: changelogs, presence, a
// node's own topic. One client serves all of them.
type Reader struct {
	cl  *kgo.Client
	adm *kadm.Client
	cfg ClientConfig

	mu        sync.Mutex
	following map[string]map[int32]*followed
}

type followed struct {
	sink     func([]*kgo.Record)
	end      int64 // caught up when the position reaches it
	next     int64
	caughtUp chan struct{}
}

// NewReader makes one; Run must run for records to come. The caller closes it.
func NewReader(c ClientConfig) (*Reader, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	cl, err := kgo.NewClient(append(
		c.Options(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchMaxWait(fetchMaxWait),
	)...)
	if err != nil {
		return nil, fmt.Errorf("kafka reader: %w", err)
	}
	return &Reader{cl: cl, adm: kadm.NewClient(cl), cfg: c, following: map[string]map[int32]*followed{}}, nil
}

// Follow hands the records of a partition to sink, in order, from an offset, FromStart or FromEnd, until
// Unfollow. sink is called by Run and holds up every partition of this reader while it runs.
// caughtUp is closed when everything that was there at the time of the call has been handed over.
func (r *Reader) Follow(ctx context.Context, topic string, partition int32, from int64, sink func([]*kgo.Record)) (<-chan struct{}, error) {
	start, end, err := r.bounds(ctx, topic, partition)
	if err != nil {
		return nil, err
	}
	switch {
	case from == FromEnd:
		from = end
	case from < start: // FromStart, or retention was faster
		from = start
	}
	f := &followed{sink: sink, end: end, next: from, caughtUp: make(chan struct{})}
	if from >= end {
		close(f.caughtUp)
	}
	r.mu.Lock()
	if r.following[topic] == nil {
		r.following[topic] = map[int32]*followed{}
	}
	r.following[topic][partition] = f
	r.mu.Unlock()
	r.cl.AddConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: kgo.NewOffset().At(from)}})
	return f.caughtUp, nil
}

// Unfollow stops; sink may be called once more at most while it returns.
func (r *Reader) Unfollow(topic string, partition int32) {
	r.mu.Lock()
	delete(r.following[topic], partition)
	r.mu.Unlock()
	r.cl.RemoveConsumePartitions(map[string][]int32{topic: {partition}})
}

// Run hands records to the sinks until ctx ends; it returns an error only if trying again can't help.
func (r *Reader) Run(ctx context.Context) error {
	for {
		fetches := r.cl.PollRecords(ctx, 10_000)
		if ctx.Err() != nil || fetches.IsClientClosed() {
			return nil //nolint:nilerr // a stop is not an error
		}
		if err := fatalFetch(fetches, r.cfg); err != nil {
			return err
		}
		fetches.EachPartition(r.hand)
	}
}

// fatalFetch is the first error that ends a consumer; the others are logged and the client goes on.
func fatalFetch(fetches kgo.Fetches, c ClientConfig) error {
	var fatal error
	fetches.EachError(func(topic string, partition int32, err error) {
		// Data loss ends it too: somebody must look before Whisper goes on as if nothing had happened.
		if loss := (*kgo.ErrDataLoss)(nil); IsFatal(err) || errors.As(err, &loss) {
			fatal = fmt.Errorf("consume %s/%d: %w", topic, partition, err)
			return
		}
		c.logger().Warn("consume", "topic", topic, "partition", partition, "error", err)
	})
	return fatal
}

func (r *Reader) hand(p kgo.FetchTopicPartition) {
	if len(p.Records) == 0 {
		return
	}
	r.mu.Lock()
	f := r.following[p.Topic][p.Partition]
	r.mu.Unlock()
	if f == nil {
		return
	}
	f.sink(p.Records)
	before := f.next
	f.next = p.Records[len(p.Records)-1].Offset + 1
	if before < f.end && f.next >= f.end {
		close(f.caughtUp)
	}
}

// bounds are the first offset that there is and the one that comes next.
func (r *Reader) bounds(ctx context.Context, topic string, partition int32) (start, end int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	starts, err := r.adm.ListStartOffsets(ctx, topic)
	if err != nil {
		return 0, 0, fmt.Errorf("find the start of %s: %w", topic, err)
	}
	ends, err := r.adm.ListEndOffsets(ctx, topic)
	if err != nil {
		return 0, 0, fmt.Errorf("find the end of %s: %w", topic, err)
	}
	s, ok := starts.Lookup(topic, partition)
	e, ok2 := ends.Lookup(topic, partition)
	if !ok || !ok2 {
		return 0, 0, fmt.Errorf("%s/%d: no such partition; run `whisper topics apply`", topic, partition)
	}
	if err := errors.Join(s.Err, e.Err); err != nil {
		return 0, 0, fmt.Errorf("find the ends of %s/%d: %w", topic, partition, err)
	}
	return s.Offset, e.Offset, nil
}

// Close ends the client.
func (r *Reader) Close() { r.cl.Close() }
