package intake

import (
	"context"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain/request"
)

// broadcast writes one record for each user partition: dispatch finds the users.
func (in *requests) broadcast(ctx context.Context, rc *receipt, req *request.Request, src request.Source, version int64) error {
	ev, err := req.BroadcastEvent(src, version, in.cfg.Partitions, in.cfg.Now())
	if err != nil {
		in.refuse(ctx, rc, err)
		return nil
	}
	rec, err := consumers.EventRecord(in.topic, 0, ev, trace(rc.rec))
	if err != nil {
		return err
	}
	rc.settled = func() {
		in.metrics.accepted.Inc()
		in.metrics.broadcasts.Inc()
		in.metrics.seconds.Update(max(0, in.cfg.Now().Sub(rc.rec.Timestamp).Seconds()))
	}
	in.everywhere(ctx, rc, rec)
	return nil
}

// command asks every partition of the lane, since a command does not name the users. It follows what it is about
// only within its own lane, so that is where upstream sends it; a cancel is remembered by dispatch, and works either
// way.
func (in *requests) command(ctx context.Context, rc *receipt, req *request.Request, src request.Source) error {
	rec, err := consumers.EventRecord(in.topic, 0, req.CommandEvent(src, in.cfg.Now()), trace(rc.rec))
	if err != nil {
		return err
	}
	rc.settled = in.metrics.commands[req.Command].Inc
	in.everywhere(ctx, rc, rec)
	return nil
}

// everywhere writes the record to each user partition.
func (in *requests) everywhere(ctx context.Context, rc *receipt, rec *kgo.Record) {
	rc.write(ctx, int(in.cfg.Partitions), func(i int) *kgo.Record {
		one := *rec
		one.Partition = int32(i)
		return &one
	})
}
