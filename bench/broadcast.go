package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain/whisperv1"
	"github.com/klivvr/whisper/embedded"
	"github.com/klivvr/whisper/migrations"
)

// BroadcastConfig says how large a broadcast is measured.
type BroadcastConfig struct {
	// Kafka to measure on, which must be empty; none starts Apache Kafka from its jars.
	Kafka []string
	// Users with a profile, of whom the first Connected hold a socket.
	Users, Connected int
	Partitions       int32
	// Segment is CEL; empty: everyone.
	Segment string
	// Alerts a second for Quiet before it, and while it runs, until its facts are in Postgres.
	Alerts int
	Quiet  time.Duration
	// Out takes progress.
	Out io.Writer
}

// Validate names every problem of the settings.
func (c BroadcastConfig) Validate() error {
	var errs []error
	if c.Users < 1 || c.Connected < 1 || c.Connected > c.Users {
		errs = append(errs, fmt.Errorf("users, connected: %d of %d are no numbers of users", c.Connected, c.Users))
	}
	if c.Partitions < 1 {
		errs = append(errs, fmt.Errorf("partitions: %d is not a number of partitions", c.Partitions))
	}
	if c.Alerts < 1 || c.Quiet < time.Second {
		errs = append(errs, errors.New("alerts, quiet: at least one a second, for at least a second"))
	}
	return errors.Join(errs...)
}

// BroadcastReport is what was measured. Times are seconds from handing the request to Kafka.
type BroadcastReport struct {
	Users     int    `json:"users"`
	Connected int    `json:"connected"`
	Kafka     string `json:"kafka"`
	// ConnectedHaveIt is when the last connected user had it, FactsInPostgres when the row of the last user was there.
	ConnectedHaveIt float64 `json:"connected_have_it_seconds"`
	FactsInPostgres float64 `json:"facts_in_postgres_seconds"`
	// Alerts' latency before and while.
	AlertsQuiet  Quantiles `json:"alerts_quiet"`
	AlertsDuring Quantiles `json:"alerts_during"`
	RatioP99     float64   `json:"alerts_ratio_p99"`
	// CPU seconds by process, from the request until everything was in Postgres.
	CPU map[string]float64 `json:"cpu_seconds"`
}

// RunBroadcast measures one broadcast, one process a role, and what it does to alerts.
func RunBroadcast(ctx context.Context, cfg BroadcastConfig) (*BroadcastReport, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	pg, err := embedded.StartPostgres(ctx, embedded.PostgresConfig{})
	if err != nil {
		return nil, err
	}
	defer func() { _ = pg.Stop(context.WithoutCancel(ctx)) }()
	if err := migrations.Up(ctx, pg.URL(), nil); err != nil {
		return nil, err
	}
	s := &spine{cfg: SpineConfig{Kafka: cfg.Kafka, Users: cfg.Connected, Partitions: cfg.Partitions, Out: cfg.Out}}
	defer s.close()
	s.before = func(ctx context.Context) error { return writeProfiles(ctx, s.client, cfg) }
	if err := s.start(ctx); err != nil {
		return nil, err
	}
	project, err := startRole(ctx, append(s.env, "WHISPER_POSTGRES="+pg.URL()), "project", "project")
	if err != nil {
		return nil, err
	}
	s.roles = append(s.roles, project)
	return s.broadcast(ctx, cfg, pg.URL())
}

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

func (s *spine) broadcast(ctx context.Context, cfg BroadcastConfig, url string) (*BroadcastReport, error) {
	report := &BroadcastReport{Users: cfg.Users, Connected: cfg.Connected, Kafka: "given", CPU: map[string]float64{}}
	if s.broker != nil {
		report.Kafka = s.broker.Addr()
	}
	if err := s.warmUp(ctx, cfg, url); err != nil {
		return nil, err
	}
	s.say("alerts while it is quiet")
	quiet, err := s.measure(ctx, cfg.Alerts, cfg.Quiet, nil)
	if err != nil {
		return nil, err
	}
	report.AlertsQuiet = quiet.quantiles(0)
	before, err := s.cpu()
	if err != nil {
		return nil, err
	}
	s.say("the broadcast")
	const id = "bench-broadcast"
	begin, err := s.send(ctx, cfg, id)
	if err != nil {
		return nil, err
	}
	during, over := make(chan result, 1), make(chan struct{})
	go func() {
		lat, err := s.measureUntil(ctx, cfg.Alerts, over)
		during <- result{lat, err}
	}()
	if report.ConnectedHaveIt, err = s.awaitConnected(ctx, cfg, begin); err != nil {
		return nil, err
	}
	s.say("  the connected have it after %.1f s", report.ConnectedHaveIt)
	if report.FactsInPostgres, err = awaitRows(ctx, url, id, cfg.Users, begin); err != nil {
		return nil, err
	}
	s.say("  everything is in Postgres after %.1f s", report.FactsInPostgres)
	close(over)
	r := <-during
	if r.err != nil {
		return nil, r.err
	}
	report.AlertsDuring = r.lat.quantiles(0)
	report.RatioP99 = report.AlertsDuring.P99 / report.AlertsQuiet.P99
	after, err := s.cpu()
	for name, used := range after {
		report.CPU[name] = (used - before[name]).Seconds()
	}
	return report, err
}

// warmUp does all of what is measured once before. A young broker's JVM runs what it has not met often slowly, or
// compiles it beside: that went on for most of the quiet time, and once more in the broadcast's first second.
func (s *spine) warmUp(ctx context.Context, cfg BroadcastConfig, url string) error {
	s.say("warming up, with a broadcast like the one that is measured")
	if _, err := s.measure(ctx, 1_000, 5*time.Second, nil); err != nil {
		return err
	}
	const id = "bench-warm-up"
	begin, err := s.send(ctx, cfg, id)
	if err != nil {
		return err
	}
	if _, err := s.awaitConnected(ctx, cfg, begin); err != nil {
		return err
	}
	_, err = awaitRows(ctx, url, id, cfg.Users, begin)
	return err
}

// send asks for a broadcast, and says when.
func (s *spine) send(ctx context.Context, cfg BroadcastConfig, id string) (time.Time, error) {
	to := map[string]any{"all": true}
	if cfg.Segment != "" {
		to = map[string]any{"segment": cfg.Segment}
	}
	value, err := json.Marshal(map[string]any{
		"id": id, "to": to, "channels": []string{"socket"}, "content": map[string]any{"title": "News", "body": "We open in Cairo."},
	})
	if err != nil {
		return time.Time{}, err
	}
	s.users.broadcast.Store(&broadcastCount{id: id})
	begin := time.Now()
	if err := s.load.ProduceSync(ctx, &kgo.Record{Topic: "whisper.requests.low", Value: value}).FirstErr(); err != nil {
		return time.Time{}, fmt.Errorf("send the broadcast: %w", err)
	}
	return begin, nil
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

func (s *spine) awaitConnected(ctx context.Context, cfg BroadcastConfig, begin time.Time) (float64, error) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if got := s.users.broadcast.Load().have.Load(); got >= int64(cfg.Connected) {
			return time.Since(begin).Seconds(), nil
		} else if time.Since(begin) > broadcastWait {
			return 0, fmt.Errorf("%d of %d connected users have the broadcast after %s", got, cfg.Connected, broadcastWait)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// awaitRows waits for one row of each user.
func awaitRows(ctx context.Context, url, id string, users int, begin time.Time) (float64, error) {
	conn, err := pgx.Connect(ctx, url)
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
			FROM whisper.notification_shards WHERE notification_id = $1`, id).Scan(&rows)
		if err == nil {
			err = conn.QueryRow(ctx,
				"SELECT coalesce(max(total), 0) FROM whisper.broadcasts WHERE notification_id = $1 AND walked_at IS NOT NULL", id).Scan(&total)
		}
		switch {
		case err != nil:
			return 0, fmt.Errorf("count the rows: %w", err)
		case total > 0 && rows >= total:
			return time.Since(begin).Seconds(), nil
		case time.Since(begin) > broadcastWait:
			return 0, fmt.Errorf("%d rows of %d are in Postgres after %s", rows, users, broadcastWait)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// CPUOf is the report's processes, the busiest first.
func (r *BroadcastReport) CPUOf() string {
	names := make([]string, 0, len(r.CPU))
	for name := range r.CPU {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return int(1000 * (r.CPU[b] - r.CPU[a])) })
	parts := make([]string, 0, len(names))
	for _, name := range names {
		parts = append(parts, fmt.Sprintf("%s %.1f", name, r.CPU[name]))
	}
	return strings.Join(parts, ", ")
}
