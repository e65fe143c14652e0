package bench

import (
	"context"
	"fmt"
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
	serial      int
	failed      atomic.Pointer[error]
}

func newRoutes(ctx context.Context, cfg consumers.ClientConfig, users int) (*routes, error) {
	r := &routes{users: make([]string, users)}
	for i := range r.users {
		r.users[i] = userName(i)
	}
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
	id := benchID(r.serial, i)
	frame := benchFrame(r.serial, i)
	at := domain.NewDeliveryID(now, domain.DeliveryHash{})
	for first := 0; first < len(r.users); first += sliceUsers {
		r.produce(r.users[first], &whisperv1.Route{
			DeliveryId: at[:], NotificationId: id, Lane: whisperv1.Lane_LANE_NORMAL, Attempt: 1, Incarnation: r.incarnation,
			ExpiresAtMs: now.Add(time.Hour).UnixMilli(), Frame: frame, Users: r.users[first:min(first+sliceUsers, len(r.users))],
		})
	}
}
