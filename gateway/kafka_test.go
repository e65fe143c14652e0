package gateway

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// onKafka runs a gateway on a fake broker that speaks Kafka.
func onKafka(t *testing.T, kafka consumers.ClientConfig) *node {
	t.Helper()
	cfg := config()
	cfg.Kafka = kafka
	cfg.Heartbeat = 50 * time.Millisecond
	cfg.Metrics = metrics.NewSet()
	n := &node{t: t, clock: &clock{}, ended: make(chan struct{})}
	g, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	n.Gateway = g
	ctx, stop := context.WithCancel(context.Background())
	n.stop = stop
	go func() {
		defer close(n.ended)
		n.err = g.Run(ctx)
	}()
	t.Cleanup(func() {
		stop()
		<-n.ended
	})
	eventually(t, "ready", func() bool { return g.Ready() == nil })
	n.url = "ws://" + g.Addr().String() + "/v1/socket"
	return n
}

// tail collects a topic's records.
type tail struct {
	mu   sync.Mutex
	recs []*kgo.Record
}

func follow(t *testing.T, kafka consumers.ClientConfig, topic string, partitions int32) *tail {
	t.Helper()
	r, err := consumers.NewReader(kafka)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var ended sync.WaitGroup
	ended.Go(func() { _ = r.Run(ctx) })
	t.Cleanup(func() { cancel(); ended.Wait(); r.Close() })
	tl := &tail{}
	for p := range partitions {
		if _, err := r.Follow(ctx, topic, p, consumers.FromStart, tl.add); err != nil {
			t.Fatal(err)
		}
	}
	return tl
}

func (tl *tail) add(recs []*kgo.Record) {
	tl.mu.Lock()
	defer tl.mu.Unlock()
	tl.recs = append(tl.recs, recs...)
}

func (tl *tail) kinds(t *testing.T, notification string) (kinds []string) {
	t.Helper()
	tl.mu.Lock()
	defer tl.mu.Unlock()
	for _, rec := range tl.recs {
		var ev whisperv1.Event
		if err := proto.Unmarshal(rec.Value, &ev); err != nil {
			t.Fatal(err)
		}
		if ev.GetNotificationId() == notification {
			kinds = append(kinds, consumers.KindOfRecord(rec))
		}
	}
	return kinds
}

func TestOnKafka(t *testing.T) {
	t.Parallel()
	cluster, err := kfake.NewCluster(
		kfake.NumBrokers(1),
		kfake.SeedTopics(4, consumers.TopicEvents, consumers.TopicPresence),
		kfake.SeedTopics(1, consumers.TopicNodes, consumers.TopicDeadLetters, consumers.TopicRevocations),
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	kafka := consumers.ClientConfig{Brokers: cluster.ListenAddrs(), ClientID: "test"}
	facts := follow(t, kafka, consumers.TopicEvents, 4)
	presence := follow(t, kafka, consumers.TopicPresence, 4)
	dead := follow(t, kafka, consumers.TopicDeadLetters, 1)
	p, err := consumers.NewPublisher(kafka, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	put := func(recs ...*kgo.Record) {
		t.Helper()
		for _, rec := range recs {
			rec.Topic, rec.Partition = consumers.TopicNode("n1"), int32(domain.High)
		}
		if err := p.PublishSync(t.Context(), recs...); err != nil {
			t.Fatal(err)
		}
	}
	wantKinds := func(notification string, want ...string) {
		t.Helper()
		eventually(t, notification+" to be "+strings.Join(want, ", "), func() bool {
			return strings.Join(facts.kinds(t, notification), " ") == strings.Join(want, " ")
		})
	}

	first := onKafka(t, kafka)
	c := first.connect("mona")
	put(route(first, "mona", "a"), &kgo.Record{Key: []byte("mona"), Value: []byte("\xff")})
	c.wantNotification("a")
	wantKinds("a", "delivery_sent")
	c.ack("a")
	wantKinds("a", "delivery_sent", "delivery_delivered")
	eventually(t, "the dead letter", func() bool {
		dead.mu.Lock()
		defer dead.mu.Unlock()
		return len(dead.recs) == 1
	})
	old := route(first, "mona", "late")
	first.stop()
	<-first.ended
	if first.err != nil {
		t.Fatal(first.err)
	}
	eventually(t, "presence and its tombstone", func() bool {
		presence.mu.Lock()
		defer presence.mu.Unlock()
		return len(presence.recs) == 2 && presence.recs[1].Value == nil && string(presence.recs[1].Key) == "mona\x00n1"
	})

	put(old) // while the node is down
	second := onKafka(t, kafka)
	if second.incarnation.Load() <= first.incarnation.Load() {
		t.Errorf("incarnation %d after %d", second.incarnation.Load(), first.incarnation.Load())
	}
	wantKinds("late", "attempt_failed")
	wantKinds("a", "delivery_sent", "delivery_delivered") // was committed, is not handed out again

	third := onKafka(t, kafka) // the same name, while the second runs
	<-second.ended
	if second.err == nil || !strings.Contains(second.err.Error(), "another gateway was started") {
		t.Errorf("the second ended with %v", second.err)
	}
	c = third.connect("mona")
	put(route(third, "mona", "b"))
	c.wantNotification("b")
}

// TestANodesNameThatKafkaTakesForAnotherIsRefusedWithWords: gw.a and gw_a are one name to Kafka's metrics, so it refuses the second one's topic.
func TestANodesNameThatKafkaTakesForAnotherIsRefusedWithWords(t *testing.T) {
	t.Parallel()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	cluster.ControlKey(int16(kmsg.CreateTopics), func(req kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		resp := req.ResponseKind().(*kmsg.CreateTopicsResponse)
		for _, topic := range req.(*kmsg.CreateTopicsRequest).Topics {
			refused := kmsg.NewCreateTopicsResponseTopic()
			refused.Topic, refused.ErrorCode = topic.Topic, kerr.InvalidTopicException.Code
			resp.Topics = append(resp.Topics, refused)
		}
		return resp, nil, true
	})
	cfg := config()
	cfg.Node, cfg.Kafka, cfg.Metrics = "gw_a", consumers.ClientConfig{Brokers: cluster.ListenAddrs(), ClientID: "test"}, metrics.NewSet()
	g, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Run(t.Context()); err == nil || !strings.Contains(err.Error(), `"gw_a" can't be used`) || !strings.Contains(err.Error(), "choose another name") {
		t.Errorf("Run = %v", err)
	}
}

// Somebody deletes the topic of a node that lives: it makes it anew and goes on, with the same sockets.
func TestANodesTopicThatIsDeletedIsMadeAnew(t *testing.T) {
	t.Parallel()
	cluster, err := kfake.NewCluster(
		kfake.NumBrokers(1),
		kfake.SeedTopics(4, consumers.TopicEvents, consumers.TopicPresence),
		kfake.SeedTopics(1, consumers.TopicNodes, consumers.TopicDeadLetters, consumers.TopicRevocations),
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	kafka := consumers.ClientConfig{Brokers: cluster.ListenAddrs(), ClientID: "test"}
	topic := consumers.TopicNode("n1")
	put := func(recs ...*kgo.Record) {
		t.Helper()
		p, err := consumers.NewPublisher(kafka, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		for _, rec := range recs {
			rec.Topic, rec.Partition = topic, int32(domain.High)
		}
		if err := p.PublishSync(t.Context(), recs...); err != nil {
			t.Fatal(err)
		}
	}
	n := onKafka(t, kafka)
	c := n.connect("mona")
	for i := range 5 {
		put(route(n, "mona", fmt.Sprintf("a-%d", i)))
		c.wantNotification(fmt.Sprintf("a-%d", i))
	}
	adm, err := kafka.Admin()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(adm.Close)
	for round := range 2 {
		before := n.incarnation.Load()
		if _, err := adm.DeleteTopics(t.Context(), topic); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the topic is there again", func() bool {
			topics, err := adm.ListTopics(t.Context(), topic)
			return err == nil && topics.Has(topic) && topics[topic].Err == nil && len(topics[topic].Partitions) == 3
		})
		eventually(t, "dispatch is told to send anew what is open", func() bool { return n.incarnation.Load() > before })
		put(route(n, "mona", fmt.Sprintf("b-%d", round)))
		c.wantNotification(fmt.Sprintf("b-%d", round))
	}
	eventually(t, "what is settled of the new topic is committed", func() bool {
		offsets, err := adm.FetchOffsetsForTopics(t.Context(), "whisper-node-n1", topic)
		return err == nil && offsets[topic][0].At == 1 && n.lanes.unsettled() == 0
	})
	if err := n.Ready(); err != nil {
		t.Error(err)
	}
}

func TestStoppedWhileKafkaIsAway(t *testing.T) {
	t.Parallel()
	cfg := config() // its broker answers nobody
	g, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	eventually(t, "it to listen", func() bool { return g.Addr() != nil })
	if g.Ready() == nil {
		t.Error("ready without kafka")
	}
	stop()
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
}
