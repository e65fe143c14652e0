package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/request"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// writeProfiles puts them where dispatch keeps them, before it starts: that many patches would be another benchmark.
func writeProfiles(ctx context.Context, client consumers.ClientConfig, cfg BroadcastConfig) error {
	cl, err := kgo.NewClient(append(client.Options(),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(20*time.Millisecond))...)
	if err != nil {
		return fmt.Errorf("kafka client: %w", err)
	}
	defer cl.Close()
	var failed error
	for i := range cfg.Users {
		value, err := proto.Marshal(&whisperv1.Profile{
			Locale: []string{"ar-EG", "en"}[i%2], Timezone: "Africa/Cairo",
			Attributes: fmt.Appendf(nil, `{"country":"EG","name":"Mona %d","plan":"gold","since":"2021"}`, i),
		})
		if err != nil {
			return err
		}
		user := userName(i)
		rec := &kgo.Record{Topic: consumers.TopicUsers, Partition: consumers.PartitionOf(user, cfg.Partitions), Key: []byte(user), Value: value}
		cl.Produce(ctx, rec, func(_ *kgo.Record, err error) {
			if err != nil {
				failed = err // from one goroutine, and read after the flush
			}
		})
	}
	return errors.Join(cl.Flush(ctx), failed)
}

// ask asks for a broadcast and counts who has it.
func (b *broadcasts) ask(ctx context.Context, id string) (*broadcastCount, error) {
	var records []*kgo.Record
	add := func(id string, to map[string]any) error {
		value, err := json.Marshal(map[string]any{
			"id": id, "to": to, "channels": []string{"socket"}, "content": map[string]any{"title": "News", "body": "We open in Cairo."},
		})
		records = append(records, &kgo.Record{Topic: consumers.TopicRequests(domain.Low), Value: value})
		return err
	}
	var err error
	switch {
	case b.cfg.Lists:
		users := make([]string, b.cfg.Users)
		for i := range users {
			users[i] = userName(i)
		}
		for part := range slices.Chunk(users, request.MaxUsers) {
			err = errors.Join(err, add(fmt.Sprintf("%s/%d", id, len(records)), map[string]any{"users": part}))
		}
	case b.cfg.Segment != "":
		err = add(id, map[string]any{"segment": b.cfg.Segment})
	default:
		err = add(id, map[string]any{"all": true})
	}
	if err != nil {
		return nil, err
	}
	count := &broadcastCount{id: id, want: int64(b.cfg.Connected), all: make(chan time.Time, 1), begun: time.Now()}
	b.users.broadcast.Store(count)
	if err := b.load.ProduceSync(ctx, records...).FirstErr(); err != nil {
		return nil, fmt.Errorf("send the broadcast: %w", err)
	}
	return count, nil
}

type result struct {
	lat *latencies
	err error
}

// untilStep is how often it is asked whether it is over.
const untilStep = 2 * time.Second

// measureUntil sends until over is closed.
func (s *spine) measureUntil(ctx context.Context, rate int, over <-chan struct{}) (*latencies, error) {
	all := newLatencies(0)
	if rate == 0 {
		select {
		case <-over:
		case <-ctx.Done():
		}
		return all, ctx.Err()
	}
	for {
		lat, err := s.measure(ctx, rate, untilStep, nil)
		if err != nil {
			return nil, err
		}
		all.join(lat)
		select {
		case <-over:
			return all, nil
		default:
		}
	}
}

// broadcastWait is far longer than any figure worth reporting.
const broadcastWait = 10 * time.Minute

// awaitConnected waits until each connected user has it, and says after how many seconds.
func (b *broadcasts) awaitConnected(ctx context.Context, count *broadcastCount) (float64, error) {
	select {
	case at := <-count.all:
		return at.Sub(count.begun).Seconds(), nil
	case <-time.After(broadcastWait):
		return 0, fmt.Errorf("%d of %d connected users have the broadcast after %s", count.have.Load(), count.want, broadcastWait)
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// awaitRows waits for one row of each user, and says after how many seconds.
func (b *broadcasts) awaitRows(ctx context.Context, id string, begin time.Time) (float64, error) {
	conn, err := pgx.Connect(ctx, b.url)
	if err != nil {
		return 0, fmt.Errorf("postgres: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	tick := time.NewTicker(time.Second) // each look costs Postgres 10 ms
	defer tick.Stop()
	for {
		var rows, total int64
		err := conn.QueryRow(ctx, `
			SELECT coalesce(sum(scheduled + deferred + unknown + cancelled + suppressed + expired + failed + sent + delivered + read), 0)::bigint
			FROM whisper.notification_shards WHERE notification_id = $1 OR notification_id LIKE $1 || '/%'`, id).Scan(&rows)
		if b.cfg.Lists {
			total = int64(b.cfg.Users)
		} else if err == nil {
			err = conn.QueryRow(ctx,
				"SELECT coalesce(max(total), 0) FROM whisper.broadcasts WHERE notification_id = $1 AND walked_at IS NOT NULL", id).Scan(&total)
		}
		switch {
		case err != nil:
			return 0, fmt.Errorf("count the rows: %w", err)
		case total > 0 && rows >= total:
			return time.Since(begin).Seconds(), nil
		case time.Since(begin) > broadcastWait:
			return 0, fmt.Errorf("%d rows of %d are in Postgres after %s", rows, b.cfg.Users, broadcastWait)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}
