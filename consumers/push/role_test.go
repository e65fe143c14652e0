package push_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/consumers/push"
	"github.com/klivvr/whisper/consumers/push/apns"
	"github.com/klivvr/whisper/consumers/push/apns/simulator"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

const partitions = 2

// fake is a Provider whose answers a test gives. Its channel is apns, so that the real one fits in.
type fake struct {
	mu     sync.Mutex
	sent   map[string]int
	answer func(ctx context.Context, p *whisperv1.Push) push.Result
	ready  error
}

func (f *fake) Channel() string { return "apns" }
func (f *fake) Name() string    { return "fake" }
func (f *fake) Ready() error    { return f.ready }
func (f *fake) Close()          {}

func (f *fake) Send(ctx context.Context, p *whisperv1.Push) push.Result {
	f.mu.Lock()
	f.sent[p.GetNotificationId()]++
	f.mu.Unlock()
	if f.answer != nil {
		return f.answer(ctx, p)
	}
	return push.Result{ProviderID: "id-" + p.GetNotificationId(), Status: 200}
}

func (f *fake) times(id string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.sent[id]
}

type fixture struct {
	t         *testing.T
	client    consumers.ClientConfig
	cluster   *kfake.Cluster
	publisher *consumers.Publisher
	provider  *fake
	set       *metrics.Set
}

func setup(t *testing.T) *fixture {
	t.Helper()
	topics := []string{consumers.TopicEvents, consumers.TopicDeadLetters}
	for _, lane := range domain.Lanes {
		topics = append(topics, consumers.TopicPush("apns", lane))
	}
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(partitions, topics...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	f := &fixture{t: t, cluster: cluster, provider: &fake{sent: map[string]int{}}, set: metrics.NewSet()}
	f.client = consumers.ClientConfig{Brokers: cluster.ListenAddrs(), ClientID: t.Name()}
	if f.publisher, err = consumers.NewPublisher(f.client, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.publisher.Close)
	return f
}

func (f *fixture) config() push.Config {
	return push.Config{
		Client: f.client, Provider: f.provider, Facts: consumers.NewFacts(f.publisher, partitions),
		DeadLetters: consumers.NewDeadLetters(f.publisher, "push"), Metrics: f.set, CommitInterval: 20 * time.Millisecond,
	}
}

// start runs a role; stop ends it and checks that it ended well.
func (f *fixture) start(cfg push.Config) (role *push.Role, stop func()) {
	f.t.Helper()
	role, err := push.New(cfg)
	if err != nil {
		f.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- role.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				f.t.Errorf("run: %v", err)
			}
		})
	}
	f.t.Cleanup(stop)
	return role, stop
}

func attempt(i int) *whisperv1.Push {
	user, notification := fmt.Sprintf("user-%d", i), fmt.Sprintf("n-%d", i)
	id := domain.NewDeliveryID(time.Now(), domain.HashDelivery(notification, user))
	return &whisperv1.Push{
		DeliveryId: id[:], NotificationId: notification, UserId: user, Attempt: 1, Channel: "apns", Endpoint: "iphone",
		Token: fmt.Sprintf("%064x", i), App: "com.klivvr.app", Content: &whisperv1.Content{Title: "t", Body: "secret text"},
		ExpiresAtMs: time.Now().Add(time.Hour).UnixMilli(),
	}
}

func (f *fixture) record(lane domain.Lane, p *whisperv1.Push) *kgo.Record {
	f.t.Helper()
	value, err := proto.Marshal(p)
	if err != nil {
		f.t.Fatal(err)
	}
	return &kgo.Record{
		Topic: consumers.TopicPush("apns", lane), Partition: consumers.PartitionOf(p.UserId, partitions), Key: []byte(p.UserId), Value: value,
		Headers: []kgo.RecordHeader{{Key: "traceparent", Value: []byte("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")}, {Key: "other", Value: []byte("x")}},
	}
}

func (f *fixture) produce(recs ...*kgo.Record) {
	f.t.Helper()
	if err := f.publisher.PublishSync(f.t.Context(), recs...); err != nil {
		f.t.Fatal(err)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(3 * time.Minute)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("waited in vain: %s", what)
		case <-tick.C:
		}
	}
}

// log follows a topic.
type log struct {
	mu   sync.Mutex
	recs []*kgo.Record
}

func (f *fixture) follow(topic string) *log {
	f.t.Helper()
	cl, err := kgo.NewClient(append(f.client.Options(), kgo.ConsumeTopics(topic))...)
	if err != nil {
		f.t.Fatal(err)
	}
	l := &log{}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			fetches := cl.PollFetches(ctx)
			l.mu.Lock()
			l.recs = append(l.recs, fetches.Records()...)
			l.mu.Unlock()
		}
	}()
	f.t.Cleanup(func() { cancel(); <-done; cl.Close() })
	return l
}

func (l *log) all() []*kgo.Record {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]*kgo.Record(nil), l.recs...)
}

// facts are the events by notification id.
func (l *log) facts(t *testing.T) map[string][]*whisperv1.Event {
	t.Helper()
	out := map[string][]*whisperv1.Event{}
	for _, rec := range l.all() {
		ev := &whisperv1.Event{}
		if err := proto.Unmarshal(rec.Value, ev); err != nil {
			t.Fatal(err)
		}
		out[ev.GetNotificationId()] = append(out[ev.GetNotificationId()], ev)
	}
	return out
}

// committed is how many records of a lane are committed, over all partitions.
func (f *fixture) committed(lane domain.Lane) (n int64) {
	f.t.Helper()
	cl, err := kgo.NewClient(f.client.Options()...)
	if err != nil {
		f.t.Fatal(err)
	}
	defer cl.Close()
	offsets, err := kadm.NewClient(cl).FetchOffsets(context.Background(), push.Group("apns", lane))
	if err != nil {
		f.t.Fatal(err)
	}
	offsets.Each(func(o kadm.OffsetResponse) { n += max(o.At, 0) })
	return n
}

func TestOneFactAnAttempt(t *testing.T) {
	t.Parallel()
	f := setup(t)
	events := f.follow(consumers.TopicEvents)
	role, stop := f.start(f.config())
	var recs []*kgo.Record
	for i := range 300 {
		p := attempt(i)
		p.DueMs = int64(i)
		recs = append(recs, f.record(domain.Lanes[i%3], p))
	}
	f.produce(recs...)
	eventually(t, "all facts", func() bool { return len(events.all()) == 300 })
	eventually(t, "all commits", func() bool { return f.committed(domain.High)+f.committed(domain.Normal)+f.committed(domain.Low) == 300 })
	if err := role.Ready(); err != nil {
		t.Error(err)
	}
	f.provider.ready = errors.New("refused")
	if role.Ready() == nil {
		t.Error("ready with a provider that is not")
	}
	stop()
	facts := events.facts(t)
	for i := range 300 {
		id := fmt.Sprintf("n-%d", i)
		if len(facts[id]) != 1 {
			t.Fatalf("%s has %d facts", id, len(facts[id]))
		}
		ev := facts[id][0]
		sent := ev.GetDeliverySent()
		if sent.GetProvider() != "fake" || sent.GetChannel() != "apns" || sent.GetProviderId() != "id-"+id || sent.GetEndpoint() != "iphone" || sent.GetAttempt() != 1 || sent.GetDueMs() != int64(i) ||
			ev.GetLane() != domain.Lanes[i%3].Proto() || ev.GetCause().GetTopic() != consumers.TopicPush("apns", domain.Lanes[i%3]) || ev.GetAtUs() == 0 {
			t.Fatalf("got %v", ev)
		}
	}
	rec := events.all()[0]
	if len(rec.Headers) != 2 || consumers.KindOfRecord(rec) != "delivery_sent" || rec.Headers[1].Key != "traceparent" || !strings.HasPrefix(string(rec.Key), "user-") {
		t.Errorf("headers %v, key %s", rec.Headers, rec.Key)
	}
	if n := f.set.GetOrCreateCounter(`whisper_delivery_attempts_total{channel="apns",outcome="sent"}`).Get(); n != 300 {
		t.Errorf("counted %d", n)
	}
}

func TestFailuresAreFacts(t *testing.T) {
	t.Parallel()
	f := setup(t)
	since := time.UnixMilli(1_790_000_000_123)
	results := []push.Result{
		{Class: whisperv1.FailureClass_FAILURE_CLASS_RETRY, Reason: "TooManyRequests", Status: 429, RetryAfter: time.Minute},
		{Class: whisperv1.FailureClass_FAILURE_CLASS_PRUNE, Reason: "Unregistered", Status: 410, InvalidSince: since},
		{Class: whisperv1.FailureClass_FAILURE_CLASS_PRUNE, Reason: "BadDeviceToken", Status: 400},
		{Class: whisperv1.FailureClass_FAILURE_CLASS_UNKNOWN, Reason: "no_answer"},
		{Class: whisperv1.FailureClass_FAILURE_CLASS_DROP, Reason: "BadPriority", Status: 400, Bug: true},
	}
	f.provider.answer = func(_ context.Context, p *whisperv1.Push) push.Result {
		var i int
		_, _ = fmt.Sscanf(p.GetNotificationId(), "n-%d", &i) // attempt made it
		return results[i]
	}
	events, dead := f.follow(consumers.TopicEvents), f.follow(consumers.TopicDeadLetters)
	f.start(f.config())
	before := time.Now().UnixMilli()
	for i := range results {
		f.produce(f.record(domain.High, attempt(i)))
	}
	eventually(t, "facts and a dead letter", func() bool { return len(events.all()) == len(results) && len(dead.all()) == 1 })
	facts := events.facts(t)
	for i, r := range results {
		got := facts[fmt.Sprintf("n-%d", i)][0].GetAttemptFailed()
		if got.GetClass() != r.Class || got.GetReason() != r.Reason || int(got.GetStatus()) != r.Status || got.GetRetryAfterMs() != r.RetryAfter.Milliseconds() || got.GetProvider() != "fake" || got.GetEndpoint() != "iphone" {
			t.Errorf("got %v, want %+v", got, r)
		}
	}
	if got := facts["n-1"][0].GetAttemptFailed().GetInvalidSinceMs(); got != since.UnixMilli() {
		t.Errorf("invalid since %d", got)
	}
	if got := facts["n-2"][0].GetAttemptFailed().GetInvalidSinceMs(); got < before-1000 || got > time.Now().UnixMilli() {
		t.Errorf("invalid since %d, the record's time is about %d", got, before)
	}
	if letter := headers(dead.all()[0]); !strings.Contains(letter["error"], "BadPriority") || letter["role"] != "push" {
		t.Errorf("got %v", letter)
	}
}

func headers(rec *kgo.Record) map[string]string {
	m := map[string]string{}
	for _, h := range rec.Headers {
		m[h.Key] = string(h.Value)
	}
	return m
}

func TestAnExpiredAttemptIsNeverSent(t *testing.T) {
	t.Parallel()
	f := setup(t)
	now := time.Now()
	p := attempt(1)
	p.ExpiresAtMs = now.UnixMilli()
	cfg := f.config()
	cfg.Now = func() time.Time { return now }
	events := f.follow(consumers.TopicEvents)
	f.start(cfg)
	f.produce(f.record(domain.High, p))
	eventually(t, "the fact", func() bool { return len(events.all()) == 1 })
	got := events.facts(t)["n-1"][0].GetAttemptFailed()
	if got.GetClass() != whisperv1.FailureClass_FAILURE_CLASS_EXPIRED || f.provider.times("n-1") != 0 {
		t.Errorf("got %v, sent %d times", got, f.provider.times("n-1"))
	}
}

func TestBadRecordsGoToTheDeadLetters(t *testing.T) {
	t.Parallel()
	f := setup(t)
	noID, noUser, noAttempt := attempt(1), attempt(2), attempt(3)
	noID.DeliveryId, noUser.UserId, noAttempt.Attempt = []byte{1}, "", 0
	events, dead := f.follow(consumers.TopicEvents), f.follow(consumers.TopicDeadLetters)
	f.start(f.config())
	topic := consumers.TopicPush("apns", domain.Normal)
	f.produce(
		&kgo.Record{Topic: topic, Value: []byte("not protobuf")}, &kgo.Record{Topic: topic, Value: nil},
		f.record(domain.Normal, noID), f.record(domain.Normal, noUser), f.record(domain.Normal, noAttempt),
		f.record(domain.Normal, attempt(4)),
	)
	eventually(t, "the good one and the dead letters", func() bool { return len(events.all()) == 1 && len(dead.all()) == 5 })
	eventually(t, "the commits", func() bool { return f.committed(domain.Normal) == 6 })
	for _, rec := range dead.all() {
		if h := headers(rec); h["error"] == "" || h["role"] != "push" || h["topic"] != topic || h["offset"] == "" {
			t.Errorf("got %v", h)
		}
	}
}

// TestAStopLosesNothing ends a role whose attempts hang, as a crash would, and lets a second
// one finish.
func TestAStopLosesNothing(t *testing.T) {
	t.Parallel()
	f := setup(t)
	var once sync.Once
	half := make(chan struct{})
	var mu sync.Mutex
	seen := 0
	f.provider.answer = func(ctx context.Context, p *whisperv1.Push) push.Result {
		mu.Lock()
		seen++
		hang := seen > 250 && seen%3 == 0
		if seen == 300 {
			once.Do(func() { close(half) })
		}
		mu.Unlock()
		if hang {
			<-ctx.Done()
		}
		return push.Result{Status: 200}
	}
	events := f.follow(consumers.TopicEvents)
	cfg := f.config()
	cfg.HandoverTimeout = 50 * time.Millisecond
	_, stop := f.start(cfg)
	for i := range 1000 {
		f.produce(f.record(domain.High, attempt(i)))
	}
	<-half
	stop()
	if n := len(events.facts(t)); n == 1000 {
		t.Fatal("the first role finished everything: nothing was tested")
	}
	f.provider = &fake{sent: map[string]int{}}
	f.start(f.config())
	eventually(t, "every attempt's fact", func() bool { return len(events.facts(t)) == 1000 })
	eventually(t, "every commit", func() bool { return f.committed(domain.High) == 1000 })
}

func TestCleanStopFinishesWhatIsInFlight(t *testing.T) {
	t.Parallel()
	f := setup(t)
	begun, finish := make(chan struct{}, 1), make(chan struct{})
	f.provider.answer = func(context.Context, *whisperv1.Push) push.Result {
		begun <- struct{}{}
		<-finish
		return push.Result{Status: 200}
	}
	events := f.follow(consumers.TopicEvents)
	_, stop := f.start(f.config())
	f.produce(f.record(domain.High, attempt(1)))
	<-begun
	stopped := make(chan struct{})
	go func() { stop(); close(stopped) }()
	close(finish)
	<-stopped
	eventually(t, "its fact", func() bool { return len(events.all()) == 1 })
	if f.committed(domain.High) != 1 {
		t.Error("not committed")
	}
}

// TestCommitsOnlyUpToTheSlowestAttempt: the ones after it are sent, and nothing past it is committed.
func TestCommitsOnlyUpToTheSlowestAttempt(t *testing.T) {
	t.Parallel()
	f := setup(t)
	release := make(chan struct{})
	slow := "user-0"
	var others []*kgo.Record
	for i := 1; len(others) < 100; i++ {
		if p := attempt(i); consumers.PartitionOf(p.UserId, partitions) == consumers.PartitionOf(slow, partitions) {
			others = append(others, f.record(domain.High, p))
		}
	}
	f.provider.answer = func(_ context.Context, p *whisperv1.Push) push.Result {
		if p.GetUserId() == slow {
			<-release
		}
		return push.Result{Status: 200}
	}
	events := f.follow(consumers.TopicEvents)
	_, stop := f.start(f.config())
	f.produce(others[:50]...)
	f.produce(f.record(domain.High, attempt(0)))
	f.produce(others[50:]...)
	eventually(t, "all but the slow one", func() bool { return len(events.all()) == 100 })
	eventually(t, "the commit up to the slow one", func() bool { return f.committed(domain.High) == 50 })
	close(release)
	eventually(t, "the rest", func() bool { return len(events.all()) == 101 && f.committed(domain.High) == 101 })
	stop()
}

func TestStuckLowDoesNotDelayHigh(t *testing.T) {
	t.Parallel()
	f := setup(t)
	release := make(chan struct{})
	f.provider.answer = func(_ context.Context, p *whisperv1.Push) push.Result {
		if p.GetLane() == whisperv1.Lane_LANE_LOW {
			<-release
		}
		return push.Result{Status: 200}
	}
	cfg := f.config()
	cfg.MaxInFlight = 5
	events := f.follow(consumers.TopicEvents)
	_, stop := f.start(cfg)
	var low, high []*kgo.Record
	for i := range 50 {
		low, high = append(low, f.record(domain.Low, attempt(i))), append(high, f.record(domain.High, attempt(100+i)))
	}
	f.produce(low...)
	eventually(t, "low is stuck", func() bool {
		return f.set.GetOrCreateGauge(`whisper_push_in_flight{provider="fake",lane="low"}`, nil).Get() == 5
	})
	f.produce(high...)
	eventually(t, "high goes on", func() bool { return len(events.all()) == 50 })
	close(release)
	eventually(t, "low follows", func() bool { return len(events.all()) == 100 })
	stop()
}

func TestLogsNoSecrets(t *testing.T) {
	t.Parallel()
	f := setup(t)
	var mu sync.Mutex
	var lines bytes.Buffer
	cfg := f.config()
	cfg.Logger = slog.New(slog.NewTextHandler(writer(func(b []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return lines.Write(b)
	}), &slog.HandlerOptions{Level: slog.LevelDebug}))
	events := f.follow(consumers.TopicEvents)
	_, stop := f.start(cfg)
	p := attempt(7)
	f.produce(f.record(domain.High, p))
	eventually(t, "the fact", func() bool { return len(events.all()) == 1 })
	stop()
	got := lines.String()
	if !strings.Contains(got, "push attempt") || !strings.Contains(got, "n-7") || strings.Contains(got, p.Token) || strings.Contains(got, "secret text") {
		t.Errorf("got %s", got)
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(b []byte) (int, error) { return w(b) }

func TestValidate(t *testing.T) {
	t.Parallel()
	err := push.Config{MaxInFlight: -1, HandoverTimeout: time.Minute, Lanes: []domain.Lane{domain.High, domain.High, 7}}.Validate()
	for _, want := range []string{"provider", "facts", "dead letters", "push-max-in-flight", "push-handover-timeout", "high is", "Lane(7)", "broker"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
}

// TestThroughAPNs is the whole way: Kafka, the role, apns2, the simulator, Kafka.
func TestThroughAPNs(t *testing.T) {
	t.Parallel()
	f := setup(t)
	p8, public, err := simulator.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	sim, err := simulator.Start(t.Context(), simulator.Config{Key: public})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sim.Close)
	provider, err := apns.New(apns.Config{
		KeyPEM: p8, KeyID: "K", TeamID: "T",
		BaseURL: sim.URL(), RootCAs: sim.RootCAs(), Metrics: f.set,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(provider.Close)
	cfg := f.config()
	cfg.Provider = provider
	events := f.follow(consumers.TopicEvents)
	_, stop := f.start(cfg)
	var recs []*kgo.Record
	for i := range 200 {
		p := attempt(i)
		if i%20 == 0 {
			p.Token = "gone-phone"
		}
		recs = append(recs, f.record(domain.Lanes[i%3], p))
	}
	f.produce(recs...)
	eventually(t, "all facts", func() bool { return len(events.all()) == 200 })
	stop()
	for id, evs := range events.facts(t) {
		var i int
		_, _ = fmt.Sscanf(id, "n-%d", &i) // attempt made it
		failed := evs[0].GetAttemptFailed()
		if gone := i%20 == 0; gone != (failed.GetReason() == "Unregistered") || gone != (failed.GetInvalidSinceMs() > 0) || !gone && evs[0].GetDeliverySent().GetProviderId() == "" {
			t.Errorf("%s: %v", id, evs[0])
		}
	}
	if c := sim.Counts(); c.Accepted != 190 || c.Connections > 6 {
		t.Errorf("simulator: %+v", c)
	}
}
