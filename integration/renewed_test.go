package integration

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/consumers"
)

// TestARequestTopicThatWasMadeAnewIsRead: with a real broker, whose group still knows the offsets of the old one.
func TestARequestTopicThatWasMadeAnewIsRead(t *testing.T) {
	t.Parallel()
	topic := fmt.Sprintf("renewed-%d", time.Now().UnixNano())
	create := func(partitions int32) {
		t.Helper()
		if _, err := admin().CreateTopic(t.Context(), partitions, 1, nil, topic); err != nil {
			t.Fatal(err)
		}
	}
	create(1)
	t.Cleanup(func() { _, _ = admin().DeleteTopics(t.Context(), topic) })
	var want []string
	put := func(partition int32, prefix string, n int) {
		t.Helper()
		cl, err := kgo.NewClient(kgo.SeedBrokers(sys.cluster.Kafka...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
		if err != nil {
			t.Fatal(err)
		}
		defer cl.Close()
		for i := range n {
			value := fmt.Sprintf("%s-%d", prefix, i)
			want = append(want, value)
			if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Partition: partition, Value: []byte(value)}).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
	}
	put(0, "first", 5)
	all := &kept{}
	loop, err := consumers.NewLoop(consumers.LoopConfig{
		Client: consumers.ClientConfig{Brokers: sys.cluster.Kafka, ClientID: "renewed"}, Group: topic, Topics: []string{topic}, Renewable: []string{topic},
		Handler: all, CommitInterval: 50 * time.Millisecond, StallCheck: 100 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- loop.Run(t.Context()) }()
	read := func() bool {
		all.mu.Lock()
		defer all.mu.Unlock()
		return slices.Equal(slices.Sorted(slices.Values(all.values)), slices.Sorted(slices.Values(want)))
	}
	eventually(t, "the first topic is read", read)

	if _, err := admin().DeleteTopics(t.Context(), topic); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the loop sees that it is gone", func() bool { return loop.Ready() != nil })
	create(1)
	put(0, "second", 12)
	eventually(t, "the second topic is read, all of it", read)
	eventually(t, "the loop is ready", func() bool { return loop.Ready() == nil })

	if _, err := admin().CreatePartitions(t.Context(), 1, topic); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new partition is there", func() bool {
		topics, err := admin().ListTopics(t.Context(), topic)
		return err == nil && len(topics[topic].Partitions) == 2
	})
	put(1, "added", 3)
	eventually(t, "the partition that was added is read", read)
	select {
	case err := <-done:
		t.Errorf("Run = %v", err)
	default:
	}
}
