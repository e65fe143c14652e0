package consumers

import (
	"context"
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// HeaderEvent names the kind of an event, so that a reader can pass over a record unread.
const HeaderEvent = "event"

// EventRecord is an event as a record of the topic: keyed by user id on the user's partition, its kind
// in the header, with the trace carried on.
func EventRecord(topic string, partition int32, ev *whisperv1.Event, trace []kgo.RecordHeader) (*kgo.Record, error) {
	value, err := proto.Marshal(ev)
	if err != nil {
		return nil, fmt.Errorf("encode %s of %q: %w", domain.KindOf(ev), ev.GetNotificationId(), err)
	}
	headers := make([]kgo.RecordHeader, 0, 1+len(trace))
	headers = append(headers, kgo.RecordHeader{Key: HeaderEvent, Value: []byte(domain.KindOf(ev))})
	headers = append(headers, trace...)
	return &kgo.Record{
		Topic:     topic,
		Partition: partition,
		Key:       []byte(ev.GetUserId()),
		Value:     value,
		Headers:   headers,
	}, nil
}

// KindOfRecord is the header `event` of a record, or "".
func KindOfRecord(rec *kgo.Record) string {
	kind, _ := Header(rec, HeaderEvent)
	return string(kind)
}

// Facts writes to whisper.events.
type Facts struct {
	publisher  *Publisher
	partitions int32
}

// NewFacts writes through p; partitions is the number that all user-keyed topics share.
func NewFacts(p *Publisher, partitions int32) *Facts {
	return &Facts{publisher: p, partitions: partitions}
}

// Publish writes one fact; done as for [Publisher.Persist].
func (f *Facts) Publish(ctx context.Context, ev *whisperv1.Event, trace []kgo.RecordHeader, done func(error)) {
	partition := PartitionOf(ev.GetUserId(), f.partitions)
	rec, err := EventRecord(TopicEvents, partition, ev, trace)
	if err != nil {
		// Only text that is not UTF-8 fails to encode. Ids are checked on their way in; what is left is a reason that
		// somebody else worded, and a fact with a replaced letter tells more than none.
		ev = proto.CloneOf(ev)
		replaceInvalid(ev.ProtoReflect())
		rec, err = EventRecord(TopicEvents, partition, ev, trace)
	}
	if err != nil {
		f.publisher.tell(&kgo.Record{Topic: TopicEvents, Partition: partition}, Reaching(ReachRecord, err), done)
		return
	}
	f.publisher.Persist(ctx, rec, done)
}

// FactsByLane writes the facts of the high lane through a publisher of their own, so that what Kafka does to the others'
// does not hold them up.
type FactsByLane struct{ High, Others *Facts }

// Publish is [Facts.Publish] of the fact's lane.
func (f FactsByLane) Publish(ctx context.Context, ev *whisperv1.Event, trace []kgo.RecordHeader, done func(error)) {
	to := f.Others
	if domain.LaneOf(ev.GetLane()) == domain.High {
		to = f.High
	}
	to.Publish(ctx, ev, trace, done)
}

// replaceInvalid replaces what is not UTF-8 in all text of a message.
func replaceInvalid(m protoreflect.Message) {
	valid := func(v protoreflect.Value) protoreflect.Value {
		return protoreflect.ValueOfString(strings.ToValidUTF8(v.String(), "\uFFFD"))
	}
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		text, message := fd.Kind() == protoreflect.StringKind, fd.Message() != nil
		switch {
		case fd.IsMap(): // no fact has one
		case fd.IsList():
			for i := range v.List().Len() {
				if text {
					v.List().Set(i, valid(v.List().Get(i)))
				} else if message {
					replaceInvalid(v.List().Get(i).Message())
				}
			}
		case text:
			m.Set(fd, valid(v))
		case message:
			replaceInvalid(v.Message())
		}
		return true
	})
}

var (
	kindSent      = []byte("delivery_sent")
	kindDelivered = []byte("delivery_delivered")
)

// PublishAttempt writes what a gateway tells most often; the record is the one that Publish would write of
// the same fact.
func (f *Facts) PublishAttempt(
	ctx context.Context, shared *domain.AttemptFacts, fact domain.AttemptFact, trace []kgo.RecordHeader, done func(error),
) {
	kind := kindSent
	if fact.Delivered {
		kind = kindDelivered
	}
	value, key := shared.Encode(fact)
	r := &struct { // one allocation, where there is no trace
		kgo.Record
		headers [1]kgo.RecordHeader
	}{}
	r.headers[0] = kgo.RecordHeader{Key: HeaderEvent, Value: kind}
	r.Record = kgo.Record{
		Topic:     TopicEvents,
		Partition: PartitionOf(fact.User, f.partitions),
		Key:       key,
		Value:     value,
		Headers:   append(r.headers[:1], trace...),
	}
	f.publisher.Persist(ctx, &r.Record, done)
}

// The headers of the W3C's trace context.
const (
	HeaderTraceparent = "traceparent"
	HeaderTracestate  = "tracestate"
)

// TraceHeaders are the W3C trace context headers of a record, to be carried to what follows from it.
func TraceHeaders(rec *kgo.Record) []kgo.RecordHeader {
	var trace []kgo.RecordHeader
	for _, key := range []string{HeaderTraceparent, HeaderTracestate} {
		if value, ok := Header(rec, key); ok {
			trace = append(trace, kgo.RecordHeader{Key: key, Value: value})
		}
	}
	return trace
}

// PositionOf is where a record stands.
func PositionOf(rec *kgo.Record) *whisperv1.Position {
	return &whisperv1.Position{Topic: rec.Topic, Partition: rec.Partition, Offset: rec.Offset}
}
