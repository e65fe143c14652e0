package consumers_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/consumers"
)

// kafka is a fake broker with the topics, and a client config to it.
func kafka(t *testing.T, partitions int32, topics ...string) consumers.ClientConfig {
	t.Helper()
	_, client := fakeKafka(t, partitions, topics...)
	return client
}

// fakeKafka is kafka for tests that also play the broker's part.
func fakeKafka(t *testing.T, partitions int32, topics ...string) (*kfake.Cluster, consumers.ClientConfig) {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(partitions, topics...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	return cluster, consumers.ClientConfig{Brokers: cluster.ListenAddrs(), ClientID: t.Name()}
}

func publish(t *testing.T, c consumers.ClientConfig, recs ...*kgo.Record) {
	t.Helper()
	p, err := consumers.NewPublisher(c, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.PublishSync(t.Context(), recs...); err != nil {
		t.Fatal(err)
	}
}

// eventually waits for a condition; it fails the test after a time that no healthy run needs.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(3 * time.Minute)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("waited in vain: %s", what)
		case <-tick.C:
		}
	}
}

// recorder is a Handler that keeps what it was handed, and commits it unless hold is set.
type recorder struct {
	mu     sync.Mutex
	seen   map[string][]string // topic/partition → values
	owned  map[string]bool
	closed int
	hold   bool
	fail   error
}

func newRecorder() *recorder {
	return &recorder{seen: map[string][]string{}, owned: map[string]bool{}}
}

func (r *recorder) Open(_ context.Context, p *consumers.Partition) (consumers.Feed, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := fmt.Sprintf("%s/%d", p.Topic, p.ID)
	r.owned[key] = true
	return &recording{r, p, key, consumers.NewWatermark(p)}, nil
}

func (r *recorder) count() (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, values := range r.seen {
		n += len(values)
	}
	return n
}

func (r *recorder) owns() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var keys []string
	for k, ok := range r.owned {
		if ok {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	return keys
}

type recording struct {
	r    *recorder
	p    *consumers.Partition
	key  string
	mark *consumers.Watermark
}

func (f *recording) Handle(_ context.Context, records []*kgo.Record) error {
	f.r.mu.Lock()
	defer f.r.mu.Unlock()
	if f.r.fail != nil {
		return f.r.fail
	}
	for _, rec := range records {
		f.r.seen[f.key] = append(f.r.seen[f.key], string(rec.Value))
		f.mark.Take(rec.Offset)
		if !f.r.hold {
			f.mark.Done(rec.Offset)
		}
	}
	return nil
}

func (f *recording) Close(context.Context) error {
	f.r.mu.Lock()
	defer f.r.mu.Unlock()
	f.r.owned[f.key] = false
	f.r.closed++
	return nil
}

func start(t *testing.T, cfg consumers.LoopConfig) (stop func()) {
	t.Helper()
	loop, err := consumers.NewLoop(cfg)
	if err != nil {
		t.Fatal(err)
	}
	stop = runLoop(t, loop)
	eventually(t, "the loop is ready", func() bool { return loop.Ready() == nil })
	return stop
}

func runLoop(t *testing.T, loop *consumers.Loop) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- loop.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("loop: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func records(topic string, partition int32, n int) []*kgo.Record {
	recs := make([]*kgo.Record, n)
	for i := range recs {
		recs[i] = &kgo.Record{Topic: topic, Partition: partition, Value: fmt.Appendf(nil, "%d", i)}
	}
	return recs
}

func TestLoopKeepsOrderAndResumesBehindTheSlowest(t *testing.T) {
	t.Parallel()
	client := kafka(t, 2, "a")
	publish(t, client, append(records("a", 0, 500), records("a", 1, 500)...)...)

	first := newRecorder()
	stop := start(t, consumers.LoopConfig{Client: client, Group: "g", Topics: []string{"a"}, Handler: first, MaxBufferedRecords: 10})
	eventually(t, "all records", func() bool { return first.count() == 1000 })
	for key, values := range first.seen {
		for i, v := range values {
			if v != fmt.Sprint(i) {
				t.Fatalf("%s: record %d is %s", key, i, v)
			}
		}
	}
	stop()
	if first.closed != 2 {
		t.Errorf("%d feeds closed, want 2", first.closed)
	}

	// What is never settled comes again; what was settled does not.
	publish(t, client, records("a", 0, 3)...)
	holding := newRecorder()
	holding.hold = true
	stop = start(t, consumers.LoopConfig{Client: client, Group: "g", Topics: []string{"a"}, Handler: holding})
	eventually(t, "the new records", func() bool { return holding.count() == 3 })
	stop()
	again := newRecorder()
	start(t, consumers.LoopConfig{Client: client, Group: "g", Topics: []string{"a"}, Handler: again})
	eventually(t, "the same records again", func() bool { return again.count() == 3 })
}

func TestLoopEndsOnAnErrorThatReachesTheProcess(t *testing.T) {
	t.Parallel()
	client := kafka(t, 1, "a")
	publish(t, client, records("a", 0, 1)...)
	failing := newRecorder()
	failing.fail = consumers.Reaching(consumers.ReachProcess, errors.New("could not find out"))
	loop, err := consumers.NewLoop(consumers.LoopConfig{Client: client, Group: "g", Topics: []string{"a"}, Handler: failing})
	if err != nil {
		t.Fatal(err)
	}
	if err := loop.Run(t.Context()); err == nil || err.Error() != "handle a/0: could not find out" {
		t.Fatalf("Run = %v", err)
	}
}

func TestCoPartitionedTopicsMoveTogether(t *testing.T) {
	t.Parallel()
	topics := []string{"high", "normal", "low"}
	client := kafka(t, 6, topics...)
	one, two := newRecorder(), newRecorder()
	cfg := consumers.LoopConfig{Client: client, Group: "g", Topics: topics, CoPartitioned: true, Handler: one}
	stopOne := start(t, cfg)
	eventually(t, "everything is one's", func() bool { return len(one.owns()) == 18 })
	cfg.Handler = two
	start(t, cfg)
	eventually(t, "both have half", func() bool { return len(one.owns()) == 9 && len(two.owns()) == 9 })
	for _, r := range []*recorder{one, two} {
		owned := r.owns()
		for p := range 6 {
			n := 0
			for _, topic := range topics {
				if slices.Contains(owned, fmt.Sprintf("%s/%d", topic, p)) {
					n++
				}
			}
			if n != 0 && n != 3 {
				t.Errorf("partition %d is torn apart: %v", p, owned)
			}
		}
	}
	stopOne()
	eventually(t, "everything is two's", func() bool { return len(two.owns()) == 18 })
}

func TestLoopStartsWhereItIsTold(t *testing.T) {
	t.Parallel()
	client := kafka(t, 1, "a")
	publish(t, client, records("a", 0, 10)...)
	r := newRecorder()
	start(t, consumers.LoopConfig{
		Client: client, Group: "g", Topics: []string{"a"}, Handler: r,
		Starts: func(context.Context, map[string][]int32) (map[string]map[int32]int64, error) {
			return map[string]map[int32]int64{"a": {0: 7}}, nil
		},
	})
	eventually(t, "the last three", func() bool { return r.count() == 3 })
	if got := r.seen["a/0"]; !slices.Equal(got, []string{"7", "8", "9"}) {
		t.Errorf("got %v", got)
	}
}

func TestReaderCatchesUpAndGoesOn(t *testing.T) {
	t.Parallel()
	client := kafka(t, 1, "a", "empty")
	publish(t, client, records("a", 0, 100)...)
	reader, err := consumers.NewReader(client)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- reader.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		reader.Close()
	})
	var mu sync.Mutex
	n := 0
	count := func() int { mu.Lock(); defer mu.Unlock(); return n }
	caughtUp, err := reader.Follow(ctx, "a", 0, 40, func(recs []*kgo.Record) { mu.Lock(); defer mu.Unlock(); n += len(recs) })
	if err != nil {
		t.Fatal(err)
	}
	<-caughtUp
	if count() != 60 {
		t.Errorf("caught up after %d records, want 60", count())
	}
	publish(t, client, records("a", 0, 5)...)
	eventually(t, "what came later", func() bool { return count() == 65 })
	caughtUp, err = reader.Follow(ctx, "empty", 0, consumers.FromStart,
		func(recs []*kgo.Record) { mu.Lock(); defer mu.Unlock(); n += len(recs) })
	if err != nil {
		t.Fatal(err)
	}
	<-caughtUp
	publish(t, client, records("empty", 0, 1)...)
	eventually(t, "the first record", func() bool { return count() == 66 })
	if _, err := reader.Follow(ctx, "a", 7, consumers.FromStart, func([]*kgo.Record) {}); err == nil {
		t.Error("a partition that does not exist can be followed")
	}
}

func TestTopicsAreMadeOnceAndCheckedAtStart(t *testing.T) {
	t.Parallel()
	client := kafka(t, 1, "other")
	adm, err := client.Admin()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(adm.Close)
	topology := consumers.Topology{Partitions: 4, Replication: 1, DuplicateWindow: 24 * time.Hour, Retention: 24 * time.Hour}
	if _, err := consumers.CheckTopics(t.Context(), adm, topology, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("an empty cluster passes the check")
	}
	if err := consumers.EnsureTopics(t.Context(), client, topology.Specs()...); err != nil {
		t.Fatal(err)
	}
	plans, err := consumers.CheckTopics(t.Context(), adm, topology, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range plans {
		if p.Create != nil || len(p.Alter) > 0 {
			t.Errorf("still to do after apply: %+v", p)
		}
	}
	topology.Partitions = 8
	if _, err := consumers.CheckTopics(t.Context(), adm, topology, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a wrong number of partitions passes the check")
	}
	topology.Partitions, topology.Retention = 4, 48*time.Hour
	if err := consumers.EnsureTopics(t.Context(), client, topology.Specs()...); err != nil {
		t.Fatal(err)
	}
	configs, err := adm.DescribeTopicConfigs(t.Context(), consumers.TopicEvents)
	if err != nil {
		t.Fatal(err)
	}
	if got := config(configs, consumers.TopicEvents, "retention.ms"); got != "172800000" {
		t.Errorf("retention.ms = %s after the change", got)
	}
}

func config(configs kadm.ResourceConfigs, topic, key string) string {
	rc, err := configs.On(topic, nil)
	if err != nil {
		return err.Error()
	}
	for _, c := range rc.Configs {
		if c.Key == key {
			return c.MaybeValue()
		}
	}
	return ""
}

// What retention removed before the group read it is an error, until its loss is accepted.
func TestRecordsThatRetentionOvertookEndTheLoop(t *testing.T) {
	t.Parallel()
	client := kafka(t, 1, "a")
	cfg := consumers.LoopConfig{Client: client, Group: "g", Topics: []string{"a"}, Handler: newRecorder()}
	put := func(n int) {
		for i := range n {
			publish(t, client, &kgo.Record{Topic: "a", Value: fmt.Append(nil, i)})
		}
	}
	put(3)
	stop := start(t, cfg)
	eventually(t, "the group reads", func() bool { return cfg.Handler.(*recorder).count() == 3 })
	stop()
	put(7)
	adm, err := client.Admin()
	if err != nil {
		t.Fatal(err)
	}
	defer adm.Close()
	gone := kadm.Offsets{}
	gone.AddOffset("a", 0, 8, -1) // 3 to 7 were never read
	if _, err := adm.DeleteRecords(t.Context(), gone); err != nil {
		t.Fatal(err)
	}

	lost := metrics.GetOrCreateCounter(`whisper_records_lost_total{group="g",topic="a"}`)
	before := lost.Get()
	loop, err := consumers.NewLoop(cfg)
	if err != nil {
		t.Fatal(err)
	}
	err = loop.Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "5 records before offset 8") || !strings.Contains(err.Error(), "--kafka-accept-loss") {
		t.Fatalf("the loop ended with %v", err)
	}
	if n := lost.Get() - before; n != 5 {
		t.Errorf("%d records were counted as lost", n)
	}

	accepting := newRecorder()
	cfg.Handler, cfg.Client.AcceptLoss = accepting, true
	start(t, cfg)
	eventually(t, "the rest is read", func() bool { return accepting.count() == 2 })
}
