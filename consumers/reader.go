package consumers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Where to start reading, instead of an offset.
const (
	FromStart int64 = -2
	FromEnd   int64 = -1
)

// Reader follows partitions directly, without a group and without commits: changelogs, presence, a
// node's own topic. One client serves all of them.
type Reader struct {
	cl  *kgo.Client
	adm *kadm.Client
	cfg ClientConfig

	stalls *stalls
	topics *topicWatch
	anew   chan error // a topic that is followed was made anew

	mu        sync.Mutex
	following map[string]map[int32]*followed
	remakes   map[string]func(context.Context) error // of the topics that may be made anew
	// For Unfollow, which waits until Run has handed over what it had polled before.
	running   bool
	turn      int64 // polls handed over so far
	turned    *sync.Cond
	waiting   int                // who waits for a turn
	interrupt context.CancelFunc // ends the poll that runs

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	probes sync.WaitGroup
}

type followed struct {
	topic     string
	partition int32
	sink      func([]*kgo.Record)
	end       int64 // caught up when the position reaches it
	next      atomic.Int64
	gone      chan struct{} // closed by Unfollow
	once      sync.Once
	caughtUp  chan struct{}
}

func (f *followed) done() { f.once.Do(func() { close(f.caughtUp) }) }

// NewReader makes one; Run must run for records to come. The caller closes it.
func NewReader(c ClientConfig) (*Reader, error) { return newReader(c, 1, fetchMaxWait) }

// NewTailReader is a reader for what nobody waits for: its brokers gather for up to five seconds, so that following
// a topic at its end costs next to nothing.
func NewTailReader(c ClientConfig) (*Reader, error) { return newReader(c, 1<<20, 5*time.Second) }

func newReader(c ClientConfig, minBytes int32, wait time.Duration) (*Reader, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	cl, err := kgo.NewClient(append(
		c.Options(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchMinBytes(minBytes),
		kgo.FetchMaxWait(wait),
		kgo.KeepControlRecords(), // they move the position; no sink sees them
	)...)
	if err != nil {
		return nil, fmt.Errorf("kafka reader: %w", err)
	}
	r := &Reader{
		cl: cl, adm: kadm.NewClient(cl), cfg: c,
		following: map[string]map[int32]*followed{}, remakes: map[string]func(context.Context) error{},
	}
	r.turned = sync.NewCond(&r.mu)
	r.stalls = newStalls(newSkipper(cl, c, c.ClientID))
	r.anew = make(chan error, 1)
	r.topics = newTopicWatch(cl, c.logger(), func(string) {}, r.madeAnew)
	r.topics.remake = r.remake
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r, nil
}

// Follow hands the records of a partition to sink, in order, from an offset, FromStart or FromEnd, until
// Unfollow. sink is called by Run and holds up every partition of this reader while it runs; it must not
// call Unfollow. caughtUp is closed when everything that was there at the time of the call has been handed
// over. A partition is followed once at a time. While Kafka is away, Follow waits for it until ctx ends.
func (r *Reader) Follow(ctx context.Context, topic string, partition int32, from int64, sink func([]*kgo.Record)) (<-chan struct{}, error) {
	caughtUp, err := r.FollowAll(ctx, partition, Followed{topic, from, sink})
	if err != nil {
		return nil, err
	}
	return caughtUp[0], nil
}

// Followed is what [Reader.FollowAll] takes of a topic.
type Followed struct {
	Topic string
	From  int64
	Sink  func([]*kgo.Record)
}

// FollowAll follows one partition number of several topics, as Follow does each of them, for the wait of one: the topics
// are asked about together and fetched together. On an error none is followed.
func (r *Reader) FollowAll(ctx context.Context, partition int32, all ...Followed) (caughtUp []<-chan struct{}, err error) {
	topics := make([]string, 0, len(all))
	for _, f := range all {
		topics = append(topics, f.Topic)
	}
	spans, err := r.BoundsOf(ctx, partition, topics...)
	if err != nil {
		return nil, err
	}
	fetch := map[string]map[int32]kgo.Offset{}
	for i, f := range all {
		from, start, end := f.From, spans[i].Start, spans[i].End
		switch {
		case from == FromEnd:
			from = end
		case from < start: // FromStart, or retention was faster
			from = start
		case from > end: // it is of a topic that had this name before
			from = start
		}
		caughtUp = append(caughtUp, r.register(f, partition, from, end))
		fetch[f.Topic] = map[int32]kgo.Offset{partition: kgo.NewOffset().At(from)}
	}
	r.cl.AddConsumePartitions(fetch)
	return caughtUp, nil
}

func (r *Reader) register(of Followed, partition int32, from, end int64) (caughtUp <-chan struct{}) {
	f := &followed{topic: of.Topic, partition: partition, sink: of.Sink, end: end, gone: make(chan struct{}), caughtUp: make(chan struct{})}
	f.next.Store(from)
	r.mu.Lock()
	if r.following[of.Topic] == nil {
		r.following[of.Topic] = map[int32]*followed{}
	}
	r.following[of.Topic][partition] = f
	r.mu.Unlock()
	if from >= end {
		f.done()
	} else {
		r.probes.Go(func() { r.probe(f) })
	}
	return f.caughtUp
}

// Unfollow stops. When it returns, sink is not running and is not called again.
func (r *Reader) Unfollow(topic string, partition int32) {
	r.mu.Lock()
	if f := r.following[topic][partition]; f != nil {
		close(f.gone)
	}
	delete(r.following[topic], partition)
	r.mu.Unlock()
	r.cl.RemoveConsumePartitions(map[string][]int32{topic: {partition}})
	// Run may hold records that it polled before. If the partition is followed anew they must not be taken
	// for its first ones.
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting++
	if r.interrupt != nil {
		r.interrupt()
	}
	for turn := r.turn; r.running && r.turn == turn; {
		r.turned.Wait()
	}
	r.waiting--
}

// Remade has again called when a topic is gone, or was made anew by somebody, which ends Run otherwise. again makes the
// topic where it is missing and follows its partitions anew, after Forget. While it fails it is called again and again.
func (r *Reader) Remade(topic string, again func(context.Context) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.remakes[topic] = again
}

func (r *Reader) remake(ctx context.Context, topic string) (own, done bool) {
	r.mu.Lock()
	again, own := r.remakes[topic]
	r.mu.Unlock()
	if !own {
		return false, false
	}
	r.cfg.logger().Warn("a topic is gone, or was made anew; it is taken up from its start", "topic", topic)
	if err := again(ctx); err != nil {
		r.cfg.logger().Error("a topic can't be taken up again; this is tried again", "topic", topic, "error", err)
		return true, false
	}
	return true, true
}

// Forget stops following all of a topic, and forgets which topic had that name.
func (r *Reader) Forget(topic string) {
	r.mu.Lock()
	parts := slices.Collect(maps.Keys(r.following[topic]))
	r.mu.Unlock()
	for _, partition := range parts {
		r.Unfollow(topic, partition)
	}
	r.cl.PurgeTopicsFromConsuming(topic)
}

// Run hands records to the sinks until ctx ends; it returns an error only if trying again can't help, as when a topic
// that is followed was deleted and made anew.
func (r *Reader) Run(ctx context.Context) error {
	defer r.ended()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	r.probes.Go(func() { r.stalls.watch(ctx, stallCheck, r.standing, r.skipTo) })
	r.probes.Go(func() { r.topics.watch(ctx, stallCheck, r.followed) })
	for {
		turn, end := r.nextPoll(ctx)
		poll, cancel := r.stalls.nextPoll(turn)
		fetches := r.cl.PollRecords(poll, 10_000)
		interrupted := poll.Err() != nil
		cancel()
		end()
		select {
		case err := <-r.anew:
			return err
		default:
		}
		if ctx.Err() != nil || fetches.IsClientClosed() {
			return nil // a stop is not an error
		}
		if !interrupted || !errors.Is(fetches.Err0(), context.Canceled) {
			if err := fatalFetch(ctx, fetches, r.cfg); err != nil {
				return err
			}
		}
		r.stalls.suspect(fetches)
		fetches.EachPartition(r.hand)
		r.stalls.skip()
		r.mu.Lock()
		r.turn++
		r.turned.Broadcast()
		r.mu.Unlock()
	}
}

// nextPoll is the context of the next poll, which Unfollow may cut short.
func (r *Reader) nextPoll(ctx context.Context) (context.Context, context.CancelFunc) {
	poll, cancel := context.WithCancel(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running, r.interrupt = true, cancel
	if r.waiting > 0 || len(r.anew) > 0 {
		cancel()
	}
	return poll, cancel
}

// madeAnew ends Run: the client library would stay with the old topic, silently.
func (r *Reader) madeAnew(topic string) {
	select {
	case r.anew <- errMadeAnew(topic):
	default: // one is enough
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.interrupt != nil {
		r.interrupt()
	}
}

// followed are the topics of which a partition is.
func (r *Reader) followed() (topics []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for topic, parts := range r.following {
		if len(parts) > 0 || r.remakes[topic] != nil {
			topics = append(topics, topic)
		}
	}
	return topics
}

func (r *Reader) ended() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running = false
	r.turned.Broadcast()
}

// fatalFetch is the first error that ends a consumer; the others are logged and the client goes on.
func fatalFetch(ctx context.Context, fetches kgo.Fetches, c ClientConfig) error {
	var fatal error
	fetches.EachError(func(topic string, partition int32, err error) {
		// Data loss ends it too: somebody must look before Whisper goes on as if nothing had happened.
		if errors.Is(err, errLater) || topic == "" && errors.Is(err, context.Canceled) {
			return // the rest comes with the next fetch; the poll was cut short
		}
		if loss := (*kgo.ErrDataLoss)(nil); IsFatal(err) || errors.As(err, &loss) {
			fatal = fmt.Errorf("consume %s/%d: %w", topic, partition, err)
			return
		}
		c.logger().Log(ctx, fetchLevel(err), "consume", "topic", topic, "partition", partition, "error", err)
	})
	return fatal
}

func (r *Reader) hand(p kgo.FetchTopicPartition) {
	if len(p.Records) == 0 {
		return
	}
	r.mu.Lock()
	f := r.following[p.Topic][p.Partition]
	r.mu.Unlock()
	if f == nil {
		return
	}
	next := p.Records[len(p.Records)-1].Offset + 1
	if records := dataOf(p.Records); len(records) > 0 {
		f.sink(records)
	}
	f.next.Store(next)
	if next >= f.end {
		f.done()
	}
}

// Close ends the client.
func (r *Reader) Close() {
	r.cancel()
	r.cl.Close()
	r.probes.Wait()
}
