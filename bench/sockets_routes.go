package bench

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

const benchNode = "bench"

// benchFrame is a notification frame of 256 bytes.
func benchFrame(serial, i int) []byte {
	head := fmt.Sprintf(`{"type":"notification","id":"b%d-%09d","lane":"normal","title":"Card payment","body":"`, serial, i)
	return fmt.Appendf(nil, `%s%0*d"}`, head, 256-4-len(head)-2, 0) // 4: the frame's header
}

func benchID(serial, i int) string { return fmt.Sprintf("b%d-%09d", serial, i) }

// routes writes to the node's topic what dispatch would.
type routes struct {
	client      *kgo.Client
	incarnation uint64
	users       []string
	slices      [][]string // of 16 users of a partition, as dispatch hands out who is connected
	serial      int
	failed      atomic.Pointer[error]
}

func newRoutes(ctx context.Context, cfg consumers.ClientConfig, users int, partitions int32) (*routes, error) {
	r := &routes{users: make([]string, users)}
	for i := range r.users {
		r.users[i] = userName(i)
	}
	r.slices = slicesOf(r.users, partitions)
	var err error
	if r.incarnation, err = incarnationOf(ctx, cfg); err != nil {
		return nil, err
	}
	r.client, err = kgo.NewClient(append(cfg.Options(), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(time.Millisecond),
		kgo.MaxBufferedRecords(200_000), kgo.ProducerBatchCompression(kgo.NoCompression()))...)
	return r, err
}

// incarnationOf reads the node's heartbeat.
func incarnationOf(ctx context.Context, cfg consumers.ClientConfig) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	reader, err := consumers.NewReader(cfg)
	if err != nil {
		return 0, err
	}
	defer reader.Close()
	var latest atomic.Uint64
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	caughtUp, err := reader.Follow(ctx, consumers.TopicNodes, 0, consumers.FromStart, func(recs []*kgo.Record) {
		for _, rec := range recs {
			var n whisperv1.Node
			if string(rec.Key) == benchNode && proto.Unmarshal(rec.Value, &n) == nil {
				latest.Store(n.GetIncarnation())
			}
		}
	})
	if err != nil {
		return 0, err
	}
	running.Go(func() { _ = reader.Run(ctx) })
	select {
	case <-caughtUp:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	return latest.Load(), nil
}

func (r *routes) close() { r.client.Close() }

func (r *routes) err() error {
	if err := r.failed.Load(); err != nil {
		return *err
	}
	return nil
}

func (r *routes) produce(key string, route *whisperv1.Route) {
	value, err := proto.Marshal(route)
	if err != nil {
		r.failed.Store(&err)
		return
	}
	rec := &kgo.Record{Topic: consumers.TopicNode(benchNode), Partition: int32(domain.Normal), Key: []byte(key), Value: value}
	r.client.Produce(context.Background(), rec, func(_ *kgo.Record, err error) {
		if err != nil {
			r.failed.Store(&err)
		}
	})
}

// unicast is one record for one user.
func (r *routes) unicast(i int, now time.Time) {
	user, id := r.users[i%len(r.users)], benchID(r.serial, i)
	delivery := domain.NewDeliveryID(now, domain.HashDelivery(id, user))
	r.produce(user, &whisperv1.Route{
		DeliveryId: delivery[:], NotificationId: id, Lane: whisperv1.Lane_LANE_NORMAL, Attempt: 1, Incarnation: r.incarnation,
		ExpiresAtMs: now.Add(time.Hour).UnixMilli(), Frame: benchFrame(r.serial, i),
	})
}

// sliceUsers is how many users share a record of a broadcast.
const sliceUsers = 1000

// broadcast is one notification for everybody, in records for a slice of the users each.
func (r *routes) broadcast(i int, now time.Time) {
	for users := range slices.Chunk(r.users, sliceUsers) {
		r.slice(i, users, now)
	}
}

func (r *routes) slice(i int, users []string, now time.Time) {
	at := domain.NewDeliveryID(now, domain.DeliveryHash{})
	r.produce(users[0], &whisperv1.Route{
		DeliveryId: at[:], NotificationId: benchID(r.serial, i), Lane: whisperv1.Lane_LANE_NORMAL, Attempt: 1, Incarnation: r.incarnation,
		ExpiresAtMs: now.Add(time.Hour).UnixMilli(), Frame: benchFrame(r.serial, i), Users: users,
	})
}

// connectedSlice is how many users dispatch takes at a time of those who are connected when a broadcast begins.
const connectedSlice = 16

// slicesOf are users in the slices in which dispatch hands them out: each of one partition, the partitions in turn.
func slicesOf(users []string, partitions int32) (all [][]string) {
	byPartition := make([][]string, partitions)
	for _, user := range users {
		p := consumers.PartitionOf(user, partitions)
		byPartition[p] = append(byPartition[p], user)
	}
	for left := true; left; {
		left = false
		for p, users := range byPartition {
			n := min(connectedSlice, len(users))
			if n > 0 {
				all = append(all, users[:n])
			}
			byPartition[p] = users[n:]
			left = left || len(users) > n
		}
	}
	return all
}
