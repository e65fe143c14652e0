package dispatch_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/consumers/dispatch"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

const worldVar = "WHISPER_TEST_DISPATCH_WORLD"

// TestMain is also the process of everything that is not dispatch, for BenchmarkBroadcast.
func TestMain(m *testing.M) {
	atOnce, err := strconv.Atoi(os.Getenv(worldVar))
	if err != nil {
		os.Exit(m.Run())
	}
	if err := runWorld(context.Background(), atOnce, os.Stdin, os.Stdout); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

const (
	castUsers      = 10_000
	castPartitions = 12
)

// BenchmarkBroadcast plays broadcasts of one text to 10,000 connected users, from the request to the fact that ends it.
// It reports what this process spends for each delivery: dispatch, its Kafka clients, and the facts that are read back.
// The broker (a fake one), and a gateway all of whose clients acknowledge, run in a process of their own.
//
// In the second case nobody acknowledges before all have both of two broadcasts.
//
//	go test -run '^$' -bench Broadcast -benchtime 40x ./consumers/dispatch
func BenchmarkBroadcast(b *testing.B) {
	b.Run("one at a time", func(b *testing.B) { benchBroadcasts(b, 1) })
	b.Run("two at once", func(b *testing.B) { benchBroadcasts(b, 2) })
}

func benchBroadcasts(b *testing.B, atOnce int) {
	cmd := exec.CommandContext(b.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprint(worldVar, "=", atOnce))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	lines := bufio.NewScanner(out)
	told := func() string {
		if !lines.Scan() {
			b.Fatal("the world ended: ", lines.Err())
		}
		return lines.Text()
	}
	role, err := dispatch.New(dispatch.Config{
		Client: consumers.ClientConfig{Brokers: strings.Split(told(), ","), ClientID: "bench"}, Partitions: castPartitions, WalkRecords: 1 << 40,
	})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- role.Run(ctx) }()
	s := setup{t: b}
	s.eventually("dispatch is ready", func() bool { return role.Ready() == nil })
	play := func() {
		if _, err := fmt.Fprintln(in, "go"); err != nil {
			b.Fatal(err)
		}
		if line := told(); line != "done" {
			b.Fatal(line)
		}
	}
	for range 3 { // rooms are made
		play()
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	begin := cpu(b)
	for b.Loop() {
		play()
	}
	spent := cpu(b) - begin
	runtime.ReadMemStats(&after)
	deliveries := float64(castUsers*atOnce) * float64(b.N)
	b.ReportMetric(float64(spent.Nanoseconds())/1000/deliveries, "CPU-µs/delivery")
	b.ReportMetric(float64(after.Mallocs-before.Mallocs)/deliveries, "allocs/delivery")
	b.ReportMetric(float64(after.TotalAlloc-before.TotalAlloc)/deliveries, "B/delivery")
	cancel()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
}

// world is a broker and the roles around dispatch.
type world struct {
	client consumers.ClientConfig
	pub    *consumers.Publisher
	facts  *consumers.Facts
	atOnce int
	kept   []*whisperv1.Route // not acknowledged before all of those at once are there
	users  int                // of kept
	open   atomic.Int32       // how many broadcasts are not over, in how many partitions
	over   chan struct{}
	failed chan error
}

// runWorld plays a broadcast for each line that it reads.
func runWorld(ctx context.Context, atOnce int, in io.Reader, out io.Writer) error {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		return err
	}
	defer cluster.Close()
	w := &world{
		client: consumers.ClientConfig{Brokers: cluster.ListenAddrs(), ClientID: "world"}, atOnce: atOnce, over: make(chan struct{}, 1), failed: make(chan error, 1),
	}
	topology := consumers.Topology{Partitions: castPartitions, Replication: 1, DuplicateWindow: 24 * time.Hour, Retention: 24 * time.Hour}
	if err := consumers.EnsureTopics(ctx, w.client, append(topology.Specs(), topology.NodeSpec("n1"))...); err != nil {
		return err
	}
	if w.pub, err = consumers.NewPublisher(w.client, consumers.LingerBulk); err != nil {
		return err
	}
	defer w.pub.Close()
	w.facts = consumers.NewFacts(w.pub, castPartitions)
	if err := w.populate(ctx); err != nil {
		return err
	}
	reader, err := consumers.NewReader(w.client)
	if err != nil {
		return err
	}
	defer reader.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { w.failed <- reader.Run(ctx) }()
	if _, err := reader.Follow(ctx, consumers.TopicNode("n1"), int32(domain.Low), consumers.FromStart, func(recs []*kgo.Record) { w.route(ctx, recs) }); err != nil {
		return err
	}
	for p := range int32(castPartitions) {
		if _, err := reader.Follow(ctx, consumers.TopicEvents, p, consumers.FromStart, w.hear); err != nil {
			return err
		}
	}
	_, _ = fmt.Fprintln(out, strings.Join(cluster.ListenAddrs(), ","))
	lines := bufio.NewScanner(in)
	for i := 0; lines.Scan(); i++ {
		if err := w.play(ctx, i); err != nil {
			return err
		}
		_, _ = fmt.Fprintln(out, "done")
	}
	return lines.Err()
}

// populate makes the users, who all hold a socket.
func (w *world) populate(ctx context.Context) error {
	node, err := proto.Marshal(&whisperv1.Node{Node: "n1", Incarnation: 1, HeartbeatMs: time.Hour.Milliseconds()})
	if err != nil {
		return err
	}
	recs := []*kgo.Record{{Topic: consumers.TopicNodes, Key: []byte("n1"), Value: node}}
	for i := range castUsers {
		user := fmt.Sprint("user-", i)
		p := consumers.PartitionOf(user, castPartitions)
		profile, err := proto.Marshal(&whisperv1.Profile{
			Locale: "ar-EG", Timezone: "Africa/Cairo", ChangesOffset: int64(i), CreatedOffset: int64(i) + 1,
			Attributes: fmt.Appendf(nil, `{"country":"EG","name":"Mona %d","plan":"basic","since":"2021"}`, i),
		})
		if err != nil {
			return err
		}
		presence, err := proto.Marshal(&whisperv1.Presence{UserId: user, Node: "n1", Incarnation: 1, Sessions: 1, LatestSession: "s", AtUs: time.Now().UnixMicro()})
		if err != nil {
			return err
		}
		recs = append(
			recs, &kgo.Record{Topic: consumers.TopicUsers, Partition: p, Key: []byte(user), Value: profile},
			&kgo.Record{Topic: consumers.TopicPresence, Partition: p, Key: []byte(user + "\x00n1"), Value: presence},
		)
	}
	return w.pub.PublishSync(ctx, recs...)
}

// play writes broadcasts as intake does, and waits until all partitions say that they are over.
func (w *world) play(ctx context.Context, round int) error {
	w.open.Store(int32(w.atOnce) * castPartitions)
	for i := range w.atOnce {
		now := time.UnixMilli(time.Now().UnixMilli())
		note := fmt.Sprintf("news-%d-%d", round, i)
		id := domain.NewDeliveryID(now, domain.HashDelivery(note, ""))
		value, err := proto.Marshal(&whisperv1.Event{
			DeliveryId: id[:], NotificationId: note, Lane: whisperv1.Lane_LANE_LOW,
			Kind: &whisperv1.Event_BroadcastAccepted{BroadcastAccepted: &whisperv1.BroadcastAccepted{
				Partitions: castPartitions,
				Accepted: &whisperv1.DeliveryAccepted{
					Category: "default", Content: &whisperv1.Content{Title: "Maintenance", Body: "We are back at six.", Data: fmt.Appendf(nil, `{"text":"%0256d"}`, 7)},
					Channels: []string{domain.ChannelSocket}, AcceptedAtMs: now.UnixMilli(), ExpiresAtMs: now.Add(time.Hour).UnixMilli(),
					Request: &whisperv1.Position{Topic: consumers.TopicRequests(domain.Low), Offset: now.UnixMilli()},
				},
			}},
		})
		if err != nil {
			return err
		}
		recs := make([]*kgo.Record, 0, castPartitions)
		for p := range int32(castPartitions) {
			recs = append(recs, &kgo.Record{Topic: consumers.TopicDeliveries(domain.Low), Partition: p, Value: value, Timestamp: now})
		}
		if err := w.pub.PublishSync(ctx, recs...); err != nil {
			return err
		}
	}
	select {
	case <-w.over:
		return nil
	case err := <-w.failed:
		return fmt.Errorf("reading ended: %w", err)
	case <-time.After(3 * time.Minute):
		return fmt.Errorf("round %d is not over: %d are left", round, w.open.Load())
	}
}

// route has the clients acknowledge.
func (w *world) route(ctx context.Context, recs []*kgo.Record) {
	for _, rec := range recs {
		r := &whisperv1.Route{}
		if err := proto.Unmarshal(rec.Value, r); err != nil {
			w.failed <- err
			return
		}
		w.kept = append(w.kept, r)
		w.users += max(1, len(r.GetUsers()))
		if len(r.GetUsers()) == 0 {
			r.Session = string(rec.Key) // the user, for acknowledge
		}
	}
	if w.atOnce > 1 && w.users < w.atOnce*castUsers {
		return
	}
	for _, r := range w.kept {
		w.acknowledge(ctx, r)
	}
	w.kept, w.users = nil, 0
}

// acknowledge tells of each user of a route what a gateway tells whose client acknowledged at once.
func (w *world) acknowledge(ctx context.Context, r *whisperv1.Route) {
	shared := &domain.AttemptFacts{
		Notification: r.GetNotificationId(), Lane: domain.LaneOf(r.GetLane()), Cause: &whisperv1.Position{Topic: consumers.TopicNode("n1"), Partition: 2, Offset: 1_000_000},
		Attempt: r.GetAttempt(), Node: "n1", DueMS: r.GetDueMs(),
	}
	shared.Prepare()
	users := r.GetUsers()
	if len(users) == 0 {
		users = []string{r.GetSession()}
	}
	for _, user := range users {
		w.facts.PublishAttempt(ctx, shared, domain.AttemptFact{
			ID: domain.NewDeliveryID(domain.DeliveryID(r.GetDeliveryId()).Time(), domain.HashDelivery(r.GetNotificationId(), user)), User: user,
			AtUS: time.Now().UnixMicro(), Delivered: true, SentAtUS: time.Now().UnixMicro(), LatencyUS: 900,
		}, nil, nil)
	}
}

// hear counts the partitions in which a broadcast is over.
func (w *world) hear(recs []*kgo.Record) {
	for _, rec := range recs {
		if consumers.KindOfRecord(rec) != "broadcast_progressed" {
			continue
		}
		ev := &whisperv1.Event{}
		if err := proto.Unmarshal(rec.Value, ev); err != nil {
			w.failed <- err
			return
		}
		if ev.GetBroadcastProgressed().GetSettled() && w.open.Add(-1) == 0 {
			w.over <- struct{}{}
		}
	}
}
