package consumers

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// unreadable is a batch that no consumer can get past: it expands to too much, or its contents are no records
// though its checksum is right. It would be fetched again without end.
type unreadable struct {
	first, last int64
	why         error
}

func (u *unreadable) Error() string {
	return fmt.Sprintf("the batch at offsets %d to %d was skipped: %v", u.first, u.last, u.why)
}

func (u *unreadable) Unwrap() error { return u.why }

// A skipper gets a consumer past what can't be read.
type skipper struct {
	cl   *kgo.Client
	adm  *kadm.Client
	cfg  ClientConfig
	role string
}

func newSkipper(cl *kgo.Client, cfg ClientConfig, name string) *skipper {
	return &skipper{cl: cl, adm: kadm.NewClient(cl), cfg: cfg, role: strings.TrimPrefix(name, "whisper-")}
}

// suspicious says whether an error of a fetch may come from a batch that can't be read.
func suspicious(err error) bool {
	var known *kerr.Error
	var loss *kgo.ErrDataLoss
	return !errors.As(err, &known) && !errors.As(err, &loss) && !errors.Is(err, errLater) &&
		!errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, kgo.ErrClientClosed)
}

// pass looks at what stands at an offset where a consumer does not get on. next is where it may go on: more than from
// only where no record can be handed out before. A batch that can't be read is in the dead letters then. there says
// that a record at from could be read.
func (s *skipper) pass(ctx context.Context, topic string, partition int32, from int64) (next int64, there bool, err error) {
	looked, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	next, there, bad, err := s.look(looked, topic, partition, from)
	if err != nil {
		return from, false, fmt.Errorf("look at %s/%d from %d: %w", topic, partition, from, err)
	}
	if bad == nil {
		return next, there, nil
	}
	s.cfg.logger().Error("a batch can't be read, it is skipped and told to the dead letters",
		"topic", topic, "partition", partition, "first_offset", bad.first, "last_offset", bad.last, "error", bad.why)
	// Time of its own: a letter that is written but not waited for is written again.
	ctx, cancel = context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := s.cl.ProduceSync(ctx, s.letter(topic, partition, bad)).FirstErr(); err != nil {
		return from, false, fmt.Errorf("write a dead letter for %s/%d: %w", topic, partition, err)
	}
	metrics.GetOrCreateCounter(fmt.Sprintf(`whisper_deadletters_total{role=%q,reason="unreadable"}`, s.role)).Inc()
	return bad.last + 1, false, nil
}

// letter has no value: what there is of the batch is in its topic until retention removes it.
func (s *skipper) letter(topic string, partition int32, bad *unreadable) *kgo.Record {
	return &kgo.Record{Topic: TopicDeadLetters, Headers: []kgo.RecordHeader{
		{Key: HeaderError, Value: []byte(bad.Error())},
		{Key: HeaderRole, Value: []byte(s.role)},
		{Key: HeaderTopic, Value: []byte(topic)},
		{Key: HeaderPartition, Value: strconv.AppendInt(nil, int64(partition), 10)},
		{Key: HeaderOffset, Value: strconv.AppendInt(nil, bad.first, 10)},
		{Key: HeaderLastOffset, Value: strconv.AppendInt(nil, bad.last, 10)},
	}}
}

// look goes over what holds no record, up to the first batch that does, that can't be read, or the end.
func (s *skipper) look(
	ctx context.Context, topic string, partition int32, from int64,
) (next int64, there bool, bad *unreadable, err error) {
	id, leader, err := leaderOf(ctx, s.adm, topic, partition)
	if err != nil {
		return from, false, nil, err
	}
	for {
		rp, err := fetchOne(ctx, s.cl, topic, id, leader, partition, from)
		if err != nil {
			return from, false, nil, err
		}
		got, next := kgo.ProcessFetchPartition(
			kgo.ProcessFetchPartitionOpts{Topic: topic, Partition: partition, Offset: from, IsolationLevel: kgo.ReadCommitted()}, rp, bounded(), nil)
		switch err := kerr.ErrorForCode(rp.ErrorCode); {
		case errors.Is(err, kerr.OffsetOutOfRange): // retention was faster; the client finds the log's start itself
			return from, false, nil, nil
		case err != nil:
			return from, false, nil, err
		case len(got.Records) > 0, len(rp.RecordBatches) == 0:
			return from, len(got.Records) > 0, nil, nil
		case got.Err == nil && next > from: // markers, aborted records, holes
			from = next
			continue
		}
		bad, err := badBatch(rp.RecordBatches, from, got.Err)
		return from, false, bad, err
	}
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// badBatch reads the header of the batch that holds from. A checksum that is wrong is an error: another replica may
// have the batch as it was written.
func badBatch(in []byte, from int64, why error) (*unreadable, error) {
	const header = 61 // of a batch; older messages are shorter, and no broker of today writes them
	for len(in) >= header {
		size := 12 + int(int32(binary.BigEndian.Uint32(in[8:])))
		if size < header || size > len(in) {
			break
		}
		first := int64(binary.BigEndian.Uint64(in))
		last := first + int64(int32(binary.BigEndian.Uint32(in[23:])))
		if in[16] != 2 {
			last = first
		}
		if last < from {
			in = in[size:]
			continue
		}
		if in[16] == 2 && crc32.Checksum(in[21:size], castagnoli) != binary.BigEndian.Uint32(in[17:]) {
			return nil, fmt.Errorf("the batch at offsets %d to %d is damaged on its broker: its checksum is wrong", first, last)
		}
		switch {
		case errors.Is(why, kgo.ErrMaxDecompress):
			why = fmt.Errorf("it expands to more than %d MiB", maxExpanded>>20)
		case why == nil:
			why = errors.New("its contents are no records")
		}
		return &unreadable{first: max(first, from), last: last, why: why}, nil
	}
	return nil, errors.Join(errors.New("the broker's answer is no whole batch"), why)
}
