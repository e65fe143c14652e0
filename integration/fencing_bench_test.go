package integration

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/consumers"
)

// requests counts what clients write to brokers.
type requests struct{ n atomic.Int64 }

func (r *requests) OnBrokerWrite(kgo.BrokerMetadata, int16, int, time.Duration, time.Duration, error) {
	r.n.Add(1)
}

// BenchmarkFencing is what it costs to write a changelog that an earlier owner can't write to: 12 partitions, each of
// which writes 20 records of 300 B in a round and waits until they count. `header` carries the owner's epoch, as dispatch
// does; `transaction` has the broker refuse the earlier owner, by a transactional id a partition.
func BenchmarkFencing(b *testing.B) {
	const owned, records = 12, 20
	topic := fmt.Sprintf("fencing-%d", time.Now().UnixNano())
	if _, err := admin().CreateTopic(b.Context(), owned, 1, nil, topic); err != nil {
		b.Fatal(err)
	}
	epoch, _ := consumers.NoEpoch.Next(1)
	for _, way := range []string{"nothing", "header", "transaction"} {
		b.Run(way, func(b *testing.B) {
			var count requests
			clients := make([]*kgo.Client, owned)
			for i := range clients {
				if i > 0 && way != "transaction" { // one producer serves all partitions
					clients[i] = clients[0]
					continue
				}
				opts := []kgo.Opt{
					kgo.SeedBrokers(sys.cluster.Kafka...), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.WithHooks(&count),
					kgo.ProducerLinger(5 * time.Millisecond), kgo.ProducerBatchCompression(kgo.NoCompression()),
				}
				if way == "transaction" {
					opts = append(opts, kgo.TransactionalID(fmt.Sprintf("%s-%d", topic, i)))
				}
				client, err := kgo.NewClient(opts...)
				if err != nil {
					b.Fatal(err)
				}
				defer client.Close()
				clients[i] = client
			}
			round := func() {
				var all sync.WaitGroup
				for p := range int32(owned) {
					all.Go(func() { write(b, clients[p], way, topic, p, records, epoch) })
				}
				all.Wait()
			}
			round() // connections, producer ids
			count.n.Store(0)
			before := cpuTime(b)
			for b.Loop() {
				round()
			}
			n := float64(b.N * owned * records)
			b.ReportMetric(float64((cpuTime(b)-before).Microseconds())/n, "client-cpu-µs/record")
			b.ReportMetric(float64(count.n.Load())/n, "requests/record")
			b.ReportMetric(b.Elapsed().Seconds()*1e3/float64(b.N), "ms/round")
		})
	}
}

func write(b *testing.B, client *kgo.Client, way, topic string, partition int32, records int, epoch consumers.Epoch) {
	ctx := context.Background()
	if way == "transaction" {
		if err := client.BeginTransaction(); err != nil {
			b.Error(err)
			return
		}
	}
	recs := make([]*kgo.Record, records)
	for i := range recs {
		recs[i] = &kgo.Record{Topic: topic, Partition: partition, Key: fmt.Appendf(nil, "user-%d", i), Value: make([]byte, 300)}
		if way == "header" {
			recs[i].Headers = []kgo.RecordHeader{epoch.Header()}
		}
	}
	if err := client.ProduceSync(ctx, recs...).FirstErr(); err != nil {
		b.Error(err)
	}
	if way == "transaction" {
		if err := client.EndTransaction(ctx, kgo.TryCommit); err != nil {
			b.Error(err)
		}
	}
}

func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
