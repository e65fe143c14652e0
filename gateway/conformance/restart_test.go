package conformance_test

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
	"github.com/klivvr/whisper/gateway"
	"github.com/klivvr/whisper/gateway/client"
)

var secret = []byte("a secret of at least thirty-two bytes")

// TestAgainstTheGateway restarts a real gateway under a client.
func TestAgainstTheGateway(t *testing.T) {
	t.Parallel()
	cluster, err := kfake.NewCluster(
		kfake.NumBrokers(1),
		kfake.SeedTopics(1, consumers.TopicEvents, consumers.TopicPresence, consumers.TopicNodes, consumers.TopicDeadLetters,
			consumers.TopicRevocations),
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	kafka := consumers.ClientConfig{Brokers: cluster.ListenAddrs(), ClientID: "test"}
	presence := presences(t, kafka)
	p, err := consumers.NewPublisher(kafka, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)

	address, stop := start(t, kafka, "127.0.0.1:0")
	token, err := gateway.SignToken(secret, "mona", time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.Dial(t.Context(), "ws://"+address+"/v1/socket", client.StaticToken(token),
		client.Options{MinBackoff: time.Millisecond, MaxBackoff: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(c) })
	notify := func(id string, incarnation uint64) {
		t.Helper()
		delivery := domain.NewDeliveryID(time.Now(), domain.HashDelivery(id, "mona"))
		value, err := proto.Marshal(&whisperv1.Route{
			DeliveryId: delivery[:], NotificationId: id, Attempt: 1, Incarnation: incarnation,
			Frame: []byte(`{"type":"notification","id":"` + id + `","lane":"high","at":"2026-11-23T09:00:00Z"}`),
		})
		if err != nil {
			t.Fatal(err)
		}
		rec := &kgo.Record{Topic: consumers.TopicNode("n1"), Key: []byte("mona"), Value: value}
		if err := p.PublishSync(t.Context(), rec); err != nil {
			t.Fatal(err)
		}
		if n := <-c.Notifications(); n.ID != id {
			t.Errorf("got %s, want %s", n.ID, id)
		}
	}
	first := presence(0)
	notify("a", first)
	stop() // the client is asked to go, and finds its way to the next start
	start(t, kafka, address)
	notify("b", presence(first))
}

// start runs a gateway; stop drains it.
func start(t *testing.T, kafka consumers.ClientConfig, addr string) (address string, stop func()) {
	t.Helper()
	ln, err := net.Listen("tcp", addr) //nolint:noctx // loopback
	if err != nil {
		t.Fatal(err)
	}
	g, err := gateway.New(gateway.Config{
		Node: "n1", Partitions: 1, Listener: ln, Kafka: kafka,
		Auth: gateway.AuthConfig{HMACSecret: secret}, DrainTimeout: 2 * time.Second, Metrics: metrics.NewSet(),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(stop)
	eventually(t, "ready", func() bool { return g.Ready() == nil })
	return ln.Addr().String(), stop
}

// presences returns a wait for mona's presence on a later incarnation than the one given.
func presences(t *testing.T, kafka consumers.ClientConfig) func(after uint64) uint64 {
	t.Helper()
	r, err := consumers.NewReader(kafka)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var ended sync.WaitGroup
	ended.Go(func() { _ = r.Run(ctx) })
	t.Cleanup(func() { cancel(); ended.Wait(); r.Close() })
	var mu sync.Mutex
	var latest uint64
	if _, err := r.Follow(ctx, consumers.TopicPresence, 0, consumers.FromStart, func(recs []*kgo.Record) {
		mu.Lock()
		defer mu.Unlock()
		for _, rec := range recs {
			var state whisperv1.Presence
			if proto.Unmarshal(rec.Value, &state) == nil && rec.Value != nil {
				latest = state.GetIncarnation()
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
	return func(after uint64) (got uint64) {
		t.Helper()
		eventually(t, "presence", func() bool {
			mu.Lock()
			defer mu.Unlock()
			got = latest
			return got > after
		})
		return got
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(3 * time.Minute)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("waited in vain: %s", what)
		case <-tick.C:
		}
	}
}
