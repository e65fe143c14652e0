package consumers

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func (l *Loop) commitEvery(ctx context.Context) {
	tick := time.NewTicker(l.cfg.CommitInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			l.commits.Lock()
			l.mu.Lock()
			var all []*worker
			for _, parts := range l.workers {
				for _, w := range parts {
					all = append(all, w)
				}
			}
			l.mu.Unlock()
			l.commit(ctx, all)
			l.commits.Unlock()
		}
	}
}

// commit writes what moved since the last commit. A commit that fails is tried again with the next
// one; what it said stays true.
func (l *Loop) commit(ctx context.Context, workers []*worker) {
	if l.cfg.Starts != nil {
		return
	}
	offsets := map[string]map[int32]kgo.EpochOffset{}
	moved := map[*Partition]int64{}
	for _, w := range workers {
		if next := w.part.gaps.pass(w.part.next.Load()); next > w.part.committed {
			if offsets[w.part.Topic] == nil {
				offsets[w.part.Topic] = map[int32]kgo.EpochOffset{}
			}
			offsets[w.part.Topic][w.part.ID] = kgo.EpochOffset{Epoch: -1, Offset: next}
			moved[w.part] = next
		}
	}
	if len(moved) == 0 {
		return
	}
	if err := l.commitSync(ctx, offsets); err != nil {
		if ctx.Err() == nil {
			l.cfg.Client.logger().Warn("commit offsets", "group", l.cfg.Group, "error", err)
		}
		return
	}
	for p, next := range moved {
		p.committed = next
	}
}

func (l *Loop) commitSync(ctx context.Context, offsets map[string]map[int32]kgo.EpochOffset) error {
	var result error
	l.cl.CommitOffsetsSync(ctx, offsets, func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse, err error) {
		if err != nil {
			result = err
			return
		}
		for _, t := range resp.Topics {
			for _, p := range t.Partitions {
				if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
					result = fmt.Errorf("%s/%d: %w", t.Topic, p.Partition, err)
				}
			}
		}
	})
	return result
}
