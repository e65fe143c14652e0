package integration

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// BenchmarkRebalance is how long a group takes until a second process has its half of 12 partitions, and until the first has
// all again when the second has left: as the members divide them (`members`, what Whisper uses), and as the coordinator does
// (`coordinator`, KIP-848). Both hear from the coordinator once a second.
func BenchmarkRebalance(b *testing.B) {
	for _, way := range []string{"members", "coordinator"} {
		b.Run(way, func(b *testing.B) {
			var joined, left time.Duration
			for b.Loop() {
				j, l := rebalance(b, way)
				joined, left = joined+j, left+l
			}
			b.ReportMetric(joined.Seconds()*1e3/float64(b.N), "join-ms")
			b.ReportMetric(left.Seconds()*1e3/float64(b.N), "leave-ms")
		})
	}
}

func rebalance(b *testing.B, way string) (joined, left time.Duration) {
	const owned = 12
	name := fmt.Sprintf("rebalance-%d", time.Now().UnixNano())
	if _, err := admin().CreateTopic(b.Context(), owned, 1, nil, name); err != nil {
		b.Fatal(err)
	}
	defer func() { _, _ = admin().DeleteTopics(context.Background(), name) }()
	opts := []kgo.Opt{
		kgo.SeedBrokers(sys.cluster.Kafka...), kgo.ConsumerGroup(name), kgo.ConsumeTopics(name), kgo.FetchMaxWait(100 * time.Millisecond),
		kgo.DisableAutoCommit(), kgo.HeartbeatInterval(time.Second), kgo.SessionTimeout(6 * time.Second),
	}
	if way == "coordinator" {
		heartbeats(b, name)
		opts = append(opts, kgo.Balancers(kgo.StickyBalancer()), kgo.ServerSideBalancer())
	} else {
		opts = append(opts, kgo.Balancers(kgo.CooperativeStickyBalancer()))
	}
	var mu sync.Mutex
	var owns [2]int
	changed := make(chan struct{}, 1)
	count := func(of, by int) func(context.Context, *kgo.Client, map[string][]int32) {
		return func(_ context.Context, _ *kgo.Client, parts map[string][]int32) {
			mu.Lock()
			defer mu.Unlock()
			owns[of] += by * len(parts[name])
			select {
			case changed <- struct{}{}:
			default:
			}
		}
	}
	start := func(of int) *kgo.Client {
		cl, err := kgo.NewClient(append(opts[:len(opts):len(opts)],
			kgo.OnPartitionsAssigned(count(of, 1)), kgo.OnPartitionsRevoked(count(of, -1)), kgo.OnPartitionsLost(count(of, -1)))...)
		if err != nil {
			b.Fatal(err)
		}
		go func() {
			for !cl.PollFetches(context.Background()).IsClientClosed() {
				continue
			}
		}()
		return cl
	}
	until := func(began time.Time, first, second int) time.Duration {
		for deadline := time.After(patience); ; {
			mu.Lock()
			now := owns
			mu.Unlock()
			if now == [2]int{first, second} {
				return time.Since(began)
			}
			select {
			case <-changed:
			case <-deadline:
				b.Fatalf("the two own %v of %d", now, owned)
			}
		}
	}
	first := start(0)
	defer first.Close()
	until(time.Now(), owned, 0)
	began := time.Now()
	second := start(1)
	joined = until(began, owned/2, owned/2)
	began = time.Now()
	second.Close()
	return joined, until(began, owned, 0)
}

// heartbeats has the coordinator ask the members of a group for one a second; else it is one in five.
func heartbeats(b *testing.B, group string) {
	b.Helper()
	every := "1000"
	config := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
	config.Name, config.Value = "consumer.heartbeat.interval.ms", &every
	resource := kmsg.NewIncrementalAlterConfigsRequestResource()
	resource.ResourceType, resource.ResourceName = kmsg.ConfigResourceTypeGroupConfig, group
	resource.Configs = append(resource.Configs, config)
	req := kmsg.NewPtrIncrementalAlterConfigsRequest()
	req.Resources = append(req.Resources, resource)
	resp, err := req.RequestWith(b.Context(), sys.kafka)
	if err != nil {
		b.Fatal(err)
	}
	for _, r := range resp.Resources {
		if err := kerr.ErrorForCode(r.ErrorCode); err != nil {
			b.Fatal(err)
		}
	}
}
