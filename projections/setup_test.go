package projections

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
	"github.com/klivvr/whisper/embedded"
	"github.com/klivvr/whisper/migrations"
)

var (
	server    *embedded.Postgres
	databases atomic.Int64
)

func TestMain(m *testing.M) {
	embedded.RunIfPostgresHost()
	var err error
	if server, err = embedded.StartPostgres(context.Background(), embedded.PostgresConfig{}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	if err := server.Stop(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

// database makes a migrated database; it goes with the server.
func database(t testing.TB) string {
	t.Helper()
	name := fmt.Sprintf("projections_%d", databases.Add(1))
	execSQL(t, server.URL(), "CREATE DATABASE "+name)
	u, err := url.Parse(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/" + name
	if err := migrations.Up(t.Context(), u.String(), nil); err != nil {
		t.Fatal(err)
	}
	return u.String()
}

func execSQL(t testing.TB, url, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// texts are the rows of a query of one text column.
func queryTexts(t testing.TB, url, sql string) []string {
	t.Helper()
	got, err := tryTexts(t, url, sql)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return got
}

func tryTexts(t testing.TB, url, sql string) ([]string, error) {
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(context.Background()) }()
	rows, err := conn.Query(t.Context(), sql)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(3 * time.Minute); !ok(); {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("after 3 minutes still not so: %s", what)
		}
	}
}

// now is the tests' clock.
var now = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

const parts = 4

// A log is a broker with Whisper's topics that the projector reads.
type eventLog struct {
	t       testing.TB
	brokers []string
	client  *kgo.Client
	admin   *kadm.Client
}

func startLog(t testing.TB) *eventLog {
	t.Helper()
	cluster, err := kfake.NewCluster(
		kfake.NumBrokers(1), kfake.SeedTopics(parts, topics()...), kfake.SeedTopics(1, consumers.TopicDeadLetters),
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	client, err := kgo.NewClient(
		kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0),
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return &eventLog{t: t, brokers: cluster.ListenAddrs(), client: client, admin: kadm.NewClient(client)}
}

func (l *eventLog) kafka() consumers.ClientConfig { return consumers.ClientConfig{Brokers: l.brokers} }

func (l *eventLog) put(recs ...*kgo.Record) {
	l.t.Helper()
	if err := l.client.ProduceSync(l.t.Context(), recs...).FirstErr(); err != nil {
		l.t.Fatal(err)
	}
}

// record is an event as its writer puts it on its topic.
func record(ev *whisperv1.Event) *kgo.Record {
	value, err := proto.Marshal(ev)
	if err != nil {
		panic(err)
	}
	topic := consumers.TopicEvents
	if ev.GetDeliveryAccepted() != nil || ev.GetCancelRequested() != nil {
		topic = consumers.TopicDeliveries(domain.LaneOf(ev.GetLane()))
	}
	return &kgo.Record{
		Topic: topic, Partition: consumers.PartitionOf(ev.GetUserId(), parts), Key: []byte(ev.GetUserId()), Value: value,
		Headers: []kgo.RecordHeader{
			{Key: "event", Value: []byte(domain.KindOf(ev))},
			{Key: "traceparent", Value: []byte("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")},
		},
	}
}

// story is one delivery, whose facts it makes.
type story struct {
	notification, user string
	requested          time.Time
	lane               whisperv1.Lane
	request            *whisperv1.Position
	recipients         int32
}

func tell(notification, user string, requested time.Time, offset int64) story {
	return story{
		notification: notification, user: user, requested: requested, lane: whisperv1.Lane_LANE_NORMAL, recipients: 1,
		request: &whisperv1.Position{Topic: "whisper.requests.normal", Partition: 0, Offset: offset},
	}
}

func (s story) id() domain.DeliveryID {
	return domain.NewDeliveryID(s.requested, domain.HashDelivery(s.notification, s.user))
}

// at is an event so long after the request.
func (s story) at(after time.Duration) *whisperv1.Event {
	id := s.id()
	return &whisperv1.Event{
		DeliveryId: id[:], NotificationId: s.notification, UserId: s.user, Lane: s.lane,
		AtUs: s.requested.Add(after).UnixMicro(), Cause: s.request,
	}
}

func (s story) accepted() *whisperv1.Event {
	ev := s.at(2 * time.Millisecond)
	ev.Kind = &whisperv1.Event_DeliveryAccepted{DeliveryAccepted: &whisperv1.DeliveryAccepted{
		Category: "transactions.card", Content: &whisperv1.Content{Title: "secret title", Body: "secret body"},
		Variables: []byte(`{"amount":"secret"}`), Channels: []string{"socket", "apns"},
		AcceptedAtMs: s.requested.UnixMilli(), ExpiresAtMs: s.requested.Add(time.Hour).UnixMilli(),
		Request: s.request, Recipients: s.recipients,
	}}
	return ev
}

func (s story) sent(after time.Duration, attempt int32, channel string) *whisperv1.Event {
	ev := s.at(after)
	sent := &whisperv1.DeliverySent{Attempt: attempt, Channel: channel, LatencyUs: 1500}
	if channel == domain.ChannelSocket {
		sent.Node = "gateway-1"
	} else {
		sent.Provider, sent.Endpoint, sent.ProviderId = "apple", "iphone", "E1B2"
	}
	ev.Kind = &whisperv1.Event_DeliverySent{DeliverySent: sent}
	return ev
}

func (s story) delivered(after time.Duration, attempt int32) *whisperv1.Event {
	ev := s.at(after)
	ev.Kind = &whisperv1.Event_DeliveryDelivered{DeliveryDelivered: &whisperv1.DeliveryDelivered{
		Attempt: attempt, Channel: domain.ChannelSocket, Node: "gateway-1",
	}}
	return ev
}

func (s story) read(after time.Duration) *whisperv1.Event {
	ev := s.at(after)
	ev.Kind = &whisperv1.Event_DeliveryRead{DeliveryRead: &whisperv1.DeliveryRead{Node: "gateway-1", Attempt: 1}}
	return ev
}

func (s story) deferred(after time.Duration, reason string) *whisperv1.Event {
	ev := s.at(after)
	ev.Kind = &whisperv1.Event_DeliveryDeferred{DeliveryDeferred: &whisperv1.DeliveryDeferred{Reason: reason}}
	return ev
}

func (s story) expired(after time.Duration, reason string) *whisperv1.Event {
	ev := s.at(after)
	ev.Kind = &whisperv1.Event_DeliveryExpired{DeliveryExpired: &whisperv1.DeliveryExpired{Reason: reason}}
	return ev
}

func (s story) attemptFailed(after time.Duration, attempt int32, class whisperv1.FailureClass, reason string) *whisperv1.Event {
	ev := s.at(after)
	ev.Kind = &whisperv1.Event_AttemptFailed{AttemptFailed: &whisperv1.AttemptFailed{
		Attempt: attempt, Channel: "apns", Provider: "apple", Endpoint: "iphone", Class: class, Reason: reason, Status: 503, LatencyUs: 900,
	}}
	return ev
}

func (s story) failed(after time.Duration, reason string) *whisperv1.Event {
	ev := s.at(after)
	ev.Kind = &whisperv1.Event_DeliveryFailed{DeliveryFailed: &whisperv1.DeliveryFailed{Reason: reason}}
	return ev
}

// duplicate is what dispatch says of this story's request, whose delivery id the first one has.
func (s story) duplicate(first story, after time.Duration) *whisperv1.Event {
	ev := s.at(after)
	id := first.id()
	ev.DeliveryId = id[:]
	ev.Kind = &whisperv1.Event_DuplicateDropped{DuplicateDropped: &whisperv1.DuplicateDropped{
		Request: s.request, Recipients: s.recipients, RequestedAtMs: s.requested.UnixMilli(),
	}}
	return ev
}

// claimed is a read that a client told of over another connection.
func claimed(ev *whisperv1.Event) *whisperv1.Event {
	ev.GetDeliveryRead().Attempt = 0
	return ev
}

// timelessly is a read that a client told of without a receipt.
func timelessly(ev *whisperv1.Event) *whisperv1.Event {
	clear(ev.DeliveryId[:6])
	return claimed(ev)
}

// A role is a projector that runs.
type role struct {
	*Projector
	stop func()
	err  chan error
}

func config(l *eventLog, db string) Config {
	return Config{
		Kafka: l.kafka(), PostgresURL: db, Now: func() time.Time { return now }, BatchWait: 20 * time.Millisecond,
		Logger: slog.New(slog.DiscardHandler),
	}
}

func start(t testing.TB, cfg Config) *role {
	t.Helper()
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &role{Projector: p, err: make(chan error, 1)}
	go func() { r.err <- p.Run(ctx) }()
	stopped := false
	r.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-r.err; err != nil {
			t.Errorf("the projector ended with: %v", err)
		}
	}
	t.Cleanup(r.stop)
	return r
}

// caughtUp waits until the tables have all of the log.
func caughtUp(t testing.TB, l *eventLog, db string) {
	t.Helper()
	eventually(t, "the tables have all of the log", func() bool {
		ends, err := l.admin.ListEndOffsets(t.Context(), topics()...)
		if err != nil {
			t.Fatal(err)
		}
		rows, err := tryTexts(t, db, "SELECT topic || '/' || partition || '/' || next_offset FROM whisper.checkpoints")
		if err != nil {
			return false
		}
		have := map[string]bool{}
		for _, r := range rows {
			have[r] = true
		}
		all := true
		ends.Each(func(o kadm.ListedOffset) {
			all = all && have[fmt.Sprintf("%s/%d/%d", o.Topic, o.Partition, o.Offset)]
		})
		return all
	})
}

// dump is every row that the projector writes, without when it wrote it.
func dump(t testing.TB, db, schema string, tables ...string) []string {
	t.Helper()
	if len(tables) == 0 {
		tables = []string{
			"deliveries", "attempts", "timeline", "notification_requests", "notification_shards", "duplicates", "early_facts",
			"delivery_stat_shards", "broadcast_shards", "broadcast_skips",
		}
	}
	var all []string // one query: connecting costs more than reading
	for _, table := range tables {
		from := schema + "." + table
		switch table { // under which partition a transaction counted is nobody's business, and a count that came and went leaves zeros
		case "notification_shards":
			sums := make([]string, 0, 12)
			for _, s := range domain.Statuses {
				sums = append(sums, fmt.Sprintf("sum(%s) AS %[1]s", s))
			}
			sums = append(sums, "sum(duplicates) AS duplicates")
			from = fmt.Sprintf(`(SELECT notification_id, day, %s FROM %s GROUP BY 1, 2) t
				WHERE (to_jsonb(t) - 'notification_id' - 'day')::text ~ ': -?[1-9]'`, strings.Join(sums, ", "), from)
		case "delivery_stat_shards":
			from = fmt.Sprintf(`(SELECT day, minute, lane, category, channel, status, sum(count) AS count,
					%s.add_packed(%[1]s.concat_buckets(array_cat(buckets, %[1]s.pack_buckets(latencies))), NULL) AS buckets
				FROM %s GROUP BY 1, 2, 3, 4, 5, 6) t WHERE count <> 0`, migrations.Schema, from)
		case "broadcast_skips":
			from = fmt.Sprintf("(SELECT notification_id, day, reason, sum(count) AS count FROM %s GROUP BY 1, 2, 3) t WHERE count <> 0", from)
		default:
			from += " t"
		}
		all = append(all, fmt.Sprintf("SELECT '%s ' || to_jsonb(t)::text AS r FROM %s", table, from))
	}
	return queryTexts(t, db, strings.Join(all, " UNION ALL ")+" ORDER BY r")
}
