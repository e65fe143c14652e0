// Package dispatch owns user partitions: one single-threaded loop a partition holds its users,
// presence, timers and deliveries in flight, all folded from topics, and asks the domain what to do.
// It keeps no state of its own beside Kafka, and it must not talk to sockets, providers or Postgres.
//
// What it promises: an offset of whisper.deliveries.{lane} is committed only when every delivery up to
// it is settled, or parked in whisper.timers, and everything that was decided about it is acknowledged
// by Kafka. A restart reads the changelogs, then the events since the oldest delivery in flight, then
// the deliveries themselves again, and goes on where the facts say it was.
package dispatch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/decide"
)

// Group is the consumer group of all dispatch processes.
const Group = "whisper-dispatch"

// Config of the role.
type Config struct {
	Client consumers.ClientConfig
	// Partitions of the topics that are keyed by user: what concerns another partition's users is written there.
	Partitions int32
	// Policy: decide.DefaultPolicy where nothing else is said.
	Policy decide.Policy
	// CommitInterval is how often settled offsets are let go (default 500 ms).
	CommitInterval time.Duration
	// HandoverTimeout bounds what is waited for when a partition goes (default 8 s).
	HandoverTimeout time.Duration
	// WalkRecords, where it is not 0, is how many records a second broadcasts may cause in this process at most, whatever
	// alerts allow: who is away takes two; who is sent to counts as 4, since a socket, a client and two facts follow.
	WalkRecords int
	Now         func() time.Time
	Logger      *slog.Logger
}

// Validate names every problem of the settings.
func (c Config) Validate() error {
	var errs []error
	if c.Policy.AckTimeout <= 0 {
		errs = append(errs, fmt.Errorf("ack-timeout: %s is not a positive duration", c.Policy.AckTimeout))
	}
	if c.Policy.AckTimeout > 10*time.Minute {
		errs = append(errs, fmt.Errorf("ack-timeout: %s would hold offsets back for too long: give at most 10m", c.Policy.AckTimeout))
	}
	if c.Partitions < 1 {
		errs = append(errs, fmt.Errorf("partitions: %d is out of range: give at least 1", c.Partitions))
	}
	if c.WalkRecords < 0 {
		errs = append(errs, fmt.Errorf("walk-records: %d is negative: give records a second, or 0 for no bound", c.WalkRecords))
	}
	if c.Policy.Spread < 0 || c.Policy.Spread > 2*time.Hour {
		errs = append(errs, fmt.Errorf("spread: %s is out of range: give 0s to 2h", c.Policy.Spread))
	}
	return errors.Join(append(errs, c.Client.Validate())...)
}

// Defaults are the settings where nothing else is said.
func Defaults() (c Config) {
	c.setDefaults()
	return c
}

func (c *Config) setDefaults() {
	if c.Policy == (decide.Policy{}) {
		c.Policy = decide.DefaultPolicy()
	}
	if c.CommitInterval == 0 {
		c.CommitInterval = 500 * time.Millisecond
	}
	if c.HandoverTimeout == 0 {
		c.HandoverTimeout = 8 * time.Second
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

// Role is one dispatch process.
type Role struct {
	cfg     Config
	log     *slog.Logger
	loop    *consumers.Loop
	reader  *consumers.Reader
	tails   *consumers.Reader    // looks for strays of earlier owners, behind everything else
	urgent  *consumers.Publisher // at once: the way of the high lane to a channel, and what it waits for
	direct  *consumers.Publisher // at once: the way of the others to a channel
	bulk    *consumers.Publisher // gathered: facts and changelogs
	dead    *consumers.DeadLetters
	tables  *tables
	metrics *roleMetrics
	notices *notices
	recalls *recalls
	bounces *bounces
	poison  *poison
	junk    *poison // told already
	pace    *pace

	mu    sync.Mutex
	parts map[int32]*partition
}

// fetchBytes is how much of a partition is fetched at once. With the default of 1 MiB alerts beside 60,000 deliveries of
// 8 KB on the low lane waited half a second for fetches; so it was some 0.1 s, and 128 KiB every 2 ms is still 64 MB/s of one
// partition alone.
const fetchBytes = 128 << 10

// lingerBulk is for facts and what is parked. A broadcast writes both for each of its users, a slice at a time on each
// partition: gathered for longer than a slice takes, several go in one request.
const lingerBulk = 50 * time.Millisecond

// New makes the role; Run starts it and closes what New opened.
func New(cfg Config) (*Role, error) {
	cfg.setDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	r := &Role{cfg: cfg, log: cfg.Logger, parts: map[int32]*partition{}, metrics: newRoleMetrics()}
	r.tables = newTables(r.log, cfg.Now)
	r.notices = newNotices(r.log)
	r.bounces = newBounces(r)
	r.poison, r.junk, r.pace = newPoison(), newPoison(), newPace(cfg.WalkRecords)
	var err error
	if r.urgent, err = consumers.NewPublisher(cfg.Client.ForLane(domain.High), 0); err != nil {
		return nil, err
	}
	if r.direct, err = consumers.NewPublisher(cfg.Client, 0); err != nil {
		return nil, err
	}
	if r.bulk, err = consumers.NewPublisher(cfg.Client, lingerBulk); err != nil {
		return nil, err
	}
	if r.reader, err = consumers.NewReader(cfg.Client); err != nil {
		return nil, err
	}
	if r.tails, err = consumers.NewTailReader(cfg.Client); err != nil {
		return nil, err
	}
	r.recalls = newRecalls(cfg.Client, r.reader, r.log)
	r.dead = consumers.NewDeadLetters(r.bulk, "dispatch")
	r.loop, err = consumers.NewLoop(consumers.LoopConfig{
		Client:             cfg.Client,
		Group:              Group,
		Topics:             topics(),
		CoPartitioned:      true,
		Handler:            r,
		MaxBufferedRecords: 4_000,
		// All lanes are fetched by one consumer: an alert waits for the answer that is under way.
		FetchMaxPartitionBytes: fetchBytes,
		CommitInterval:         cfg.CommitInterval,
		HandoverTimeout:        cfg.HandoverTimeout + time.Second,
	})
	if err != nil {
		return nil, err
	}
	return r, nil
}

// topics in the order of the queues; the first one leads the assignment.
func topics() []string {
	return []string{
		consumers.TopicEvents, consumers.TopicChanges,
		consumers.TopicDeliveries(domain.High), consumers.TopicDeliveries(domain.Normal), consumers.TopicDeliveries(domain.Low),
	}
}

// Run owns partitions until ctx ends, then hands them over.
func (r *Role) Run(ctx context.Context) error {
	defer func() {
		r.urgent.Close()
		r.direct.Close()
		r.bulk.Close()
		r.reader.Close()
		r.tails.Close()
	}()
	// The reader and the publishers outlive the loop: its handover needs them.
	support, stop := context.WithCancel(context.WithoutCancel(ctx))
	g, gctx := errgroup.WithContext(ctx)
	sg, sctx := errgroup.WithContext(support)
	sg.Go(func() error { return r.reader.Run(sctx) })
	sg.Go(func() error { return r.tails.Run(sctx) })
	sg.Go(func() error { return r.urgent.Run(sctx) })
	sg.Go(func() error { return r.direct.Run(sctx) })
	sg.Go(func() error { return r.bulk.Run(sctx) })
	r.tables.forgotten = func(over map[string]uint64) { r.forgetNodes(sctx, over) }
	topics := newNodeTopics(r.cfg.Client, r.log)
	r.tables.known = func(known map[string]bool) {
		sg.Go(func() error { topics.look(sctx, known); return nil }) // beside the watch, which is to notice who is silent
	}
	sg.Go(func() error { return r.tables.watch(sctx, r.heartbeatsEnd) })
	sg.Go(func() error { return r.tables.followTemplates(sctx, r.reader) })
	sg.Go(func() error { return r.recalls.run(sctx) })
	sg.Go(func() error { r.showPace(sctx); return nil })
	g.Go(func() error {
		if err := r.tables.restore(gctx, r.reader); err != nil && gctx.Err() == nil {
			return fmt.Errorf("restore nodes and templates: %w", err)
		}
		return nil
	})
	g.Go(func() error { return r.loop.Run(gctx) })
	g.Go(func() error { // whatever fails first ends the loop
		select {
		case <-gctx.Done():
			return nil
		case <-sctx.Done():
			return errors.New("a client of dispatch ended")
		}
	})
	err := g.Wait()
	stop()
	return errors.Join(sg.Wait(), err)
}

// Ready is nil when the partitions that this process owns are restored.
func (r *Role) Ready() error {
	if err := r.loop.Ready(); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, p := range r.parts {
		select {
		case <-p.restored:
		default:
			return fmt.Errorf("partition %d: still restoring", id)
		}
	}
	return errors.Join(r.urgent.Ready(), r.direct.Ready(), r.bulk.Ready())
}

// Pace says how fast broadcasts go in this process, and what holds them back.
func (r *Role) Pace() Pace { return r.pace.now(r.cfg.Now()) }

// showPace keeps the metrics of the pace.
func (r *Role) showPace(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		r.metrics.paced(r.pace.now(r.cfg.Now()))
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// Stopped are the partitions that can't go on, and why.
func (r *Role) Stopped() []consumers.Stopped { return r.loop.Stopped() }

// Retry tries the stopped partitions again now and says how many there are.
func (r *Role) Retry() int { return r.loop.Retry() }

// Open implements consumers.Handler: the topics of one partition number share one loop.
func (r *Role) Open(_ context.Context, source *consumers.Partition) (consumers.Feed, error) {
	queue := -1
	for i, topic := range topics() {
		if topic == source.Topic {
			queue = i
		}
	}
	if queue < 0 {
		return nil, fmt.Errorf("topic %s is not one of dispatch's", source.Topic)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.parts[source.ID]
	if p == nil {
		p = newPartition(r, source.ID)
		r.parts[source.ID] = p
	}
	p.attach(queue, source)
	return &feed{part: p, queue: queue}, nil
}

// forget drops a partition that ended.
func (r *Role) forget(p *partition) {
	r.tables.detach(p)
	r.recalls.forget(p)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.parts[p.id] == p {
		delete(r.parts, p.id)
	}
}

// heartbeatsEnd is which heartbeat comes next in Kafka.
func (r *Role) heartbeatsEnd(ctx context.Context) (int64, error) {
	_, end, err := r.reader.Bounds(ctx, consumers.TopicNodes, 0)
	return end, err
}

// toChannel is the lane's way to a channel.
func (r *Role) toChannel(lane domain.Lane) *consumers.Publisher {
	if lane == domain.High {
		return r.urgent
	}
	return r.direct
}

// free is how much room there is for what is decided of the lanes that are not urgent, on the way to a channel or to the
// log.
func (r *Role) free() float64 { return min(r.direct.Free(), r.bulk.Free()) }
