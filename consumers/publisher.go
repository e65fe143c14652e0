package consumers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// MaxRecordBytes bounds a record that Whisper writes: Kafka's own default for a batch
// (message.max.bytes 1,048,588) less room for the batch's header.
const MaxRecordBytes = 1_000_000

// maxDeadLetterBytes leaves room for the largest record that a broker's defaults let upstream write,
// with the reason beside it.
const maxDeadLetterBytes = 4 << 20

func maxBatchBytes(topic string) int32 {
	if topic == TopicDeadLetters {
		return maxDeadLetterBytes
	}
	return MaxRecordBytes
}

// LingerBulk is for records that nobody waits for (facts, receipts, presence). What Kafka costs, it costs
// by the request: 5 ms takes 40–60% off the CPU of a hop at 10,000 records a second, and 20 ms another 7%
// off all roles and the broker at 2,000.
const LingerBulk = 20 * time.Millisecond

// Publisher writes records: each once, acknowledged by all in-sync replicas, in the order of its partition. While Kafka
// does not answer it tries again, until [Publisher.Close]; an error that Kafka answers with is not tried again, except
// for records given to [Publisher.Persist]. The caller sets each record's topic and partition. All methods may be called
// from any goroutine.
type Publisher struct {
	cl      *kgo.Client
	log     *slog.Logger
	quiet   *quiet // nil: gathers always
	flushes atomic.Int32

	mu     sync.Mutex
	err    error
	failed chan struct{}
	// Topics that the client is about to forget.
	forgetting map[string]bool
	retrying   map[string]retried // of Persist, by topic
}

// NewPublisher makes one. Linger 0 is for the way to the socket: it sends at once, and gathers for
// [lingerBusy] only while records come faster than that; [LingerBulk] always gathers. The caller closes it.
func NewPublisher(c ClientConfig, linger time.Duration) (*Publisher, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	cl, err := kgo.NewClient(append(
		c.Options(),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerLinger(max(linger, lingerBusy)),
		kgo.ProducerBatchMaxBytesFn(maxBatchBytes),
		kgo.MaxBufferedRecords(2*maxBuffered), // Publish waits earlier
		kgo.ProducerBatchCompression(kgo.NoCompression()),
	)...)
	if err != nil {
		return nil, fmt.Errorf("kafka producer: %w", err)
	}
	p := &Publisher{cl: cl, log: c.logger(), failed: make(chan struct{}), forgetting: map[string]bool{}, retrying: map[string]retried{}}
	if linger == 0 {
		p.quiet = &quiet{}
	}
	return p, nil
}

// What may be handed over and not be acknowledged yet.
const (
	maxBuffered      = 100_000
	maxBufferedBytes = 128 << 20
)

// Publish hands the record over and returns; it blocks only while the buffer is full. done is called once, usually
// from another goroutine, with nil when all in-sync replicas have it. It must not block. An error means that the
// record is not known to be written: the source must not be committed, and whoever published decides by [ReachOf]
// what stops. Only an error that reaches the process also ends [Publisher.Run], as does any error where done is nil:
// then nobody else would notice. A record over the bound of its topic is refused with [ReachRecord]; it takes no
// other record along.
func (p *Publisher) Publish(ctx context.Context, rec *kgo.Record, done func(error)) {
	if err := checkSize(rec); err != nil {
		p.tell(rec, err, done)
		return
	}
	if err := p.awaitRoom(ctx); err != nil {
		if done != nil {
			done(err)
		}
		return
	}
	// Not the caller's context: at shutdown what was decided is still written, and Flush bounds the wait.
	//nolint:contextcheck // as said; and WithoutCancel would be an allocation for each record
	p.cl.Produce(context.Background(), rec, func(r *kgo.Record, err error) { p.tell(r, err, done) })
	if p.quiet != nil && p.quiet.record(time.Now()) {
		p.endLinger()
	}
}

// tell tells done what became of rec, and Run what nobody else can mend.
func (p *Publisher) tell(rec *kgo.Record, err error, done func(error)) {
	if err != nil {
		err = fmt.Errorf("write to %s/%d: %w", rec.Topic, rec.Partition, err)
		metrics.GetOrCreateCounter(fmt.Sprintf(`whisper_publish_failures_total{reach=%q}`, ReachOf(err))).Inc()
		p.forgetTopic(rec.Topic, err)
		if done == nil || ReachOf(err) == ReachProcess {
			p.fail(err)
		}
	}
	if done != nil {
		done(err)
	}
}

// forgetTopic drops what the client knows of a topic that is gone: made anew, it has another id, which the client
// would never ask for.
func (p *Publisher) forgetTopic(topic string, err error) {
	if !errors.Is(err, kerr.UnknownTopicOrPartition) && !errors.Is(err, kerr.UnknownTopicID) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.forgetting[topic] {
		return
	}
	p.forgetting[topic] = true
	go func() { // it waits for the client's own goroutine, which may be the one that calls us
		p.cl.PurgeTopicsFromProducing(topic)
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.forgetting, topic)
	}()
}

// checkSize refuses what the client would refuse, or a broker with the rest of its batch.
func checkSize(rec *kgo.Record) error {
	size := len(rec.Key) + len(rec.Value)
	for i := range rec.Headers {
		size += len(rec.Headers[i].Key) + len(rec.Headers[i].Value) + headerOverhead
	}
	if most := int(maxBatchBytes(rec.Topic)) - batchOverhead; size > most {
		return Reaching(ReachRecord, fmt.Errorf("a record of %d bytes, at most %d can be written: %w", size, most, kerr.MessageTooLarge))
	}
	return nil
}

// What a batch, a record and a header cost beside their bytes, at most.
const (
	batchOverhead  = 128
	headerOverhead = 10
)

// endLinger sends what lingers. While a flush runs nothing lingers at all, so one at a time would do; the
// second is for a record that meets the end of the first. With Kafka away there are never more.
//
//nolint:contextcheck // the flush is of everybody's records, not of one caller's
func (p *Publisher) endLinger() {
	if p.flushes.Add(1) > 2 {
		p.flushes.Add(-1)
		return
	}
	go func() {
		_ = p.cl.Flush(context.Background()) // only Close ends it with an error
		p.flushes.Add(-1)
	}()
}

// Free is the part of the buffer that is free, from 1 to 0, where Publish begins to wait. Who publishes both what
// is urgent and what is not leaves some of it to the former.
func (p *Publisher) Free() float64 {
	taken := max(float64(p.cl.BufferedProduceRecords())/maxBuffered, float64(p.cl.BufferedProduceBytes())/maxBufferedBytes)
	return max(0, 1-taken)
}

// awaitRoom waits while the buffer is full: Kafka is away, or slower than we are. The client would wait
// as well, but not end with ctx without giving up records that it has taken.
func (p *Publisher) awaitRoom(ctx context.Context) error {
	for p.cl.BufferedProduceRecords() >= maxBuffered || p.cl.BufferedProduceBytes() >= maxBufferedBytes {
		select {
		case <-time.After(2 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("no room for a record while kafka does not take any: %w", context.Cause(ctx))
		}
	}
	return nil
}

// Persist is Publish for owners that can't stop a partition: an error that may pass (its reach is the partition) is
// tried again, later each time up to a minute, until it is written or ctx ends. Order with other records is not kept.
// done gets nil, an error of another reach, or the last one when ctx ends. [Publisher.Ready] tells of what is tried
// again.
func (p *Publisher) Persist(ctx context.Context, rec *kgo.Record, done func(error)) {
	p.persist(ctx, rec, retryFirst, done)
}

func (p *Publisher) persist(ctx context.Context, rec *kgo.Record, wait time.Duration, done func(error)) {
	p.Publish(ctx, rec, func(err error) {
		if err == nil || ReachOf(err) != ReachPartition || ctx.Err() != nil {
			if done != nil {
				done(err)
			}
			if err != nil && done == nil && ctx.Err() == nil {
				p.fail(err)
			}
			return
		}
		p.retries(rec.Topic, 1, err)
		again := *rec // the client has written into the first one
		again.Offset, again.LeaderEpoch, again.ProducerID, again.ProducerEpoch, again.Attrs, again.Context = 0, 0, 0, 0, kgo.RecordAttrs{}, nil
		go func() {
			select {
			case <-time.After(wait):
			case <-ctx.Done():
			}
			p.retries(rec.Topic, -1, err)
			if ctx.Err() != nil {
				if done != nil {
					done(err)
				}
				return
			}
			p.persist(ctx, &again, min(2*wait, retryMost), done)
		}()
	})
}

// retried is what of a topic is tried again.
type retried struct {
	records int
	err     error
}

func (p *Publisher) retries(topic string, n int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.retrying[topic]
	if r.records == 0 {
		p.log.Error("records can't be written, they are tried again", "topic", topic, "error", err, "mend", HelpFor(err))
	}
	r.records, r.err = r.records+n, err
	metrics.GetOrCreateGauge(fmt.Sprintf(`whisper_publish_retrying_records{topic=%q}`, topic), nil).Set(float64(r.records))
	if r.records == 0 {
		delete(p.retrying, topic)
		return
	}
	p.retrying[topic] = r
}

// Ready says which topic does not take what Persist writes, or nil.
func (p *Publisher) Ready() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for topic, r := range p.retrying {
		return fmt.Errorf("%d records of %s are tried again: %w (%s)", r.records, topic, r.err, HelpFor(r.err))
	}
	return nil
}

// PublishSync writes the records and waits for all of them; the error is the first one's.
func (p *Publisher) PublishSync(ctx context.Context, recs ...*kgo.Record) error {
	results := make(chan error, len(recs))
	for _, rec := range recs {
		p.Publish(ctx, rec, func(err error) { results <- err })
	}
	var first error
	for range recs {
		select {
		case err := <-results:
			if first == nil {
				first = err
			}
		case <-ctx.Done():
			return fmt.Errorf("write %d records: %w", len(recs), context.Cause(ctx))
		}
	}
	return first
}

// Flush waits until everything that was handed over is written, or ctx ends.
func (p *Publisher) Flush(ctx context.Context) error {
	if err := p.cl.Flush(ctx); err != nil {
		return fmt.Errorf("flush records to kafka: %w", err)
	}
	return nil
}

// Run waits for ctx and returns nil, or returns the first error that reaches the process as soon as there is one.
func (p *Publisher) Run(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-p.failed:
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.err
	}
}

// Close gives up what is not written yet: Flush first.
func (p *Publisher) Close() { p.cl.Close() }

func (p *Publisher) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		p.err = err
		close(p.failed)
	}
}
