package cli

import (
	"strconv"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/consumers"
)

// clusterWith is a fake Kafka with a topic of three partitions.
func clusterWith(t *testing.T, topic string) consumers.ClientConfig {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(3, topic))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	return consumers.ClientConfig{Brokers: cluster.ListenAddrs(), ClientID: "test"}
}

func TestAScanEndsBehindATransactionMarker(t *testing.T) {
	t.Parallel()
	const topic = "letters"
	client := clusterWith(t, topic)
	for _, tx := range []struct {
		id  string
		end kgo.TransactionEndTry
	}{{"committed", kgo.TryCommit}, {"aborted", kgo.TryAbort}} {
		cl, err := kgo.NewClient(kgo.SeedBrokers(client.Brokers...), kgo.TransactionalID(tx.id))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(cl.Close)
		if err := cl.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Key: []byte(tx.id)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if err := cl.EndTransaction(t.Context(), tx.end); err != nil {
			t.Fatal(err)
		}
	}
	var keys []string
	s := Scan{Client: client, Topics: []string{topic}}
	if err := s.Run(t.Context(), func(rec *kgo.Record) error { keys = append(keys, string(rec.Key)); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(keys) != 1 || keys[0] != "committed" {
		t.Errorf("read %q", keys)
	}
}

func TestAScanReportsItsProgressToTheEnd(t *testing.T) {
	t.Parallel()
	const topic = "letters"
	client := clusterWith(t, topic)
	for i := range 3 {
		if err := Produce(t.Context(), client, &kgo.Record{Topic: topic, Key: []byte(strconv.Itoa(i))}); err != nil {
			t.Fatal(err)
		}
	}
	var told [][2]int64
	s := Scan{Client: client, Topics: []string{topic}, Progress: func(done, total int64) { told = append(told, [2]int64{done, total}) }}
	if err := s.Run(t.Context(), func(*kgo.Record) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if len(told) < 2 || told[0] != [2]int64{0, 3} || told[len(told)-1] != [2]int64{3, 3} {
		t.Errorf("told %v", told)
	}
}
