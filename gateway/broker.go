package gateway

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// broker is all that the gateway needs of Kafka, so that its tests can do without.
type broker interface {
	// Prepare waits for Kafka and makes the node's topic where it is missing.
	Prepare(ctx context.Context) error
	// Publish, Fact, Attempt and DeadLetter hand a record over; done, where given, runs elsewhere once it is
	// written. Facts and dead letters that Kafka refuses are tried again; of what Publish was given, done decides.
	// An error that reaches the process also ends Run. They wait while Kafka takes nothing and the room for what
	// it has not taken is full.
	Publish(rec *kgo.Record, done func(error))
	Fact(ev *whisperv1.Event, trace []kgo.RecordHeader, done func(error))
	Attempt(shared *domain.AttemptFacts, fact domain.AttemptFact, trace []kgo.RecordHeader, done func(error))
	DeadLetter(rec *kgo.Record, reason error, done func(error))
	// Follow hands the records of a partition to sink, in order, while Run runs.
	Follow(ctx context.Context, topic string, partition int32, from int64, sink func([]*kgo.Record)) (caughtUp <-chan struct{}, err error)
	// Remade has renew called when the node's topic was deleted, whoever makes it anew; then its partitions, in order, go
	// to sinks, from the start. state hears why that fails, and nil when it is done. To be called once it is followed.
	Remade(renew func(), state func(error), sinks ...func([]*kgo.Record))
	// Committed and Commit keep the positions in the node's topic.
	Committed(ctx context.Context) (map[int32]int64, error)
	Commit(ctx context.Context, next map[int32]int64) error
	Flush(ctx context.Context) error
	// GiveUp: from now on nobody waits while Kafka takes nothing; what it has no room for is not written.
	GiveUp()
	Run(ctx context.Context) error
	Close()
}

type kafka struct {
	cfg       Config
	publisher *consumers.Publisher
	facts     *consumers.Facts
	dead      *consumers.DeadLetters
	reader    *consumers.Reader
	admin     *kadm.Client

	patience context.Context // ends with GiveUp
	giveUp   context.CancelFunc
}

func newKafka(cfg Config) (*kafka, error) {
	publisher, err := consumers.NewPublisher(cfg.Kafka, consumers.LingerBulk)
	if err != nil {
		return nil, err
	}
	reader, err := consumers.NewReader(cfg.Kafka)
	if err != nil {
		publisher.Close()
		return nil, err
	}
	admin, err := cfg.Kafka.Admin()
	if err != nil {
		publisher.Close()
		reader.Close()
		return nil, err
	}
	patience, giveUp := context.WithCancel(context.Background())
	return &kafka{
		cfg:       cfg,
		patience:  patience,
		giveUp:    giveUp,
		publisher: publisher,
		facts:     consumers.NewFacts(publisher, cfg.Partitions),
		dead:      consumers.NewDeadLetters(publisher, "gateway"),
		reader:    reader,
		admin:     admin,
	}, nil
}

func (k *kafka) Prepare(ctx context.Context) error {
	if err := k.cfg.Kafka.Await(ctx); err != nil {
		return err
	}
	err := k.persist(ctx, func() error { return k.ensure(ctx) })
	if errors.Is(err, kerr.InvalidTopicException) {
		return fmt.Errorf("node: the name %q can't be used: it is part of a topic's name, where Kafka takes a dot and an underscore "+
			"for the same; choose another name: %w", k.cfg.Node, err)
	}
	return err
}

func (k *kafka) ensure(ctx context.Context) error {
	topology := consumers.Topology{Partitions: k.cfg.Partitions, Replication: k.cfg.Replication, MinISR: k.cfg.MinISR}
	return consumers.EnsureTopics(ctx, k.cfg.Kafka, topology.NodeSpec(k.cfg.Node))
}

// remakeTimeout bounds one try: what Kafka does not take in this time is tried again.
const remakeTimeout = 30 * time.Second

func (k *kafka) Remade(renew func(), state func(error), sinks ...func([]*kgo.Record)) {
	topic := consumers.TopicNode(k.cfg.Node)
	again := func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, remakeTimeout)
		defer cancel()
		if err := k.ensure(ctx); err != nil {
			return fmt.Errorf("make the node's topic: %w", err)
		}
		renew() // also lets go of a sink that waits
		k.reader.Forget(topic)
		renew() // of what came meanwhile
		for partition, sink := range sinks {
			if _, err := k.reader.Follow(ctx, topic, int32(partition), consumers.FromStart, sink); err != nil {
				return fmt.Errorf("follow the node's topic: %w", err)
			}
		}
		return nil
	}
	k.reader.Remade(topic, func(ctx context.Context) error {
		err := again(ctx)
		state(err)
		return err
	})
}

func (k *kafka) Publish(rec *kgo.Record, done func(error)) {
	k.publisher.Publish(k.patience, rec, done)
}

func (k *kafka) Fact(ev *whisperv1.Event, trace []kgo.RecordHeader, done func(error)) {
	k.facts.Publish(k.patience, ev, trace, done)
}

func (k *kafka) Attempt(shared *domain.AttemptFacts, fact domain.AttemptFact, trace []kgo.RecordHeader, done func(error)) {
	k.facts.PublishAttempt(k.patience, shared, fact, trace, done)
}

func (k *kafka) DeadLetter(rec *kgo.Record, reason error, done func(error)) {
	k.dead.Put(k.patience, rec, reason, done)
}

func (k *kafka) Follow(ctx context.Context, topic string, partition int32, from int64, sink func([]*kgo.Record)) (<-chan struct{}, error) {
	return k.reader.Follow(ctx, topic, partition, from, sink)
}

func (k *kafka) group() string { return consumers.GroupNode(k.cfg.Node) }

func (k *kafka) Committed(ctx context.Context) (next map[int32]int64, err error) {
	err = k.persist(ctx, func() error { next, err = k.committed(ctx); return err })
	return next, err
}

// The wait between two questions to a cluster of which a broker is away, or that has nobody yet to keep offsets: a
// fresh one makes the topic for them when it is first asked.
const (
	persistFirst = 200 * time.Millisecond
	persistMost  = 5 * time.Second
)

// persist tries again what may pass, until ctx ends.
func (k *kafka) persist(ctx context.Context, do func() error) error {
	return consumers.Retry{
		First: persistFirst, Most: persistMost,
		// A broker that is away counts for none where a topic is made.
		Over: func(err error) bool {
			return !consumers.MayPass(err) && !errors.Is(err, kerr.InvalidReplicationFactor)
		},
		Tell: func(err error, next time.Duration) {
			k.cfg.Logger.Warn("waiting for kafka", "error", err, "next_try", next)
		},
	}.Do(ctx, do)
}

func (k *kafka) committed(ctx context.Context) (map[int32]int64, error) {
	topic := consumers.TopicNode(k.cfg.Node)
	offsets, err := k.admin.FetchOffsetsForTopics(ctx, k.group(), topic)
	if errors.Is(err, kerr.GroupIDNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("fetch the offsets of %s: %w", k.group(), err)
	}
	next := map[int32]int64{}
	for partition, o := range offsets[topic] {
		if o.Err != nil && !errors.Is(o.Err, kerr.GroupIDNotFound) {
			return nil, fmt.Errorf("fetch the offset of %s/%d: %w", topic, partition, o.Err)
		}
		if o.Err == nil && o.At >= 0 {
			next[partition] = o.At
		}
	}
	return next, nil
}

func (k *kafka) Commit(ctx context.Context, next map[int32]int64) error {
	topic := consumers.TopicNode(k.cfg.Node)
	var offsets kadm.Offsets
	for partition, at := range next {
		offsets.AddOffset(topic, partition, at, -1)
	}
	if err := k.admin.CommitAllOffsets(ctx, k.group(), offsets); err != nil {
		return fmt.Errorf("commit the offsets of %s: %w", k.group(), err)
	}
	return nil
}

func (k *kafka) Flush(ctx context.Context) error { return k.publisher.Flush(ctx) }

func (k *kafka) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return k.reader.Run(ctx) })
	group.Go(func() error { return k.publisher.Run(ctx) })
	return group.Wait()
}

func (k *kafka) GiveUp() { k.giveUp() }

func (k *kafka) Close() {
	k.giveUp()
	k.reader.Close()
	k.publisher.Close()
	k.admin.Close()
}
