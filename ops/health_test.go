package ops_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
	"github.com/klivvr/whisper/ops"
)

// noon is when all health tests look.
var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

type fixture struct {
	client    consumers.ClientConfig
	publisher *consumers.Publisher
	attempts  ops.AttemptCounts
	failing   error
}

func setup(t *testing.T) *fixture {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	f := &fixture{client: consumers.ClientConfig{Brokers: cluster.ListenAddrs(), ClientID: "test"}}
	topology := consumers.Topology{Partitions: 2, Replication: 1, DuplicateWindow: time.Hour, Retention: time.Hour}
	if err := consumers.EnsureTopics(t.Context(), f.client, topology.Specs()...); err != nil {
		t.Fatal(err)
	}
	if f.publisher, err = consumers.NewPublisher(f.client, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.publisher.Close)
	return f
}

// monitor runs one that has read the nodes' heartbeats.
func (f *fixture) monitor(t *testing.T) *ops.HealthMonitor {
	t.Helper()
	m, err := ops.NewHealthMonitor(ops.HealthConfig{
		Client: f.client,
		Attempts: func(_ context.Context, window time.Duration) (ops.AttemptCounts, error) {
			if window != 5*time.Minute {
				t.Errorf("attempts are counted over %s", window)
			}
			return f.attempts, f.failing
		},
		Interval: time.Hour,
		Now:      func() time.Time { return noon },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	eventually(t, "the nodes are read", func() bool { return m.Ready() == nil })
	return m
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(30 * time.Second); !ok(); {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("after 30 s still not so: %s", what)
		}
	}
}

func (f *fixture) write(t *testing.T, recs ...*kgo.Record) {
	t.Helper()
	if err := f.publisher.PublishSync(t.Context(), recs...); err != nil {
		t.Fatal(err)
	}
}

func (f *fixture) heartbeat(t *testing.T, n *whisperv1.Node, age time.Duration) {
	t.Helper()
	n.AtUs, n.HeartbeatMs = noon.Add(-age).UnixMicro(), 2000
	value, err := proto.Marshal(n)
	if err != nil {
		t.Fatal(err)
	}
	f.write(t, &kgo.Record{Topic: consumers.TopicNodes, Key: []byte(n.GetNode()), Value: value})
}

func (f *fixture) commit(t *testing.T, group, topic string, partition int32, next int64) {
	t.Helper()
	adm, err := f.client.Admin()
	if err != nil {
		t.Fatal(err)
	}
	defer adm.Close()
	var offsets kadm.Offsets
	offsets.AddOffset(topic, partition, next, -1)
	if err := adm.CommitAllOffsets(t.Context(), group, offsets); err != nil {
		t.Fatal(err)
	}
}

func wantReasons(t *testing.T, doc ops.Health, parts ...string) {
	t.Helper()
	if (doc.Status == ops.StatusHealthy) != (len(parts) == 0) || len(doc.Reasons) != len(parts) {
		t.Fatalf("status %s for %q, want reasons about %q", doc.Status, doc.Reasons, parts)
	}
	for _, part := range parts {
		if !slices.ContainsFunc(doc.Reasons, func(r string) bool { return strings.Contains(r, part) }) {
			t.Errorf("reasons %q do not speak of %q", doc.Reasons, part)
		}
	}
}

func TestAnIdleSystemIsHealthy(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.heartbeat(t, &whisperv1.Node{Node: "a", Incarnation: 1, Connections: 30, Limit: 100}, time.Second)
	f.heartbeat(t, &whisperv1.Node{Node: "b", Incarnation: 7, Connections: 10, Limit: 300, Draining: true}, time.Second)
	f.attempts = ops.AttemptCounts{OK: 285, Failed: 15}
	doc := f.monitor(t).Health(t.Context())
	wantReasons(t, doc)
	if doc.ActiveConnections != 40 || doc.Utilization != 0.1 || doc.ErrorRate != 0.05 || doc.DeliveryRatePerSecond != 0.95 {
		t.Errorf("%+v", doc)
	}
	if len(doc.Nodes) != 2 || doc.Nodes[0].State != ops.NodeLive || doc.Nodes[1].State != ops.NodeDraining {
		t.Errorf("nodes are %+v", doc.Nodes)
	}
	text, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{`"status":"healthy"`, `"reasons":[]`, `"queue_depths":{"high":0,"low":0,"normal":0}`, `"delivery_rate_per_second":`, `"error_rate":`, `"active_connections":40`, `"utilization":0.1`, `"nodes":[{`} {
		if !strings.Contains(string(text), key) {
			t.Errorf("%s lacks %s", text, key)
		}
	}
}

func TestWhatDegrades(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		given func(t *testing.T, f *fixture)
		want  []string
	}{
		"more than a twentieth of the attempts failed": {
			func(_ *testing.T, f *fixture) { f.attempts = ops.AttemptCounts{OK: 94, Failed: 6} },
			[]string{"6 of 100 attempts"},
		},
		"the read model does not answer": {
			func(_ *testing.T, f *fixture) { f.failing = errors.New("connection refused") },
			[]string{"the read model does not answer"},
		},
		"a node is too full": {
			func(t *testing.T, f *fixture) {
				f.heartbeat(t, &whisperv1.Node{Node: "a", Incarnation: 1, Connections: 81, Limit: 100}, 0)
			},
			[]string{"node a is 81% full"},
		},
		"a node is silent": {
			func(t *testing.T, f *fixture) {
				f.heartbeat(t, &whisperv1.Node{Node: "a", Incarnation: 1, Limit: 100}, 7*time.Second)
			},
			[]string{"node a is silent since 2026-11-23T11:59:53Z"},
		},
		"a node that is gone for good does not count": {
			func(t *testing.T, f *fixture) {
				f.heartbeat(t, &whisperv1.Node{Node: "a", Incarnation: 1, Limit: 100}, 2*time.Hour)
			},
			nil,
		},
		"a node that ended after its drain does not count": {
			func(t *testing.T, f *fixture) {
				f.heartbeat(t, &whisperv1.Node{Node: "a", Incarnation: 1, Limit: 100, Draining: true}, time.Minute)
			},
			nil,
		},
		"a node that took its leave does not count": {
			func(t *testing.T, f *fixture) {
				f.heartbeat(t, &whisperv1.Node{Node: "a", Incarnation: 1, Limit: 100}, time.Minute)
				f.write(t, &kgo.Record{Topic: consumers.TopicNodes, Key: []byte("a")})
			},
			nil,
		},
		"an earlier start of a node is history": {
			func(t *testing.T, f *fixture) {
				f.heartbeat(t, &whisperv1.Node{Node: "a", Incarnation: 2, Limit: 100}, 0)
				f.heartbeat(t, &whisperv1.Node{Node: "a", Incarnation: 1, Connections: 99, Limit: 100}, time.Minute)
			},
			nil,
		},
		"a delivery waits for too long on its lane, two others not yet": {
			func(t *testing.T, f *fixture) {
				for _, lane := range domain.Lanes {
					f.write(t, &kgo.Record{Topic: consumers.TopicDeliveries(lane), Partition: 1, Timestamp: noon.Add(-36 * time.Second)})
				}
			},
			[]string{"lane high: the oldest of 1 undispatched records is older than 5s"},
		},
		"dispatch may hold a delivery back for a while": {
			func(t *testing.T, f *fixture) {
				f.write(t, &kgo.Record{Topic: consumers.TopicDeliveries(domain.High), Timestamp: noon.Add(-34 * time.Second)})
			},
			nil,
		},
		"a request waits for too long": {
			func(t *testing.T, f *fixture) {
				f.write(t, &kgo.Record{Topic: consumers.TopicRequests(domain.Normal), Timestamp: noon.Add(-31 * time.Second)})
			},
			[]string{"lane normal"},
		},
		"what was dispatched does not wait": {
			func(t *testing.T, f *fixture) {
				topic := consumers.TopicDeliveries(domain.High)
				f.write(t, &kgo.Record{Topic: topic, Timestamp: noon.Add(-time.Hour)})
				f.write(t, &kgo.Record{Topic: topic, Timestamp: noon.Add(-time.Second)})
				f.commit(t, "whisper-dispatch", topic, 0, 1)
			},
			nil,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := setup(t)
			tt.given(t, f)
			wantReasons(t, f.monitor(t).Health(t.Context()), tt.want...)
		})
	}
}

func TestQueueDepthsAreWhatIsNotCommitted(t *testing.T) {
	t.Parallel()
	f := setup(t)
	topic := consumers.TopicDeliveries(domain.Low)
	for range 5 {
		f.write(t, &kgo.Record{Topic: topic, Partition: 1, Timestamp: noon})
	}
	f.commit(t, "whisper-dispatch", topic, 1, 2)
	f.write(t, &kgo.Record{Topic: consumers.TopicRequests(domain.Low), Timestamp: noon})
	doc := f.monitor(t).Health(t.Context())
	if doc.QueueDepths["low"] != 4 || doc.QueueDepths["high"] != 0 || doc.QueueDepths["normal"] != 0 {
		t.Errorf("queue depths are %v", doc.QueueDepths)
	}
}

// TestDepthsEndAtTheLastStableOffset: what an open transaction holds back can't be worked off, so it is no queue.
func TestDepthsEndAtTheLastStableOffset(t *testing.T) {
	t.Parallel()
	f := setup(t)
	topic := consumers.TopicRequests(domain.High)
	f.write(t, &kgo.Record{Topic: topic, Timestamp: noon.Add(-time.Hour)})
	f.commit(t, "whisper-intake", topic, 0, 1)
	cl, err := kgo.NewClient(kgo.SeedBrokers(f.client.Brokers...), kgo.TransactionalID("x"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	if err := cl.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Timestamp: noon.Add(-time.Hour)}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	m := f.monitor(t)
	doc := m.Health(t.Context())
	wantReasons(t, doc)
	if doc.QueueDepths["high"] != 0 {
		t.Errorf("while it is open the depths are %v", doc.QueueDepths)
	}
	if err := cl.EndTransaction(t.Context(), kgo.TryCommit); err != nil {
		t.Fatal(err)
	}
	f.commit(t, "whisper-intake", topic, 0, 3) // as the loop does: past the marker
	doc = m.Health(t.Context())
	wantReasons(t, doc)
	if doc.QueueDepths["high"] != 0 {
		t.Errorf("behind the marker the depths are %v", doc.QueueDepths)
	}
}

func TestHealthAnswersWithoutKafka(t *testing.T) {
	t.Parallel()
	f := setup(t)
	m, err := ops.NewHealthMonitor(ops.HealthConfig{
		Client:   consumers.ClientConfig{Brokers: []string{"127.0.0.1:1"}},
		Attempts: func(context.Context, time.Duration) (ops.AttemptCounts, error) { return f.attempts, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // as after the five seconds that a measurement may take
	wantReasons(t, m.Health(ctx), "kafka does not answer", "the nodes are unknown")
}
