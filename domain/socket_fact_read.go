package domain

import (
	"math"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/klivvr/whisper/domain/whisperv1"
)

// SocketFact is what a decision needs to know of a fact that [AttemptFacts] encodes. Few ask for the rest, so it is 32 bytes, and
// Attempt reads more.
type SocketFact struct {
	ID DeliveryID
	// Delivered: the client acknowledged it; otherwise a socket took it.
	Delivered bool
	Lane      Lane
	attempt   uint16 // the length of the attempt, which ends the fact
	// SentUS is when a socket took it, by the clock of its node; 0 in an acknowledgement after a fact of its own told that.
	SentUS int64
}

// ReadSocketFact reads a fact as [AttemptFacts] encodes it, in a tenth of the time and without the allocations of decoding
// an event (BenchmarkAttemptFact). ok is false for everything else: other kinds, channels and fields, another order of
// fields, what is no event at all. Those are for the caller to decode. What it does read, any decoder reads as the same.
func ReadSocketFact(value []byte) (fact SocketFact, ok bool) {
	r := fieldReader{b: value}
	id := r.bytes(FieldDeliveryID)
	r.text(eventNotificationID)
	r.text(FieldUserID)
	fact.SentUS = r.number(eventAtUS)
	fact.Lane = LaneOf(whisperv1.Lane(r.number(eventLane)))
	if r.next(eventCause, protowire.BytesType) {
		place := fieldReader{b: r.take()}
		place.text(positionTopic)
		place.number(positionPartition)
		place.number(positionOffset)
		r.bad = r.bad || !place.over()
	}
	var attempt fieldReader
	switch {
	case r.next(eventSent, protowire.BytesType):
		attempt.b = r.take()
	case r.next(eventDelivered, protowire.BytesType):
		fact.Delivered = true
		attempt.b = r.take()
	default:
		return SocketFact{}, false
	}
	size := len(attempt.b)
	attempt.number(attemptNumber)
	channel := attempt.text(attemptChannel)
	attempt.text(sentNode)
	if fact.Delivered {
		fact.SentUS = attempt.number(deliveredSentAt)
		attempt.number(deliveredLatency)
	} else {
		attempt.number(sentLatency)
	}
	attempt.number(attemptDue)
	if !r.over() || !attempt.over() || string(channel) != ChannelSocket || len(id) != len(fact.ID) || size > math.MaxUint16 {
		return SocketFact{}, false
	}
	fact.ID, fact.attempt = DeliveryID(id), uint16(size)
	return fact, true
}

// Attempt is which attempt it was, and on which node. value is what the fact was read of.
func (f SocketFact) Attempt(value []byte) (number int32, node []byte) {
	r := fieldReader{b: value[len(value)-int(f.attempt):]}
	number = int32(r.number(attemptNumber))
	r.bytes(attemptChannel)
	return number, r.bytes(sentNode)
}

// fieldReader reads the fields of a message in the order of their numbers, each at most once.
type fieldReader struct {
	b   []byte
	bad bool
}

// next says whether the field is the next one, and passes its tag.
func (r *fieldReader) next(field protowire.Number, wire protowire.Type) bool {
	tag, n := protowire.ConsumeVarint(r.b)
	if n < 0 || tag != protowire.EncodeTag(field, wire) {
		return false
	}
	r.b = r.b[n:]
	return true
}

func (r *fieldReader) take() []byte {
	v, n := protowire.ConsumeBytes(r.b)
	if n < 0 {
		r.bad, r.b = true, nil
		return nil
	}
	r.b = r.b[n:]
	return v
}

func (r *fieldReader) bytes(field protowire.Number) []byte {
	if !r.next(field, protowire.BytesType) {
		return nil
	}
	return r.take()
}

func (r *fieldReader) text(field protowire.Number) []byte {
	v := r.bytes(field)
	r.bad = r.bad || !utf8.Valid(v)
	return v
}

// number is 0 where the field is not next.
func (r *fieldReader) number(field protowire.Number) int64 {
	if !r.next(field, protowire.VarintType) {
		return 0
	}
	v, n := protowire.ConsumeVarint(r.b)
	if n < 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return int64(v)
}

// over: everything was read, and well.
func (r *fieldReader) over() bool { return !r.bad && len(r.b) == 0 }
