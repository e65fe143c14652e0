package consumers

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

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

// Publisher writes records: idempotent, acknowledged by all in-sync replicas, in order per partition,
// tried again without end while Kafka is away. The caller sets each record's topic and partition.
// All methods may be called from any goroutine.
type Publisher struct {
	cl      *kgo.Client
	quiet   *quiet // nil: gathers always
	flushes atomic.Int32

	mu     sync.Mutex
	err    error
	failed chan struct{}
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
	p := &Publisher{cl: cl, failed: make(chan struct{})}
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

// Publish hands the record over and returns; it blocks only while the buffer is full. done, where it
// is given, is called once, usually from another goroutine, with nil when all in-sync replicas have it.
// It must not block. An error means that the record is not known to be written: the source must not be
// committed. Unless it is that ctx ended while the buffer was full, [Publisher.Run] returns it, which
// ends the process.
func (p *Publisher) Publish(ctx context.Context, rec *kgo.Record, done func(error)) {
	if err := p.awaitRoom(ctx); err != nil {
		if done != nil {
			done(err)
		}
		return
	}
	// Not the caller's context: at shutdown what was decided is still written, and Flush bounds the wait.
	p.cl.Produce(context.Background(), rec, func(r *kgo.Record, err error) {
		if err != nil {
			err = fmt.Errorf("write to %s/%d: %w", r.Topic, r.Partition, err)
			p.fail(err)
		}
		if done != nil {
			done(err)
		}
	})
	if p.quiet != nil && p.quiet.record(time.Now()) {
		p.endLinger()
	}
}

// endLinger sends what lingers. While a flush runs nothing lingers at all, so one at a time would do; the
// second is for a record that meets the end of the first. With Kafka away there are never more.
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

// Run waits for ctx and returns nil, or returns the first error of a record as soon as there is one.
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
