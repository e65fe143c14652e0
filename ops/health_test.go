package ops_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
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
	projected map[string]map[int32]int64
	later     atomic.Int64 // nanoseconds after noon
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

// member joins a group and has partitions of the topics; it reads nothing off. The caller may end it.
func (f *fixture) member(t *testing.T, group string, topics ...string) (leave func()) {
	t.Helper()
	assigned := make(chan struct{}, 1)
	client, err := kgo.NewClient(kgo.SeedBrokers(f.client.Brokers...), kgo.ConsumerGroup(group), kgo.ConsumeTopics(topics...),
		kgo.DisableAutoCommit(),
		kgo.OnPartitionsAssigned(func(context.Context, *kgo.Client, map[string][]int32) {
			select {
			case assigned <- struct{}{}:
			default:
			}
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	<-assigned
	return func() { client.LeaveGroup(); client.Close() }
}

// intake and dispatch are there, which any delivery needs.
func (f *fixture) roles(t *testing.T) {
	t.Helper()
	var requests, deliveries []string
	for _, lane := range domain.Lanes {
		requests, deliveries = append(requests, consumers.TopicRequests(lane)), append(deliveries, consumers.TopicDeliveries(lane))
	}
	f.member(t, "whisper-intake", requests...)
	f.member(t, "whisper-dispatch", deliveries...)
}

// live has a gateway that is well.
func (f *fixture) live(t *testing.T) {
	t.Helper()
	f.heartbeat(t, &whisperv1.Node{Node: "well", Incarnation: 1, Limit: 100}, 0)
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
		Projected: func(context.Context) (map[string]map[int32]int64, error) { return f.projected, nil },
		Interval:  time.Hour,
		Now:       func() time.Time { return noon.Add(time.Duration(f.later.Load())) },
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
	for deadline := time.After(3 * time.Minute); !ok(); {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("after 3 min still not so: %s", what)
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
	f.roles(t)
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
	for _, key := range []string{`"status":"healthy"`, `"reasons":[]`, `"queue_depths":{"high":0,"low":0,"normal":0}`, `"push_depths":{"apns.high":0,"apns.low":0,"apns.normal":0,"fcm.high":0,"fcm.low":0,"fcm.normal":0}`, `"projection_lag":0`, `"delivery_rate_per_second":`, `"error_rate":`, `"active_connections":40`, `"utilization":0.1`, `"nodes":[{`} {
		if !strings.Contains(string(text), key) {
			t.Errorf("%s lacks %s", text, key)
		}
	}
}

func TestWhatMakesHealthDegraded(t *testing.T) {
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
		"the last gateway took its leave": {
			func(t *testing.T, f *fixture) {
				f.heartbeat(t, &whisperv1.Node{Node: "well", Incarnation: 1, Limit: 100}, time.Minute)
				f.write(t, &kgo.Record{Topic: consumers.TopicNodes, Key: []byte("well")})
			},
			[]string{"no gateway is live"},
		},
		"the last gateway drains": {
			func(t *testing.T, f *fixture) {
				f.heartbeat(t, &whisperv1.Node{Node: "well", Incarnation: 1, Limit: 100, Draining: true}, 0)
			},
			[]string{"no gateway is live"},
		},
		"attempts wait and there is no push role": {
			func(t *testing.T, f *fixture) {
				for range 3 {
					f.write(t, &kgo.Record{Topic: consumers.TopicPush("apns", domain.High), Partition: 1, Timestamp: noon})
				}
			},
			[]string{"nobody consumes whisper.push.apns.high, where 3 records wait"},
		},
		"attempts wait for too long at a push role that is there": {
			func(t *testing.T, f *fixture) {
				f.member(t, "whisper-push-apns-high", consumers.TopicPush("apns", domain.High))
				f.write(t, &kgo.Record{Topic: consumers.TopicPush("apns", domain.High), Timestamp: noon.Add(-36 * time.Second)})
			},
			[]string{"push apns, lane high: the oldest of 1 records that were not pushed is older than 35s"},
		},
		"the tables are behind": {
			func(t *testing.T, f *fixture) {
				f.write(t, &kgo.Record{Topic: consumers.TopicEvents, Timestamp: noon.Add(-61 * time.Second)},
					&kgo.Record{Topic: consumers.TopicEvents, Partition: 1, Timestamp: noon.Add(-61 * time.Second)}, &kgo.Record{Topic: consumers.TopicEvents, Timestamp: noon})
				f.projected = map[string]map[int32]int64{consumers.TopicEvents: {1: 1}}
			},
			[]string{"the tables are behind: the oldest of 2 records that they lack is older than 1m0s"},
		},
		"the tables are a little behind": {
			func(t *testing.T, f *fixture) {
				f.write(t, &kgo.Record{Topic: consumers.TopicEvents, Timestamp: noon.Add(-59 * time.Second)})
			},
			nil,
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
				f.projected = map[string]map[int32]int64{topic: {0: 1}}
				f.commit(t, "whisper-dispatch", topic, 0, 1)
			},
			nil,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := setup(t)
			f.live(t)
			tt.given(t, f)
			f.roles(t) // last: nobody else may commit for a group that has members
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
	wantReasons(t, doc, "no intake is running", "no dispatch is running")
	if doc.QueueDepths["high"] != 0 {
		t.Errorf("while it is open the depths are %v", doc.QueueDepths)
	}
	if err := cl.EndTransaction(t.Context(), kgo.TryCommit); err != nil {
		t.Fatal(err)
	}
	f.commit(t, "whisper-intake", topic, 0, 3) // as the loop does: past the marker
	doc = m.Health(t.Context())
	wantReasons(t, doc, "no intake is running", "no dispatch is running")
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

func TestHealthWithoutConsumers(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.live(t)
	m := f.monitor(t)
	wantReasons(t, m.Health(t.Context()), "no intake is running", "no dispatch is running")

	var requests, deliveries []string
	for _, lane := range domain.Lanes {
		requests, deliveries = append(requests, consumers.TopicRequests(lane)), append(deliveries, consumers.TopicDeliveries(lane))
	}
	leave := f.member(t, "whisper-intake", requests...)
	// As where roles were started that know of fewer topics.
	f.member(t, "whisper-dispatch", deliveries[:2]...)
	f.later.Add(int64(time.Minute))
	f.live(t)
	m.Health(t.Context())
	f.later.Add(int64(9 * time.Second))
	for _, reason := range m.Health(t.Context()).Reasons {
		if strings.Contains(reason, "consumes") {
			t.Errorf("while partitions may be handed over: %s", reason)
		}
	}
	leave()
	f.later.Add(int64(2 * time.Second))
	reasons := strings.Join(m.Health(t.Context()).Reasons, "\n")
	if !strings.Contains(reasons, "no intake is running") {
		t.Errorf("after intake has left: %s", reasons)
	}
}

// A partition that came later, which members have not looked for yet.
func TestPartitionsWithoutAnOwner(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.roles(t)
	f.live(t)
	topic := consumers.TopicPush("apns", domain.Low)
	f.member(t, "whisper-push-apns-low", topic)
	m := f.monitor(t)
	wantReasons(t, m.Health(t.Context()))
	adm, err := f.client.Admin()
	if err != nil {
		t.Fatal(err)
	}
	defer adm.Close()
	if resp, err := adm.CreatePartitions(t.Context(), 1, topic); err != nil || resp.Error() != nil {
		t.Fatal(err, resp.Error())
	}
	// Seen once it is no reason yet; the admin client learns of the partition when it asks for metadata anew.
	eventually(t, "it is told", func() bool {
		f.later.Add(int64(11 * time.Second))
		return strings.Contains(strings.Join(m.Health(t.Context()).Reasons, "\n"), "nobody consumes partition 2 of "+topic)
	})
}
