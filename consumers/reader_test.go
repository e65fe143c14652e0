package consumers_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/klivvr/whisper/consumers"
)

func runReader(t *testing.T, client consumers.ClientConfig) *consumers.Reader {
	t.Helper()
	reader, err := consumers.NewReader(client)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- reader.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		reader.Close()
	})
	return reader
}

func await(t *testing.T, what string, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(3 * time.Minute):
		t.Fatalf("waited in vain: %s", what)
	}
}

// TestReaderCatchesUpWhereTheLastOffsetsHoldNoRecord: a transaction ends with a marker that no reader sees.
// Upstream may write templates so; and compaction may leave the same hole.
func TestReaderCatchesUpWhereTheLastOffsetsHoldNoRecord(t *testing.T) {
	t.Parallel()
	client := kafka(t, 1, "a")
	cl, err := kgo.NewClient(kgo.SeedBrokers(client.Brokers...), kgo.TransactionalID("x"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	if err := cl.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := cl.ProduceSync(t.Context(), records("a", 0, 3)...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if err := cl.EndTransaction(t.Context(), kgo.TryCommit); err != nil {
		t.Fatal(err)
	}
	reader := runReader(t, client)
	for _, from := range []int64{consumers.FromStart, 3} { // at 3 stands the marker alone
		var n atomic.Int64
		caughtUp, err := reader.Follow(t.Context(), "a", 0, from, func(recs []*kgo.Record) { n.Add(int64(len(recs))) })
		if err != nil {
			t.Fatal(err)
		}
		await(t, "it caught up", caughtUp)
		if want := max(0, 3-max(0, from)); n.Load() != want {
			t.Errorf("from %d: %d records, want %d", from, n.Load(), want)
		}
		reader.Unfollow("a", 0)
	}
}

// TestAfterUnfollowNothingIsHandedOver: what the sink touches is the caller's alone again, and a partition
// that is followed anew starts where it was told.
func TestAfterUnfollowNothingIsHandedOver(t *testing.T) {
	t.Parallel()
	client := kafka(t, 1, "a")
	publish(t, client, records("a", 0, 10)...)
	reader := runReader(t, client)
	// The sink is held in the middle of a later fetch.
	entered, hold := make(chan struct{}), make(chan struct{})
	release := sync.OnceFunc(func() { close(hold) })
	t.Cleanup(release)
	handed, calls := 0, 0
	caughtUp, err := reader.Follow(t.Context(), "a", 0, consumers.FromStart, func(recs []*kgo.Record) {
		if calls++; calls == 2 {
			close(entered)
			<-hold
		}
		handed += len(recs) // a data race, if the test reads it too early
	})
	if err != nil {
		t.Fatal(err)
	}
	await(t, "it caught up", caughtUp)
	publish(t, client, records("a", 0, 5)...)
	await(t, "the second call", entered)
	unfollowed := make(chan struct{})
	go func() { reader.Unfollow("a", 0); close(unfollowed) }()
	select {
	case <-unfollowed:
		t.Fatal("Unfollow returned while the sink was running")
	case <-time.After(50 * time.Millisecond):
	}
	release()
	await(t, "Unfollow", unfollowed)
	if handed <= 10 || handed > 15 { // how many of the later ones the fetch brought is Kafka's
		t.Errorf("%d records, want 11 to 15", handed)
	}
	again := 0
	caughtUp, err = reader.Follow(t.Context(), "a", 0, consumers.FromStart, func(recs []*kgo.Record) { again += len(recs) })
	if err != nil {
		t.Fatal(err)
	}
	await(t, "it caught up again", caughtUp)
	reader.Unfollow("a", 0)
	if again != 15 {
		t.Errorf("%d records the second time, want 15", again)
	}
}

// TestFollowWaitsForKafka: a broker that can't say where a partition begins is asked again.
func TestFollowWaitsForKafka(t *testing.T) {
	t.Parallel()
	cluster, client := fakeKafka(t, 1, "a")
	publish(t, client, records("a", 0, 3)...)
	var asked atomic.Int64
	cluster.ControlKey(int16(kmsg.ListOffsets), func(req kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		if asked.Add(1) > 3 {
			return nil, nil, false
		}
		resp := req.ResponseKind().(*kmsg.ListOffsetsResponse)
		for _, topic := range req.(*kmsg.ListOffsetsRequest).Topics {
			st := kmsg.NewListOffsetsResponseTopic()
			st.Topic = topic.Topic
			for _, p := range topic.Partitions {
				sp := kmsg.NewListOffsetsResponseTopicPartition()
				sp.Partition, sp.ErrorCode = p.Partition, kerr.CoordinatorNotAvailable.Code
				st.Partitions = append(st.Partitions, sp)
			}
			resp.Topics = append(resp.Topics, st)
		}
		return resp, nil, true
	})
	reader := runReader(t, client)
	caughtUp, err := reader.Follow(t.Context(), "a", 0, consumers.FromStart, func([]*kgo.Record) {})
	if err != nil {
		t.Fatal(err)
	}
	await(t, "it caught up", caughtUp)
}

// FollowAll asks about all its topics at once, and each is told when it has caught up.
func TestSeveralTopicsAreFollowedTogether(t *testing.T) {
	t.Parallel()
	cluster, client := fakeKafka(t, 1, "a", "b", "empty")
	publish(t, client, records("a", 0, 3)...)
	publish(t, client, records("b", 0, 2)...)
	reader, err := consumers.NewReader(client)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(reader.Close)
	var asked atomic.Int32
	cluster.ControlKey(int16(kmsg.ListOffsets), func(kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		asked.Add(1)
		return nil, nil, false
	})
	var mu sync.Mutex
	got := map[string]int{}
	follow := func(topic string, from int64) consumers.Followed {
		return consumers.Followed{Topic: topic, From: from, Sink: func(recs []*kgo.Record) {
			mu.Lock()
			defer mu.Unlock()
			got[topic] += len(recs)
		}}
	}
	caughtUp, err := reader.FollowAll(t.Context(), 0, follow("a", consumers.FromStart), follow("b", 1), follow("empty", consumers.FromStart))
	if err != nil {
		t.Fatal(err)
	}
	if n := asked.Load(); n != 2 {
		t.Errorf("three topics took %d requests for their ends, want 2", n)
	}
	go func() { _ = reader.Run(t.Context()) }()
	for _, c := range caughtUp {
		<-c
	}
	mu.Lock()
	defer mu.Unlock()
	if got["a"] != 3 || got["b"] != 1 || got["empty"] != 0 {
		t.Errorf("handed over %v", got)
	}
}
