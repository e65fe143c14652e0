package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/consumers"
)

// Scan reads topics for a person: everything that is there, or what comes from now on.
type Scan struct {
	Client consumers.ClientConfig
	Topics []string
	// only, where it is set, is the one user id whose partitions are read.
	Only string
	// since passes over what is older; zero: from the start, or from the end when following.
	Since  time.Time
	Follow bool
	// progress, where it is set, is told how many of the offsets that were there at the start are read; some may be markers.
	Progress func(done, total int64)
	// CaughtUp, where it is set, is called once everything that was there at the start was handed over.
	CaughtUp func() error
}

// Run hands over records, in order per partition, until it has read everything that was there or, when
// following, until ctx ends. An error of sink ends it.
func (s Scan) Run(ctx context.Context, sink func(*kgo.Record) error) error {
	cl, err := kgo.NewClient(append(s.Client.Options(), kgo.KeepControlRecords())...) // the last one may be a marker
	if err != nil {
		return fmt.Errorf("kafka client: %w", err)
	}
	defer cl.Close()
	starts, ends, err := s.bounds(ctx, kadm.NewClient(cl))
	if err != nil {
		return err
	}
	left := map[string]map[int32]int64{} // where a partition is caught up
	consume := map[string]map[int32]kgo.Offset{}
	for topic, partitions := range starts {
		consume[topic], left[topic] = map[int32]kgo.Offset{}, map[int32]int64{}
		for p, from := range partitions {
			if end := ends[topic][p]; from < end {
				left[topic][p] = end
			} else if !s.Follow {
				continue
			}
			consume[topic][p] = kgo.NewOffset().At(from)
		}
	}
	cl.AddConsumePartitions(consume)
	return s.poll(ctx, cl, left, starts, sink)
}

// poll moves at, from where each partition begins, until nothing is left.
func (s Scan) poll(ctx context.Context, cl *kgo.Client, left, at map[string]map[int32]int64, sink func(*kgo.Record) error) error {
	told, total := false, distance(at, left)
	for {
		if s.Progress != nil && !told {
			s.Progress(total-distance(at, left), total)
		}
		if !told && empty(left) {
			told = true
			if s.CaughtUp != nil {
				if err := s.CaughtUp(); err != nil {
					return err
				}
			}
			if !s.Follow {
				return nil
			}
		}
		fetches := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // a stop is not an error
		}
		for _, big := range consumers.SkipOversized(cl, fetches) {
			if big.NextOffset >= left[big.Topic][big.Partition] {
				delete(left[big.Topic], big.Partition)
			}
		}
		var errs []error
		fetches.EachError(func(topic string, partition int32, err error) {
			if consumers.IsFatal(err) {
				errs = append(errs, fmt.Errorf("consume %s/%d: %w", topic, partition, err))
			}
		})
		fetches.EachPartition(func(p kgo.FetchTopicPartition) {
			for _, rec := range p.Records {
				if len(errs) == 0 && !rec.Attrs.IsControl() {
					if err := sink(rec); err != nil {
						errs = append(errs, err)
					}
				}
				at[p.Topic][p.Partition] = rec.Offset + 1
				if rec.Offset+1 >= left[p.Topic][p.Partition] {
					delete(left[p.Topic], p.Partition)
				}
			}
		})
		if err := errors.Join(errs...); err != nil {
			return err
		}
	}
}

// distance is how many offsets are between two places, in the partitions of the second.
func distance(at, left map[string]map[int32]int64) int64 {
	var n int64
	for topic, partitions := range left {
		for p, end := range partitions {
			n += end - at[topic][p]
		}
	}
	return n
}

func empty(left map[string]map[int32]int64) bool {
	for _, partitions := range left {
		if len(partitions) > 0 {
			return false
		}
	}
	return true
}

// bounds are, for each partition to read, where to start and where it ends now.
func (s Scan) bounds(ctx context.Context, adm *kadm.Client) (starts, ends map[string]map[int32]int64, err error) {
	listed, err := adm.ListCommittedOffsets(ctx, s.Topics...)
	if err == nil {
		err = listed.Error()
	}
	if err != nil {
		return nil, nil, fmt.Errorf("find the ends of %v: %w (has `whisper topics apply` been run?)", s.Topics, err)
	}
	from := listed
	switch {
	case !s.Since.IsZero():
		from, err = adm.ListOffsetsAfterMilli(ctx, s.Since.UnixMilli(), s.Topics...)
	case !s.Follow:
		from, err = adm.ListStartOffsets(ctx, s.Topics...)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("find the starts of %v: %w", s.Topics, err)
	}
	return s.pick(from), s.pick(listed), nil
}

func (s Scan) pick(offsets kadm.ListedOffsets) map[string]map[int32]int64 {
	out := map[string]map[int32]int64{}
	for topic, partitions := range offsets {
		out[topic] = map[int32]int64{}
		for p, o := range partitions {
			if s.Only == "" || p == consumers.PartitionOf(s.Only, int32(len(partitions))) {
				out[topic][p] = o.Offset
			}
		}
	}
	return out
}
