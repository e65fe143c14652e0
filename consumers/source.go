package consumers

import (
	"encoding/binary"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Source is where a record came from that was handed on to another topic: by it, one that is handed on once more is
// told from a new one, also where later ones came between.
type Source struct {
	Topic     [16]byte // its id: a topic that was made anew counts its offsets anew
	Partition int32
	Offset    int64
}

// HeaderSource carries a Source: the topic's id, partition and offset, big endian.
const HeaderSource = "source"

// Header is the header that carries the source.
func (s Source) Header() kgo.RecordHeader {
	value := binary.BigEndian.AppendUint32(s.Topic[:len(s.Topic):len(s.Topic)], uint32(s.Partition))
	return kgo.RecordHeader{Key: HeaderSource, Value: binary.BigEndian.AppendUint64(value, uint64(s.Offset))}
}

// SourceOf reads the source of a record; false: it names none, as those of earlier versions.
func SourceOf(rec *kgo.Record) (s Source, ok bool) {
	value, _ := Header(rec, HeaderSource)
	if len(value) != 16+4+8 {
		return s, false
	}
	copy(s.Topic[:], value)
	s.Partition = int32(binary.BigEndian.Uint32(value[16:]))
	s.Offset = int64(binary.BigEndian.Uint64(value[20:]))
	return s, true
}
