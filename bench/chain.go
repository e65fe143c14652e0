package bench

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/klivvr/whisper/consumers"
)

// The chain is the yardstick of the spine: as many produce and consume hops with the roles'
// client settings, never lingering, and no work in them. A request takes three: requests, deliveries, the node's topic.
const (
	hops       = 3
	chainBytes = 300
)

func chainTopic(hop int) string { return fmt.Sprintf("bench.chain.%d", hop) }

// chainSpecs are the chain's topics.
func chainSpecs(t consumers.Topology) []consumers.TopicSpec {
	var specs []consumers.TopicSpec
	for hop := range hops {
		s := t.NodeSpec("x")
		s.Name, s.Partitions = chainTopic(hop), t.Partitions
		specs = append(specs, s)
	}
	return specs
}

// runChain sends n records through the hops at a rate and measures each from the first produce to the
// last consume.
func runChain(ctx context.Context, client consumers.ClientConfig, partitions int32, n, perSecond int) (Quantiles, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	lat := newLatencies(n)
	g, gctx := errgroup.WithContext(ctx)
	first, err := chainProducer(client)
	if err != nil {
		return Quantiles{}, err
	}
	defer first.Close()
	for hop := range hops {
		var next *kgo.Client
		if hop+1 < hops {
			if next, err = chainProducer(client); err != nil {
				return Quantiles{}, err
			}
			defer next.Close()
		}
		reader, err := consumers.NewReader(client)
		if err != nil {
			return Quantiles{}, err
		}
		defer reader.Close()
		for p := range partitions {
			_, err := reader.Follow(gctx, chainTopic(hop), p, consumers.FromEnd, func(recs []*kgo.Record) {
				now := time.Now()
				for _, rec := range recs {
					if next == nil {
						lat.arrive(int(binary.BigEndian.Uint64(rec.Value)), now)
						continue
					}
					next.Produce(gctx, &kgo.Record{Topic: chainTopic(hop + 1), Partition: rec.Partition, Value: rec.Value}, nil)
				}
			})
			if err != nil {
				return Quantiles{}, err
			}
		}
		g.Go(func() error { return reader.Run(gctx) })
	}
	err = pace(gctx, n, perSecond, func(i int, due time.Time) {
		value := make([]byte, chainBytes)
		binary.BigEndian.PutUint64(value, uint64(i))
		lat.send(i, due)
		first.Produce(gctx, &kgo.Record{Topic: chainTopic(0), Partition: int32(i) % partitions, Value: value}, nil)
	})
	if err != nil {
		return Quantiles{}, err
	}
	waitFor(ctx, lat, n)
	cancel()
	return lat.quantiles(n / 5), g.Wait()
}

// chainProducer sends every record at once: the fastest that Kafka is when nothing else wants the machine.
func chainProducer(client consumers.ClientConfig) (*kgo.Client, error) {
	cl, err := kgo.NewClient(append(client.Options(), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0),
		kgo.RequiredAcks(kgo.AllISRAcks()), kgo.ProducerBatchCompression(kgo.NoCompression()))...)
	if err != nil {
		return nil, fmt.Errorf("producer of the chain: %w", err)
	}
	return cl, nil
}

// waitFor waits until n have arrived, or until nothing arrives any more.
func waitFor(ctx context.Context, lat *latencies, n int) {
	for lat.total() < n {
		select {
		case <-lat.changed:
		case <-time.After(15 * time.Second):
			return
		case <-ctx.Done():
			return
		}
	}
}
