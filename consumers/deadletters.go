package consumers

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/VictoriaMetrics/metrics"
	"github.com/twmb/franz-go/pkg/kgo"
)

// The headers that a dead letter carries beside its own.
const (
	HeaderError     = "error"
	HeaderRole      = "role"
	HeaderTopic     = "topic"
	HeaderPartition = "partition"
	HeaderOffset    = "offset"
	// HeaderLastOffset is on the letter of a batch that could not be read, which has neither key nor value: offset
	// is where the batch begins, last_offset its end.
	HeaderLastOffset = "last_offset"
	// HeaderRefused is on the letter of a record of which a part was taken: it names the fields that were not, and the
	// letter's value holds only those.
	HeaderRefused = "refused"
)

// A Reason is an error with a short stable word for metrics (`whisper_deadletters_total{reason}`);
// any other error counts as `invalid`.
type Reason struct {
	Word string
	Err  error
}

func (r *Reason) Error() string { return r.Err.Error() }
func (r *Reason) Unwrap() error { return r.Err }

// DeadLetters keeps what a role can't use: the record as it came (key, value, headers), with the
// reason, the role and the position added as headers.
type DeadLetters struct {
	publisher *Publisher
	role      string
}

// NewDeadLetters writes through p in the name of a role.
func NewDeadLetters(p *Publisher, role string) *DeadLetters {
	d := &DeadLetters{publisher: p, role: role}
	d.counter("invalid") // there from the start, so that the first one is a rise
	return d
}

// Put writes one; done as for [Publisher.Persist]: while the topic takes none, it is tried again, and holds back only
// its own source. Only when done got nil may the source be committed. What no dead letter can hold is cut, which the
// reason says. A dead letter that came from the dead-letter topic's redrive keeps only the newest reason.
func (d *DeadLetters) Put(ctx context.Context, rec *kgo.Record, reason error, done func(error)) {
	d.put(ctx, rec, reason, "", done)
}

// PutPart is Put for a record that was taken but for some fields. rest is what of its value was not taken, and refused
// names that. The letter holds nothing that was taken, so that putting it back can't undo what came after it there.
func (d *DeadLetters) PutPart(ctx context.Context, rec *kgo.Record, rest []byte, refused []string, reason error, done func(error)) {
	part := *rec
	part.Value = rest
	d.put(ctx, &part, reason, strings.Join(refused, ", "), done)
}

func (d *DeadLetters) put(ctx context.Context, rec *kgo.Record, reason error, refused string, done func(error)) {
	word := "invalid"
	var r *Reason
	if errors.As(reason, &r) {
		word = r.Word
	}
	d.counter(word).Inc()
	rec, reason = fit(rec, reason)
	letter := d.record(rec, reason)
	if refused != "" {
		letter.Headers = append(letter.Headers, kgo.RecordHeader{Key: HeaderRefused, Value: []byte(refused)})
	}
	d.publisher.Persist(ctx, letter, done)
}

// The dead-letter topic takes 4 MiB. A broker bounds what it is sent after compression, so upstream can
// write a record that is larger than that.
const (
	mostDeadLetter = 3 << 20
	keptDeadLetter = 1 << 20
	keptReason     = 64 << 10
)

// fit cuts what no dead letter can hold, and says so in the reason.
func fit(rec *kgo.Record, reason error) (*kgo.Record, error) {
	if text := reason.Error(); len(text) > keptReason {
		reason = errors.New(strings.ToValidUTF8(text[:keptReason], "") + "…")
	}
	headers := 0
	for _, h := range rec.Headers {
		headers += len(h.Key) + len(h.Value)
	}
	if len(rec.Key)+len(rec.Value)+headers <= mostDeadLetter {
		return rec, reason
	}
	part := *rec
	part.Key = rec.Key[:min(len(rec.Key), keptDeadLetter)]
	part.Value = rec.Value[:min(len(rec.Value), keptDeadLetter)]
	if headers > keptDeadLetter {
		part.Headers = nil
	}
	return &part, fmt.Errorf(
		"%w (of its key of %d bytes, value of %d and headers of %d, this dead letter holds at most 1 MiB each)",
		reason, len(rec.Key), len(rec.Value), headers)
}

func (d *DeadLetters) counter(word string) *metrics.Counter {
	return metrics.GetOrCreateCounter(fmt.Sprintf(`whisper_deadletters_total{role=%q,reason=%q}`, d.role, word))
}

// OwnHeaders are those that a record had before it became a dead letter.
func OwnHeaders(rec *kgo.Record) []kgo.RecordHeader {
	own := make([]kgo.RecordHeader, 0, len(rec.Headers)+5) // a dead letter adds five
	for _, h := range rec.Headers {
		switch h.Key {
		case HeaderError, HeaderRole, HeaderTopic, HeaderPartition, HeaderOffset, HeaderLastOffset, HeaderRefused:
		default:
			own = append(own, h)
		}
	}
	return own
}

func (d *DeadLetters) record(rec *kgo.Record, reason error) *kgo.Record {
	headers := append(
		OwnHeaders(rec),
		kgo.RecordHeader{Key: HeaderError, Value: []byte(reason.Error())},
		kgo.RecordHeader{Key: HeaderRole, Value: []byte(d.role)},
		kgo.RecordHeader{Key: HeaderTopic, Value: []byte(rec.Topic)},
		kgo.RecordHeader{Key: HeaderPartition, Value: strconv.AppendInt(nil, int64(rec.Partition), 10)},
		kgo.RecordHeader{Key: HeaderOffset, Value: strconv.AppendInt(nil, rec.Offset, 10)},
	)
	// One partition: dead letters are few, and a person reads them in order.
	return &kgo.Record{Topic: TopicDeadLetters, Partition: 0, Key: rec.Key, Value: rec.Value, Headers: headers}
}
