package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/cmd/whisper/cli"
	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// broker is a fake Kafka with Whisper's topics, made by the command that is for it.
type broker struct {
	addr      string
	client    consumers.ClientConfig
	publisher *consumers.Publisher
}

const testPartitions = 3

func startBroker(t *testing.T) *broker {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	addr := cluster.ListenAddrs()[0]
	b := &broker{addr: addr, client: consumers.ClientConfig{Brokers: []string{addr}, ClientID: "test"}}
	b.whisper(t, "topics", "apply", "--partitions=3")
	if b.publisher, err = consumers.NewPublisher(b.client, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.publisher.Close)
	return b
}

// whisper runs a command that must succeed against this broker.
func (b *broker) whisper(t *testing.T, args ...string) string {
	t.Helper()
	got := whisper(t, []string{"WHISPER_KAFKA=" + b.addr}, args...)
	if got.code != exitOK {
		t.Fatalf("whisper %v: exit code %d, %s", args, got.code, got.stderr)
	}
	return got.stdout
}

func (b *broker) write(t *testing.T, recs ...*kgo.Record) {
	t.Helper()
	if err := b.publisher.PublishSync(t.Context(), recs...); err != nil {
		t.Fatal(err)
	}
}

// read is all of a topic.
func (b *broker) read(t *testing.T, topic string) []*kgo.Record {
	t.Helper()
	var recs []*kgo.Record
	s := cli.Scan{Client: b.client, Topics: []string{topic}}
	if err := s.Run(t.Context(), func(rec *kgo.Record) error { recs = append(recs, rec); return nil }); err != nil {
		t.Fatal(err)
	}
	return recs
}

func lines(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(s, "\n"), "\n")
}

func decode[T any](t *testing.T, line string) T {
	t.Helper()
	var doc T
	if err := json.Unmarshal([]byte(line), &doc); err != nil {
		t.Fatalf("%v: %s", err, line)
	}
	return doc
}

func TestTopicsAreMadeOnceAndNeverResized(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	if got := lines(b.whisper(t, "topics", "plan", "--partitions=3")); len(got) != 1 || !strings.Contains(got[0], "are as they should be") {
		t.Errorf("after apply the plan is %q", got)
	}
	got := whisper(t, nil, "topics", "apply", "--partitions=5", "--kafka="+b.addr)
	if got.code != exitError || !strings.Contains(got.stderr, "topic whisper.events has 3 partitions, 5 are configured") {
		t.Errorf("exit code %d, %s", got.code, got.stderr)
	}
	plans := decode[[]consumers.TopicPlan](t, b.whisper(t, "topics", "plan", "--partitions=3", "--retention=48h", "--json"))
	changed := 0
	for _, plan := range plans {
		if plan.Alter["retention.ms"] == "172800000" {
			changed++
		}
	}
	if changed == 0 {
		t.Errorf("another retention changes nothing: %+v", plans)
	}
}

func TestSendWritesWhatUpstreamWould(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	id := strings.TrimSpace(b.whisper(t, "send", "--user=mona", "--user=omar", "--lane=high", "--title=Card", "--body=EGP 120.50",
		`--data={"a": 1}`, "--ttl=1h", "--channels=socket,apns", "--traceparent=00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"))
	recs := b.read(t, consumers.TopicRequests(domain.High))
	if len(recs) != 1 {
		t.Fatalf("%d records in the lane high", len(recs))
	}
	want := `{"to":{"users":["mona","omar"]},"content":{"title":"Card","body":"EGP 120.50","data":{"a":1}},"channels":["socket","apns"],"ttl":"1h"}`
	if got := string(recs[0].Value); got != want {
		t.Errorf("the record is %s\nwant %s", got, want)
	}
	if got := recs[0]; id != topicPosition(got) {
		t.Errorf("printed %q, the record stands at %s", id, topicPosition(got))
	}
	if got := consumers.TraceHeaders(recs[0]); len(got) != 1 || !strings.HasPrefix(string(got[0].Value), "00-0af7651916cd43dd") {
		t.Errorf("trace headers are %v", got)
	}

	out := decode[struct{ ID, Traceparent string }](t, b.whisper(t, "send", "--cancel=pay-1", "--json"))
	recs = b.read(t, consumers.TopicRequests(domain.Normal))
	if len(recs) != 1 || string(recs[0].Value) != `{"cancel":"pay-1"}` || out.ID != "pay-1" || len(out.Traceparent) != 55 {
		t.Errorf("cancel printed %+v for %v", out, recs)
	}
}

func topicPosition(rec *kgo.Record) string {
	return fmt.Sprintf("%s/%d/%d", rec.Topic, rec.Partition, rec.Offset)
}

// fact writes one event where a role would have.
func (b *broker) fact(t *testing.T, topic string, ev *whisperv1.Event) {
	t.Helper()
	hash := domain.HashDelivery(ev.GetNotificationId(), ev.GetUserId())
	id := domain.NewDeliveryID(time.UnixMilli(1_800_000_000_000), hash)
	ev.DeliveryId = id[:]
	trace := []kgo.RecordHeader{{Key: "traceparent", Value: []byte("00-" + ev.GetNotificationId())}}
	rec, err := consumers.EventRecord(topic, consumers.PartitionOf(ev.GetUserId(), testPartitions), ev, trace)
	if err != nil {
		t.Fatal(err)
	}
	b.write(t, rec)
}

// story is one delivery to mona on n-1, and the beginning of one to omar between its facts.
func (b *broker) story(t *testing.T) {
	t.Helper()
	b.fact(t, consumers.TopicEvents, &whisperv1.Event{
		NotificationId: "n-1", UserId: "mona", Lane: whisperv1.Lane_LANE_HIGH, AtUs: 3_000_000,
		Kind: &whisperv1.Event_DeliverySent{DeliverySent: &whisperv1.DeliverySent{Attempt: 1, Channel: "socket", Node: "eu 1", LatencyUs: 900}},
	})
	b.fact(t, consumers.TopicDeliveries(domain.High), &whisperv1.Event{
		NotificationId: "n-1", UserId: "mona", Lane: whisperv1.Lane_LANE_HIGH, AtUs: 1_000_000,
		Kind: &whisperv1.Event_DeliveryAccepted{DeliveryAccepted: &whisperv1.DeliveryAccepted{
			Category: "cards", Content: &whisperv1.Content{Title: "Card payment", Body: "private", Data: []byte(`{"amount":1}`)}, Variables: []byte(`{"name":"Mona"}`), Channels: []string{"socket"},
		}},
	})
	b.fact(t, consumers.TopicDeliveries(domain.Low), &whisperv1.Event{
		NotificationId: "n-2", UserId: "omar", Lane: whisperv1.Lane_LANE_LOW, AtUs: 2_000_000,
		Kind: &whisperv1.Event_DeliveryAccepted{DeliveryAccepted: &whisperv1.DeliveryAccepted{Category: "news"}},
	})
}

// eventLine is part of what `whisper events --json` prints.
type eventLine struct {
	DeliveryID string `json:"delivery_id"`
	Topic      string
	Detail     map[string]any
}

func TestEventsTellAStoryInOrderOfTime(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	b.story(t)
	got := lines(b.whisper(t, "events"))
	if len(got) != 3 || !strings.Contains(got[0], "delivery_accepted") || !strings.Contains(got[1], "user=omar") ||
		!strings.Contains(got[2], "delivery_sent") {
		t.Fatalf("events are\n%s", strings.Join(got, "\n"))
	}
	for _, want := range []string{"1970-01-01T00:00:03.000000Z", " high ", " n-1 ", "user=mona", "attempt=1", "channel=socket", `node="eu 1"`, "traceparent=00-n-1"} {
		if !strings.Contains(got[2], want) {
			t.Errorf("%s does not say %s", got[2], want)
		}
	}
	if !strings.Contains(got[0], " channels=socket ") {
		t.Errorf("%s does not list its channels", got[0])
	}
	delivery := decode[eventLine](t, lines(b.whisper(t, "events", "--notification=n-1", "--json"))[0]).DeliveryID
	tests := map[string]struct {
		args []string
		want int
	}{
		"of a user":           {[]string{"--user=mona"}, 2},
		"of nobody":           {[]string{"--user=nobody"}, 0},
		"of a notification":   {[]string{"--notification=n-2"}, 1},
		"of a delivery":       {[]string{"--delivery=" + delivery}, 2},
		"since a while":       {[]string{"--since=1h"}, 3},
		"of a user's another": {[]string{"--user=mona", "--notification=n-2"}, 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := lines(b.whisper(t, append([]string{"events"}, tt.args...)...)); len(got) != tt.want {
				t.Errorf("%d events, want %d:\n%s", len(got), tt.want, strings.Join(got, "\n"))
			}
		})
	}
}

func TestEventsShowContentsOnlyWhenAsked(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	b.story(t)
	for _, args := range [][]string{{"events"}, {"events", "--json"}} {
		if got := b.whisper(t, args...); strings.Contains(got, "private") || strings.Contains(got, "Mona") || strings.Contains(got, "amount") {
			t.Errorf("%v shows contents: %s", args, got)
		}
		if got := b.whisper(t, append(args, "--contents")...); !strings.Contains(got, "private") || !strings.Contains(got, "Mona") ||
			!strings.Contains(got, "amount") {
			t.Errorf("%v --contents shows none: %s", args, got)
		}
	}
	doc := decode[eventLine](t, lines(b.whisper(t, "events", "--contents", "--json"))[0])
	inner, _ := doc.Detail["content"].(map[string]any)
	if data, _ := inner["data"].(map[string]any); data["amount"] != 1.0 || doc.Topic != "whisper.deliveries.high" ||
		doc.Detail["category"] != "cards" {
		t.Errorf("%+v", doc)
	}
}

// written is a buffer that a test may look into while a command writes it.
type written struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (w *written) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.Write(b)
}

func (w *written) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.String()
}

// background runs a command until the test is over; stop ends it earlier and gives its exit code.
func background(t *testing.T, env []string, args ...string) (stdout, stderr *written, stop func() int) {
	t.Helper()
	stdout, stderr = &written{}, &written{}
	ctx, cancel := context.WithCancel(context.Background())
	code := make(chan int, 1)
	go func() { code <- program{args: args, environ: env, stdout: stdout, stderr: stderr}.Run(ctx) }()
	stop = sync.OnceValue(func() int {
		cancel()
		return <-code
	})
	t.Cleanup(func() { stop() })
	return stdout, stderr, stop
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(3 * time.Minute); !ok(); {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("after 3 min still not so: %s", what)
		}
	}
}

func TestEventsFollow(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	b.story(t)
	stdout, _, stop := background(t, []string{"WHISPER_KAFKA=" + b.addr}, "events", "--follow", "--since=1h")
	eventually(t, "what was there is printed", func() bool { return len(lines(stdout.String())) == 3 })
	b.fact(t, consumers.TopicEvents, &whisperv1.Event{
		NotificationId: "n-1", UserId: "mona", AtUs: 4_000_000,
		Kind: &whisperv1.Event_DeliveryRead{DeliveryRead: &whisperv1.DeliveryRead{Node: "eu-1"}},
	})
	eventually(t, "what comes is printed", func() bool { return strings.Contains(stdout.String(), "delivery_read") })
	if code := stop(); code != exitOK {
		t.Errorf("exit code %d after a signal", code)
	}
}

func TestToolsSayThatKafkaDoesNotAnswer(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // as after the seconds that a tool tries
	var stdout, stderr bytes.Buffer
	code := program{args: []string{"events", "--kafka=127.0.0.1:1"}, environ: nil, stdout: &stdout, stderr: &stderr}.Run(ctx)
	if code != exitError || !strings.Contains(stderr.String(), "kafka at [127.0.0.1:1] did not answer") {
		t.Errorf("exit code %d, %s", code, stderr.String())
	}
}

// TestARefusingAddressIsReportedOnce, though pgx tries it with TLS and without.
func TestARefusingAddressIsReportedOnce(t *testing.T) {
	t.Parallel()
	addr := freeAddr(t)
	got := whisper(t, nil, "deliveries", "list", "--postgres=postgres://u:p@"+addr+"/x")
	if got.code != exitError || strings.Count(got.stderr, "connection refused") != 1 {
		t.Errorf("exit code %d, %s", got.code, got.stderr)
	}
}

// TestEventsOfOneDeliveryAreReadFromItsTime: a record that is older than its request, which can't be about it, is passed over; so what is printed says where
// reading began.
func TestEventsOfOneDeliveryAreReadFromItsTime(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	now := time.Now()
	id := domain.NewDeliveryID(now, domain.HashDelivery("n", "mona"))
	for ago, kind := range map[time.Duration]*whisperv1.Event{
		24 * time.Hour: {Kind: &whisperv1.Event_DeliverySent{DeliverySent: &whisperv1.DeliverySent{Attempt: 1}}},
		0:              {Kind: &whisperv1.Event_DeliveryRead{DeliveryRead: &whisperv1.DeliveryRead{Attempt: 1}}},
	} {
		kind.DeliveryId, kind.NotificationId, kind.UserId, kind.AtUs = id[:], "n", "mona", now.Add(-ago).UnixMicro()
		value, err := proto.Marshal(kind)
		if err != nil {
			t.Fatal(err)
		}
		b.write(t, &kgo.Record{
			Topic: consumers.TopicEvents, Partition: int32(ago / (24 * time.Hour)), Key: []byte("mona"), Value: value, Timestamp: now.Add(-ago),
			Headers: []kgo.RecordHeader{{Key: "event", Value: []byte(domain.KindOf(kind))}},
		})
	}
	if got := b.whisper(t, "events", "--delivery="+id.String()); strings.Contains(got, "delivery_sent") ||
		!strings.Contains(got, "delivery_read") {
		t.Errorf("printed %s", got)
	}
	if got := b.whisper(t, "events", "--notification=n"); !strings.Contains(got, "delivery_sent") || !strings.Contains(got, "delivery_read") {
		t.Errorf("printed %s", got)
	}
}

// TestEventsPrint64BitIntegersAsStrings, as Protobuf's JSON has them and readers know them; the tables have numbers.
func TestEventsPrint64BitIntegersAsStrings(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	b.story(t)
	sent := decode[eventLine](t, lines(b.whisper(t, "events", "--user=mona", "--json"))[1])
	if sent.Detail["latency_us"] != "900" || sent.Detail["attempt"] != float64(1) {
		t.Errorf("detail %v", sent.Detail)
	}
}

// TestEventsReadAllWherePostgresIsAway, and say so.
func TestEventsReadAllWherePostgresIsAway(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	b.story(t)
	got := whisper(t, []string{"WHISPER_KAFKA=" + b.addr}, "events", "--notification=n-1", "--postgres=postgres://u:p@"+freeAddr(t)+"/x")
	if got.code != exitOK || len(lines(got.stdout)) != 2 || !strings.Contains(got.stderr, "so the whole log is read") {
		t.Errorf("exit code %d, %s%s", got.code, got.stdout, got.stderr)
	}
}
