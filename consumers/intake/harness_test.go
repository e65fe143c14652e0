package intake

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

const partitions = 4

var (
	high    = consumers.TopicRequests(domain.High)
	toHigh  = consumers.TopicDeliveries(domain.High)
	started = time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)
)

// bench is a fake broker with Whisper's topics, and hands to write and read with.
type bench struct {
	testing.TB
	cluster  *kfake.Cluster
	client   consumers.ClientConfig
	producer *kgo.Client
}

func setup(t testing.TB) *bench {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	b := &bench{TB: t, cluster: cluster, client: consumers.ClientConfig{Brokers: cluster.ListenAddrs(), ClientID: "intake-test"}}
	topology := consumers.Topology{Partitions: partitions, Replication: 1, DuplicateWindow: 24 * time.Hour, Retention: 24 * time.Hour}
	if err := consumers.EnsureTopics(t.Context(), b.client, topology.Specs()...); err != nil {
		t.Fatal(err)
	}
	b.producer, err = kgo.NewClient(kgo.SeedBrokers(b.client.Brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchMaxBytes(64<<20), kgo.BrokerMaxWriteBytes(256<<20), kgo.ProducerBatchCompression(kgo.GzipCompression()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.producer.Close)
	return b
}

// publish writes as upstream; records without a time get the one that the role's clock starts at.
func (b *bench) publish(records ...*kgo.Record) {
	b.Helper()
	for _, rec := range records {
		if rec.Timestamp.IsZero() {
			rec.Timestamp = started
		}
	}
	if err := b.producer.ProduceSync(b.Context(), records...).FirstErr(); err != nil {
		b.Fatal(err)
	}
}

func requestRecord(value string) *kgo.Record { return &kgo.Record{Topic: high, Value: []byte(value)} }

func (b *bench) config() Config {
	return Config{
		Client: b.client, Partitions: partitions, TemplateWait: 10 * time.Second, CommitInterval: 20 * time.Millisecond,
		Now: func() time.Time { return started },
	}
}

// start runs a role until stop, or the end of the test.
func (b *bench) start(cfg Config) (role *Role, stop func()) {
	b.Helper()
	role, err := New(cfg)
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- role.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			b.Errorf("role: %v", err)
		}
	})
	b.Cleanup(stop)
	b.eventually("the role is ready", func() bool { return role.Ready() == nil })
	return role, stop
}

func (b *bench) eventually(what string, ok func() bool) {
	b.Helper()
	deadline := time.After(3 * time.Minute)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			b.Fatalf("waited in vain: %s", what)
		case <-tick.C:
		}
	}
}

// read returns the first n records of a topic, those of a partition in order.
func (b *bench) read(topic string, n int) []*kgo.Record {
	b.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.client.Brokers...), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		b.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(b.Context(), 60*time.Second)
	defer cancel()
	var records []*kgo.Record
	for len(records) < n {
		fetches := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			b.Fatalf("%s has %d records, want %d", topic, len(records), n)
		}
		records = append(records, fetches.Records()...)
	}
	return records
}

// events reads deliveries by user, each of which must be on its user's partition.
func (b *bench) events(topic string, n int) map[string]*whisperv1.Event {
	b.Helper()
	events := map[string]*whisperv1.Event{}
	for _, rec := range b.read(topic, n) {
		ev := &whisperv1.Event{}
		if err := proto.Unmarshal(rec.Value, ev); err != nil {
			b.Fatal(err)
		}
		if string(rec.Key) != ev.GetUserId() || rec.Partition != consumers.PartitionOf(ev.GetUserId(), partitions) {
			b.Errorf("%s has key %s and is on partition %d", ev.GetUserId(), rec.Key, rec.Partition)
		}
		if kind := consumers.KindOfRecord(rec); kind != "delivery_accepted" || domain.KindOf(ev) != kind {
			b.Errorf("%s has the header event %q", ev.GetUserId(), kind)
		}
		events[ev.GetUserId()] = ev
	}
	return events
}

// deadLetter is what a test says about one.
type deadLetter struct{ reason, topic, partition, offset, value string }

func (b *bench) deadLetters(n int) []deadLetter {
	b.Helper()
	var letters []deadLetter
	for _, rec := range b.read(consumers.TopicDeadLetters, n) {
		h := map[string]string{}
		for _, header := range rec.Headers {
			h[header.Key] = string(header.Value)
		}
		if h[consumers.HeaderRole] != "intake" {
			b.Errorf("the role of a dead letter is %q", h[consumers.HeaderRole])
		}
		letters = append(letters, deadLetter{
			h[consumers.HeaderError], h[consumers.HeaderTopic], h[consumers.HeaderPartition], h[consumers.HeaderOffset], string(rec.Value),
		})
	}
	return letters
}

// rewind makes the group start over, as if nothing had been committed.
func (b *bench) rewind() {
	b.Helper()
	adm, err := b.client.Admin()
	if err != nil {
		b.Fatal(err)
	}
	defer adm.Close()
	if _, err := adm.DeleteGroup(b.Context(), Group); err != nil {
		b.Fatal(err)
	}
}

// committed is how many records the group has committed of a topic.
func (b *bench) committed(topic string) (n int64) {
	b.Helper()
	adm, err := b.client.Admin()
	if err != nil {
		b.Fatal(err)
	}
	defer adm.Close()
	offsets, err := adm.FetchOffsets(b.Context(), Group)
	if err != nil {
		b.Fatal(err)
	}
	for _, p := range offsets.Offsets()[topic] {
		n += p.At
	}
	return n
}

func oneUser(user string) string {
	return fmt.Sprintf(`{"to":{"users":[%q]},"content":{"body":"b"}}`, user)
}
