package requests

import (
	"context"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain/request"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// broadcast writes one record for each user partition: dispatch finds the users.
func (t *Taker) broadcast(ctx context.Context, rc *Receipt, req *request.Request, src request.Source, version int64) error {
	ev, err := req.BroadcastEvent(src, version, t.partitions, t.now())
	if err != nil {
		t.refuse(ctx, rc, err)
		return nil
	}
	rc.Settled = func() {
		t.metrics.accepted.Inc()
		t.metrics.broadcasts.Inc()
		t.metrics.seconds.Update(max(0, t.now().Sub(rc.Record.Timestamp).Seconds()))
	}
	return t.everywhere(ctx, rc, ev)
}

// command asks every partition of the lane, since a command does not name the users. It follows what it is about
// only within its own lane, so that is where upstream sends it; a cancel is remembered by dispatch, and works either
// way.
func (t *Taker) command(ctx context.Context, rc *Receipt, req *request.Request, src request.Source) error {
	rc.Settled = t.metrics.commands[req.Command].Inc
	return t.everywhere(ctx, rc, req.CommandEvent(src, t.now()))
}

// everywhere writes the event to each user partition.
func (t *Taker) everywhere(ctx context.Context, rc *Receipt, ev *whisperv1.Event) error {
	rec, err := consumers.EventRecord(t.topic, 0, ev, Trace(rc.Record))
	if err != nil {
		return err
	}
	rc.Write(ctx, int(t.partitions), func(i int) *kgo.Record {
		one := *rec
		one.Partition = int32(i)
		return &one
	})
	return nil
}
