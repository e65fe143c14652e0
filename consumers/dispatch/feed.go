package dispatch

import (
	"context"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/decide"
	"github.com/klivvr/whisper/domain/request"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// feed decodes one topic of a partition, on the topic's own goroutine, and hands the inputs to the
// partition's loop.
type feed struct {
	part  *partition
	queue int
	seen  []decide.SocketFactArrived // room for the next ones
}

// Handle implements consumers.Feed. It blocks while the loop is behind.
func (f *feed) Handle(ctx context.Context, records []*kgo.Record) error {
	for len(records) > 0 {
		n := min(len(records), handBatch)
		items := make([]item, 0, n)
		for _, rec := range records[:n] {
			items = append(items, f.decode(rec))
		}
		records = records[n:]
		if !f.part.mail.put(ctx, f.queue, items) {
			return nil // the partition goes; the rest is handed out again
		}
	}
	return nil
}

// Passed implements consumers.Passer: a restore waits for offsets, and the last ones may hold no record.
func (f *feed) Passed(ctx context.Context, next int64) error {
	f.part.mail.put(ctx, f.queue, []item{{next: next}})
	return nil
}

// handBatch is how many records are decoded before the loop gets them: the first of a long fetch should
// not wait for its last.
const handBatch = 256

// Close implements consumers.Feed: the partition stops as a whole, with the first of its topics.
func (f *feed) Close(ctx context.Context) error { return f.part.stop(ctx) }

func (f *feed) decode(rec *kgo.Record) item {
	switch f.queue {
	case queueEvents:
		return f.decodeFact(rec)
	case queueChanges:
		moved, err := movedOf(rec)
		if err != nil {
			return item{rec: rec, bad: err}
		}
		return item{rec: rec, input: decide.ProfilePatched{
			User: string(rec.Key), Patch: rec.Value, At: rec.Timestamp, Offset: rec.Offset, Moved: moved,
		}}
	default:
		return f.decodeDelivery(rec)
	}
}

// decodeFact passes over what can't change a decision: most of it is our own. What we told of broadcasts and of who
// waits matters to a replay only.
func (f *feed) decodeFact(rec *kgo.Record) item {
	switch consumers.KindOfRecord(rec) {
	case "duplicate_dropped", "endpoint_pruned", "broadcast_dropped", "user_erased":
		return item{rec: rec}
	case "delivery_scheduled", "delivery_deferred", "broadcast_progressed":
		if f.part.live.Load() {
			return item{rec: rec}
		}
	}
	if fact, ok := domain.ReadSocketFact(rec.Value); ok {
		return item{rec: rec, input: f.socketFact(rec, fact)}
	}
	ev := &whisperv1.Event{}
	if err := proto.Unmarshal(rec.Value, ev); err != nil {
		return item{rec: rec} // projections reads the same topic and dead-letters it
	}
	return item{rec: rec, input: decide.FactArrived{Event: ev, Cause: consumers.PositionOf(rec)}}
}

// socketFact takes an input out of an allocation of several.
func (f *feed) socketFact(rec *kgo.Record, fact domain.SocketFact) *decide.SocketFactArrived {
	const together = 32
	if len(f.seen) == 0 {
		f.seen = make([]decide.SocketFactArrived, together)
	}
	in := &f.seen[0]
	f.seen = f.seen[1:]
	*in = decide.SocketFactArrived{Fact: fact, Value: rec.Value, Topic: rec.Topic, Partition: rec.Partition, Offset: rec.Offset}
	return in
}

func (f *feed) decodeDelivery(rec *kgo.Record) item {
	ev := &whisperv1.Event{}
	if err := proto.Unmarshal(rec.Value, ev); err != nil {
		return item{rec: rec, bad: fmt.Errorf("not a whisper.v1.Event: %w", err)}
	}
	source := decide.LaneOffset{Lane: domain.Lane(f.queue - queueHigh), Offset: rec.Offset}
	trace := traceOf(rec)
	switch ev.GetKind().(type) {
	case *whisperv1.Event_DeliveryAccepted:
		if _, err := domain.DeliveryIDFromBytes(ev.GetDeliveryId()); err != nil {
			return item{rec: rec, bad: err}
		}
		return item{rec: rec, input: decide.DeliveryArrived{Event: ev, Source: source, Trace: trace, Cause: consumers.PositionOf(rec)}}
	case *whisperv1.Event_CancelRequested:
		return item{rec: rec, input: decide.CancelArrived{Event: ev, Source: source, Trace: trace, Cause: consumers.PositionOf(rec)}}
	case *whisperv1.Event_BroadcastAccepted:
		if err := request.CheckBroadcast(ev); err != nil {
			return item{rec: rec, bad: err}
		}
		return item{rec: rec, input: decide.BroadcastArrived{Event: ev, Source: source, Trace: trace, Cause: consumers.PositionOf(rec)}}
	case *whisperv1.Event_PauseRequested, *whisperv1.Event_ResumeRequested, *whisperv1.Event_RetractRequested:
		return item{rec: rec, input: decide.SteeringArrived{Event: ev, Source: source, Trace: trace, Cause: consumers.PositionOf(rec)}}
	default:
		return item{rec: rec, bad: errors.New("neither a delivery nor a command that this version knows")}
	}
}

// traceOf passes over what is not text: a parked delivery could not be encoded with it, now or ever.
func traceOf(rec *kgo.Record) decide.Trace {
	return decide.Trace{Parent: textOf(rec, consumers.HeaderTraceparent), State: textOf(rec, consumers.HeaderTracestate)}
}

func textOf(rec *kgo.Record, header string) string {
	if value, _ := consumers.Header(rec, header); utf8.Valid(value) {
		return string(value)
	}
	return ""
}

func traceHeaders(t decide.Trace) []kgo.RecordHeader {
	if t.Parent == "" {
		return nil
	}
	headers := []kgo.RecordHeader{{Key: consumers.HeaderTraceparent, Value: []byte(t.Parent)}}
	if t.State != "" {
		headers = append(headers, kgo.RecordHeader{Key: consumers.HeaderTracestate, Value: []byte(t.State)})
	}
	return headers
}
