package intake

import (
	"context"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/consumers/requests"
)

// feed takes the records of one partition, in order, and commits behind the slowest of them.
type feed struct {
	role   *Role
	part   *consumers.Partition
	mark   *consumers.Watermark
	take   func(context.Context, *requests.Receipt) error
	writer requests.Writer
}

func (r *Role) newFeed(p *consumers.Partition) *feed {
	f := &feed{role: r, part: p, mark: consumers.NewWatermark(p)}
	f.writer.Done = func(rc *requests.Receipt) { f.mark.Done(rc.Record.Offset) }
	f.writer.Fail = p.Fail
	return f
}

// Handle takes records until the partition is about to go.
func (f *feed) Handle(ctx context.Context, records []*kgo.Record) error {
	defer f.writer.Work.End()
	for _, rec := range records {
		if !f.part.Await(ctx) || !f.writer.Work.Begin(ctx) {
			return nil // the rest is handed out again
		}
		f.mark.Take(rec.Offset)
		bug, err := f.writer.Take(ctx, &requests.Receipt{Record: rec}, f.take)
		if bug != nil {
			f.role.cfg.Logger.Error("a record met a bug, it goes to the dead letters",
				"topic", rec.Topic, "partition", rec.Partition, "offset", rec.Offset, "error", bug)
			continue
		}
		if err != nil {
			return err
		}
		if !f.writer.Work.Did(ctx, len(rec.Value)) {
			return nil
		}
	}
	return nil
}

// ended: the partition is about to go, which is nobody's error.
func ended(ctx context.Context) bool { return ctx.Err() != nil }

// Close waits until all that was written is acknowledged.
func (f *feed) Close(ctx context.Context) error { return f.writer.Close(ctx) }
