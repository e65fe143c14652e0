package consumers

import (
	"encoding/binary"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Epoch orders the owners of a partition: a later owner's is greater. It is the group's generation at the time of
// the assignment; above that, in the upper half, how often an owner came whose generation was not greater: the group was
// deleted or was empty for longer than offsets are kept, and counts anew; or a process with an instance came back
// ([ClientConfig.Instance]), which changes no generation.
type Epoch uint64

// NoEpoch is that of a record without one: written by a version before epochs.
const NoEpoch Epoch = 0

// Next is the epoch of an owner that was assigned the partition in a generation, after an owner of epoch e.
// again says that the generation is not greater, which is only to be used once the group has confirmed it.
func (e Epoch) Next(generation int32) (next Epoch, again bool) {
	if uint32(generation) > uint32(e) {
		return e&^0xffffffff | Epoch(uint32(generation)), false
	}
	return (e>>32+1)<<32 | Epoch(uint32(generation)), true
}

// HeaderOwner carries the owner's epoch on every record of a changelog, 8 bytes, big endian.
const HeaderOwner = "owner"

// OwnerMark is the key of the record that an owner writes at its takeover. It has no value, so that an earlier
// version takes it for the removal of a key that nobody has; ids have no control characters.
const OwnerMark = "\x00owner"

// Header is the header that every record of the owner carries.
func (e Epoch) Header() kgo.RecordHeader {
	return kgo.RecordHeader{Key: HeaderOwner, Value: binary.BigEndian.AppendUint64(nil, uint64(e))}
}

// EpochOf is the epoch of the owner that wrote a record.
func EpochOf(rec *kgo.Record) Epoch {
	if value, _ := Header(rec, HeaderOwner); len(value) == 8 {
		return Epoch(binary.BigEndian.Uint64(value))
	}
	return NoEpoch
}

// Mark is the record with which an owner takes over a partition of a changelog: what an earlier owner's records
// say after it does not count.
func (e Epoch) Mark(topic string, partition int32) *kgo.Record {
	return &kgo.Record{Topic: topic, Partition: partition, Key: []byte(OwnerMark), Headers: []kgo.RecordHeader{e.Header()}}
}

// String names the generation, and how often the group began anew.
func (e Epoch) String() string { return fmt.Sprintf("%d.%d", e>>32, uint32(e)) }

// Owners tells the records of a changelog that count from those that an owner wrote who had lost the partition: a
// process that was stopped, cut off, or whose writes were held on their way. Records are to be shown in the order of
// the log. The zero value is ready for use.
//
// The rule: what stands after a record or mark of a later owner does not count. A later owner reads up to its own
// mark before it decides anything, so it has seen everything that counts; and what the earlier one committed was
// acknowledged before the group gave the partition away, so before that mark.
type Owners struct {
	latest Epoch
}

// Latest is the greatest epoch that was seen.
func (o *Owners) Latest() Epoch { return o.latest }

// Stale says whether the record does not count. Marks are told as well: they say nothing.
func (o *Owners) Stale(rec *kgo.Record) (stale, mark bool) {
	epoch := EpochOf(rec)
	mark = string(rec.Key) == OwnerMark
	if epoch == NoEpoch {
		return false, mark
	}
	if epoch < o.latest {
		return true, mark
	}
	o.latest = epoch
	return false, mark
}
