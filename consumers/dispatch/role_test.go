package dispatch_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/consumers/dispatch"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

const partitions = 4

// setup is a fake broker with all topics, one live node, and everything that dispatch writes, as it comes.
type setup struct {
	t       testing.TB
	cluster *kfake.Cluster
	client  consumers.ClientConfig
	pub     *consumers.Publisher
	adm     *kadm.Client
	now     func() time.Time // of the roles; nil: the time

	mu      sync.Mutex
	records map[string][]*kgo.Record
}

func newSetup(t testing.TB) *setup {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	s := &setup{t: t, cluster: cluster, client: consumers.ClientConfig{Brokers: cluster.ListenAddrs(), ClientID: t.Name()}, records: map[string][]*kgo.Record{}}
	topology := consumers.Topology{Partitions: partitions, Replication: 1, DuplicateWindow: 24 * time.Hour, Retention: 24 * time.Hour}
	specs := append(topology.Specs(), topology.NodeSpec("n1"))
	if err := consumers.EnsureTopics(t.Context(), s.client, specs...); err != nil {
		t.Fatal(err)
	}
	if s.pub, err = consumers.NewPublisher(s.client, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.pub.Close)
	if s.adm, err = s.client.Admin(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.adm.Close)
	s.watch(specs)
	s.heartbeat(1)
	return s
}

// watch keeps every record of the topics that dispatch writes.
func (s *setup) watch(specs []consumers.TopicSpec) {
	reader, err := consumers.NewReader(s.client)
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- reader.Run(ctx) }()
	s.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			s.t.Error(err)
		}
		reader.Close()
	})
	for _, spec := range specs {
		for p := range spec.Partitions {
			_, err := reader.Follow(ctx, spec.Name, p, consumers.FromStart, func(recs []*kgo.Record) {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.records[spec.Name] = append(s.records[spec.Name], recs...)
			})
			if err != nil {
				s.t.Fatal(err)
			}
		}
	}
}

// of are the records of a topic, without the marks of owners.
func (s *setup) of(topic string) []*kgo.Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(s.records[topic]), func(rec *kgo.Record) bool { return string(rec.Key) == consumers.OwnerMark })
}

func (s *setup) publish(rec *kgo.Record, m proto.Message) {
	s.t.Helper()
	if m != nil {
		value, err := proto.Marshal(m)
		if err != nil {
			s.t.Fatal(err)
		}
		rec.Value = value
	}
	if err := s.pub.PublishSync(s.t.Context(), rec); err != nil {
		s.t.Fatal(err)
	}
}

func (s *setup) heartbeat(incarnation uint64) {
	s.publish(&kgo.Record{Topic: consumers.TopicNodes, Key: []byte("n1")},
		&whisperv1.Node{Node: "n1", Incarnation: incarnation, HeartbeatMs: time.Hour.Milliseconds()})
}

func (s *setup) connect(user, session string, incarnation uint64) {
	s.publish(
		&kgo.Record{Topic: consumers.TopicPresence, Partition: consumers.PartitionOf(user, partitions), Key: []byte(user + "\x00n1")},
		&whisperv1.Presence{UserId: user, Node: "n1", Incarnation: incarnation, Sessions: 1, LatestSession: session, AtUs: time.Now().UnixMicro()},
	)
}

func (s *setup) event(topic, user, notification string, ev *whisperv1.Event) {
	id := domain.NewDeliveryID(time.UnixMilli(time.Now().UnixMilli()), domain.HashDelivery(notification, user))
	if ev.DeliveryId == nil {
		ev.DeliveryId = id[:]
	}
	ev.NotificationId, ev.UserId = notification, user
	rec, err := consumers.EventRecord(topic, consumers.PartitionOf(user, partitions), ev, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.pub.PublishSync(s.t.Context(), rec); err != nil {
		s.t.Fatal(err)
	}
}

func (s *setup) ask(lane domain.Lane, user, notification string, channels ...string) {
	s.t.Helper()
	if err := s.pub.PublishSync(s.t.Context(), s.delivery(lane, user, notification, channels...)); err != nil {
		s.t.Fatal(err)
	}
}

// delivery is what intake writes.
func (s *setup) delivery(lane domain.Lane, user, notification string, channels ...string) *kgo.Record {
	s.t.Helper()
	if len(channels) == 0 {
		channels = []string{domain.ChannelSocket, domain.ChannelPush}
	}
	now := time.Now()
	id := domain.NewDeliveryID(now, domain.HashDelivery(notification, user))
	rec, err := consumers.EventRecord(consumers.TopicDeliveries(lane), consumers.PartitionOf(user, partitions), &whisperv1.Event{
		DeliveryId: id[:], NotificationId: notification, UserId: user, Lane: lane.Proto(),
		Kind: &whisperv1.Event_DeliveryAccepted{DeliveryAccepted: &whisperv1.DeliveryAccepted{
			Category: "default", Channels: channels, Content: &whisperv1.Content{Title: "T", Body: "B"},
			AcceptedAtMs: now.UnixMilli(), ExpiresAtMs: now.Add(time.Hour).UnixMilli(),
			Request: &whisperv1.Position{Topic: "r", Offset: now.UnixNano()}, Recipients: 1,
		}},
	}, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return rec
}

// ack answers every route that there is as a gateway would whose client acknowledges.
func (s *setup) ack(routes []*kgo.Record) {
	for _, rec := range routes {
		r := &whisperv1.Route{}
		if err := proto.Unmarshal(rec.Value, r); err != nil {
			s.t.Fatal(err)
		}
		s.event(consumers.TopicEvents, string(rec.Key), r.GetNotificationId(), &whisperv1.Event{
			DeliveryId: r.GetDeliveryId(),
			Kind: &whisperv1.Event_DeliveryDelivered{DeliveryDelivered: &whisperv1.DeliveryDelivered{
				Attempt: r.GetAttempt(), Channel: domain.ChannelSocket, Node: "n1",
			}},
		})
	}
}

func (s *setup) start() (stop func()) {
	s.t.Helper()
	role, stop := s.run()
	s.eventually("dispatch is ready", func() bool { return role.Ready() == nil })
	return stop
}

func (s *setup) run() (role *dispatch.Role, stop func()) {
	s.t.Helper()
	role, err := dispatch.New(dispatch.Config{Client: s.client, Partitions: partitions, CommitInterval: 20 * time.Millisecond, Now: s.now})
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- role.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			s.t.Errorf("dispatch: %v", err)
		}
	})
	s.t.Cleanup(stop)
	return role, stop
}

func (s *setup) eventually(what string, ok func() bool) {
	s.t.Helper()
	deadline := time.After(3 * time.Minute)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			s.t.Fatalf("waited in vain: %s", what)
		case <-tick.C:
		}
	}
}

// lag is what dispatch has not committed of a topic.
func (s *setup) lag(topic string) (lag int64) {
	s.t.Helper()
	committed, err := s.adm.FetchOffsets(s.t.Context(), dispatch.Group)
	if err != nil {
		s.t.Fatal(err)
	}
	ends, err := s.adm.ListEndOffsets(s.t.Context(), topic)
	if err != nil {
		s.t.Fatal(err)
	}
	ends.Each(func(o kadm.ListedOffset) {
		at := int64(0)
		if c, ok := committed.Lookup(topic, o.Partition); ok {
			at = max(c.At, 0)
		}
		lag += o.Offset - at
	})
	return lag
}

func TestADeliveryGoesToTheSocketAndIsLetGoWhenAcknowledged(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	s.connect("mona", "s1", 1)
	s.start()
	for i := range 50 {
		s.ask(domain.High, "mona", fmt.Sprint("pay-", i))
	}
	s.eventually("50 routes", func() bool { return len(s.of(consumers.TopicNode("n1"))) == 50 })
	for i, rec := range s.of(consumers.TopicNode("n1")) {
		r := &whisperv1.Route{}
		if err := proto.Unmarshal(rec.Value, r); err != nil {
			t.Fatal(err)
		}
		if r.GetNotificationId() != fmt.Sprint("pay-", i) || rec.Partition != 0 || r.GetIncarnation() != 1 || r.GetAttempt() != 1 {
			t.Fatalf("route %d is %v on partition %d", i, r, rec.Partition)
		}
	}
	if lag := s.lag(consumers.TopicDeliveries(domain.High)); lag != 50 {
		t.Errorf("%d of 50 are held back before any acknowledgement", lag)
	}
	s.ack(s.of(consumers.TopicNode("n1")))
	s.eventually("everything is let go", func() bool { return s.lag(consumers.TopicDeliveries(domain.High)) == 0 })
}

func TestARestartGoesOnWhereTheFactsSay(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	s.connect("mona", "s1", 1)
	stop := s.start()
	for i := range 20 {
		s.ask(domain.Normal, "mona", fmt.Sprint("n-", i))
	}
	node := consumers.TopicNode("n1")
	s.eventually("20 routes", func() bool { return len(s.of(node)) == 20 })
	stop()
	s.ack(s.of(node)[1:]) // while dispatch is away; the first stays open

	s.start()
	s.eventually("only the first is sent again", func() bool { return len(s.of(node)) == 21 })
	again := &whisperv1.Route{}
	if err := proto.Unmarshal(s.of(node)[20].Value, again); err != nil || again.GetNotificationId() != "n-0" {
		t.Fatalf("sent again: %v %v", again, err)
	}
	s.ack(s.of(node)[20:])
	s.eventually("everything is let go", func() bool { return s.lag(consumers.TopicDeliveries(domain.Normal)) == 0 })
	if n := len(s.of(node)); n != 21 {
		t.Errorf("%d routes in all, want 21", n)
	}
}

func TestAnAwayUserIsParkedAndWokenByPresence(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	stop := s.start()
	for i := range 3 {
		s.ask(domain.High, "omar", fmt.Sprint("a-", i))
	}
	s.eventually("all are parked and let go", func() bool {
		return len(s.of(consumers.TopicTimers)) == 3 && s.lag(consumers.TopicDeliveries(domain.High)) == 0
	})
	// Asked again, by another request: told, not sent; also after a restart.
	stop()
	s.start()
	s.ask(domain.High, "omar", "a-0")
	s.eventually("the duplicate is told", func() bool {
		for _, rec := range s.of(consumers.TopicEvents) {
			if consumers.KindOfRecord(rec) == "duplicate_dropped" {
				return true
			}
		}
		return false
	})
	s.connect("omar", "s1", 1)
	node := consumers.TopicNode("n1")
	s.eventually("all three arrive", func() bool { return len(s.of(node)) == 3 })
	for i, rec := range s.of(node) {
		r := &whisperv1.Route{}
		if err := proto.Unmarshal(rec.Value, r); err != nil || r.GetNotificationId() != fmt.Sprint("a-", i) {
			t.Errorf("route %d: %v %v", i, r, err)
		}
	}
	s.ack(s.of(node))
	s.eventually("nothing is parked any more", func() bool {
		tombstones := 0
		for _, rec := range s.of(consumers.TopicTimers) {
			if rec.Value == nil {
				tombstones++
			}
		}
		return tombstones == 3
	})
}

func TestAUserWithAPhoneIsPushedTo(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	s.start()
	s.publish(&kgo.Record{
		Topic: consumers.TopicChanges, Partition: consumers.PartitionOf("nour", partitions), Key: []byte("nour"),
		Value: []byte(`{"endpoints":{"iphone":{"channel":"apns","token":"abc","app":"com.klivvr.app"}}}`),
	}, nil)
	s.eventually("the profile is kept", func() bool { return len(s.of(consumers.TopicUsers)) == 1 })
	s.ask(domain.Low, "nour", "p-1")
	topic := consumers.TopicPush("apns", domain.Low)
	s.eventually("a push", func() bool { return len(s.of(topic)) == 1 })
	push := &whisperv1.Push{}
	if err := proto.Unmarshal(s.of(topic)[0].Value, push); err != nil || push.GetToken() != "abc" || push.GetContent().GetBody() != "B" {
		t.Fatalf("push: %v %v", push, err)
	}
	s.event(consumers.TopicEvents, "nour", "p-1", &whisperv1.Event{
		DeliveryId: push.GetDeliveryId(),
		Kind:       &whisperv1.Event_DeliverySent{DeliverySent: &whisperv1.DeliverySent{Attempt: 1, Channel: "apns", Endpoint: "iphone"}},
	})
	s.eventually("it is let go", func() bool { return s.lag(consumers.TopicDeliveries(domain.Low)) == 0 })
}

func TestARecordThatIsNoDeliveryIsADeadLetterAndTheLaneGoesOn(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	s.connect("mona", "s1", 1)
	s.start()
	s.publish(&kgo.Record{Topic: consumers.TopicDeliveries(domain.High), Partition: consumers.PartitionOf("mona", partitions), Value: []byte{0xff, 1}}, nil)
	s.ask(domain.High, "mona", "after")
	s.eventually("the next one arrives", func() bool { return len(s.of(consumers.TopicNode("n1"))) == 1 })
	s.eventually("a dead letter", func() bool { return len(s.of(consumers.TopicDeadLetters)) == 1 })
}

// TestATraceThatIsNotTextStopsNothing: headers are bytes, and a parked delivery keeps its trace as text.
func TestATraceThatIsNotTextStopsNothing(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	s.start()
	now := time.Now()
	id := domain.NewDeliveryID(now, domain.HashDelivery("odd", "mona"))
	rec, err := consumers.EventRecord(consumers.TopicDeliveries(domain.High), consumers.PartitionOf("mona", partitions), &whisperv1.Event{
		DeliveryId: id[:], NotificationId: "odd", UserId: "mona",
		Kind: &whisperv1.Event_DeliveryAccepted{DeliveryAccepted: &whisperv1.DeliveryAccepted{
			Channels: []string{domain.ChannelSocket}, Content: &whisperv1.Content{Body: "B"},
			AcceptedAtMs: now.UnixMilli(), ExpiresAtMs: now.Add(time.Hour).UnixMilli(), Request: &whisperv1.Position{Topic: "r", Offset: 1},
		}},
	}, []kgo.RecordHeader{
		{Key: "traceparent", Value: []byte("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")},
		{Key: "tracestate", Value: []byte("vendor=\xff\xfe")},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.pub.PublishSync(t.Context(), rec); err != nil {
		t.Fatal(err)
	}
	s.eventually("it is parked", func() bool { return len(s.of(consumers.TopicTimers)) == 1 })
}

// TestALateTombstoneOfAnEarlierStartIsPassedOver: the gateway's header tells whose it is.
func TestALateTombstoneOfAnEarlierStartIsPassedOver(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	s.heartbeat(2)
	s.connect("mona", "s1", 2)
	s.publish(&kgo.Record{
		Topic: consumers.TopicPresence, Partition: consumers.PartitionOf("mona", partitions), Key: []byte("mona\x00n1"),
		Headers: []kgo.RecordHeader{{Key: "incarnation", Value: []byte("1")}},
	}, nil)
	s.start()
	s.ask(domain.High, "mona", "x")
	s.eventually("it is routed", func() bool { return len(s.of(consumers.TopicNode("n1"))) == 1 })
	s.eventually("the later start's presence to be the last record again", func() bool {
		all := s.of(consumers.TopicPresence)
		last := all[len(all)-1]
		return len(all) == 3 && string(last.Key) == "mona\x00n1" && len(last.Value) > 0 && string(last.Headers[0].Value) == "2"
	})
}

func TestTwoProcessesShareThePartitions(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	stop := s.start()
	s.start()
	node := consumers.TopicNode("n1")
	users := make([]string, 40)
	for i := range users {
		users[i] = fmt.Sprint("u", i)
		s.connect(users[i], "s", 1)
	}
	for _, user := range users {
		s.ask(domain.High, user, "x")
	}
	s.eventually("everyone is routed", func() bool { return len(s.of(node)) >= len(users) })
	stop() // its partitions move in the middle of what is in flight
	s.ack(s.of(node))
	s.eventually("everything is let go", func() bool { return s.lag(consumers.TopicDeliveries(domain.High)) == 0 })
}

// TestAPartitionThatGoesWhileItIsRestoredCanComeBack: what it followed so far is let go with it.
func TestAPartitionThatGoesWhileItIsRestoredCanComeBack(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	s.connect("mona", "s1", 1)
	for p := range int32(partitions) { // the changelogs have something to read
		s.publish(&kgo.Record{Topic: consumers.TopicUsers, Partition: p, Key: []byte("u")}, &whisperv1.Profile{})
	}
	var stuck atomic.Bool
	stuck.Store(true)
	s.cluster.ControlKey(int16(kmsg.ListOffsets), func(req kmsg.Request) (kmsg.Response, error, bool) {
		s.cluster.KeepControl()
		asked := req.(*kmsg.ListOffsetsRequest)
		if !stuck.Load() || len(asked.Topics) == 0 || asked.Topics[0].Topic != consumers.TopicTimers {
			return nil, nil, false
		}
		resp := req.ResponseKind().(*kmsg.ListOffsetsResponse)
		st := kmsg.NewListOffsetsResponseTopic()
		st.Topic = consumers.TopicTimers
		for _, p := range asked.Topics[0].Partitions {
			sp := kmsg.NewListOffsetsResponseTopicPartition()
			sp.Partition, sp.ErrorCode = p.Partition, kerr.CoordinatorNotAvailable.Code
			st.Partitions = append(st.Partitions, sp)
		}
		resp.Topics = append(resp.Topics, st)
		return resp, nil, true
	})
	owners := func() map[string]int {
		described, err := s.adm.DescribeGroups(t.Context(), dispatch.Group)
		if err != nil {
			t.Fatal(err)
		}
		owned := map[string]int{}
		for _, m := range described[dispatch.Group].Members {
			if a, ok := m.Assigned.AsConsumer(); ok {
				for _, topic := range a.Topics {
					owned[m.MemberID] += len(topic.Partitions)
				}
			}
		}
		return owned
	}
	first, _ := s.run()
	s.eventually("all are assigned", func() bool { o := owners(); return len(o) == 1 && total(o) == partitions })
	_, stopSecond := s.run()
	s.eventually("half of them move", func() bool {
		o := owners()
		for _, n := range o {
			if n != partitions/2 {
				return false
			}
		}
		return len(o) == 2
	})
	stopSecond()
	s.eventually("they come back", func() bool { o := owners(); return len(o) == 1 && total(o) == partitions })
	stuck.Store(false)
	s.eventually("everything is restored", func() bool { return first.Ready() == nil })
	for i := range 20 {
		s.ask(domain.High, fmt.Sprint("u", i), "x")
	}
	s.eventually("all partitions decide", func() bool { return len(s.of(consumers.TopicTimers)) == 20 })
}

func total(owned map[string]int) (n int) {
	for _, k := range owned {
		n += k
	}
	return n
}

// route decodes a record of a node's topic.
func (s *setup) route(rec *kgo.Record) *whisperv1.Route {
	r := &whisperv1.Route{}
	if err := proto.Unmarshal(rec.Value, r); err != nil {
		s.t.Fatal(err)
	}
	return r
}

// TestAnAlertPassesABacklog: 10,000 low deliveries are on their way to the same user's partition when a high
// one comes. It is routed before most of them; the records' times, which dispatch's producer gave them,
// tell the order across the lanes' partitions.
func TestAnAlertPassesABacklog(t *testing.T) {
	t.Parallel()
	const backlog = 10_000 // some ten times what is on its way to Kafka before the alert is there
	s := newSetup(t)
	s.connect("mona", "s1", 1)
	recs := make([]*kgo.Record, backlog)
	for i := range recs {
		recs[i] = s.delivery(domain.Low, "mona", fmt.Sprint("low-", i))
	}
	if err := s.pub.PublishSync(t.Context(), recs...); err != nil {
		t.Fatal(err)
	}
	node := consumers.TopicNode("n1")
	s.run()
	s.eventually("the backlog is being worked on", func() bool { return len(s.of(node)) > 0 })
	s.ask(domain.High, "mona", "alert")
	var first [3][]*kgo.Record // attempts, by lane
	looked := 0
	s.eventually("everything is routed", func() bool {
		all := s.of(node)
		for _, rec := range all[looked:] {
			if s.route(rec).GetAttempt() == 1 {
				first[rec.Partition] = append(first[rec.Partition], rec)
			}
		}
		looked = len(all)
		return len(first[domain.High]) == 1 && len(first[domain.Low]) == backlog
	})
	alert, before := first[domain.High][0], 0
	for i, rec := range first[domain.Low] {
		if rec.Timestamp.Before(alert.Timestamp) {
			before++
		}
		if got := s.route(rec).GetNotificationId(); got != fmt.Sprint("low-", i) {
			t.Fatalf("route %d of the low lane is %s", i, got)
		}
	}
	if before == backlog {
		t.Error("the alert came after the whole backlog")
	}
	t.Logf("%d of %d were routed before the alert", before, backlog)
}

// TestAPartitionThatMovesInTheMiddleLosesNothing: deliveries are in flight, some acknowledged, when another
// process joins and takes half of the partitions over. What was acknowledged before is not routed again,
// what was not is, and in the end everything is let go.
func TestAPartitionThatMovesInTheMiddleLosesNothing(t *testing.T) {
	t.Parallel()
	const total = 400
	s := newSetup(t)
	var recs []*kgo.Record
	for i := range total {
		user := fmt.Sprint("u", i%20)
		if i < 20 {
			s.connect(user, "s", 1)
		}
		recs = append(recs, s.delivery(domain.Normal, user, fmt.Sprint("n-", i)))
	}
	s.start()
	if err := s.pub.PublishSync(t.Context(), recs...); err != nil {
		t.Fatal(err)
	}
	node := consumers.TopicNode("n1")
	s.eventually("all are routed", func() bool { return len(s.of(node)) == total })
	acked := map[string]bool{}
	var early []*kgo.Record
	for i, rec := range s.of(node) {
		if i%3 != 0 {
			early = append(early, rec)
			acked[s.route(rec).GetNotificationId()] = true
		}
	}
	s.ack(early) // in the log from here on, though dispatch may not have read all of it
	s.start()
	open := total - len(acked)
	s.eventually("what moved and is open is routed again", func() bool { return len(s.of(node)) > total })
	s.eventually("everything is let go once it is acknowledged", func() bool {
		s.ack(s.of(node))
		return s.lag(consumers.TopicDeliveries(domain.Normal)) == 0
	})
	again := map[string]int{}
	for _, rec := range s.of(node)[total:] {
		id := s.route(rec).GetNotificationId()
		if again[id]++; acked[id] {
			t.Errorf("%s was acknowledged and is routed again", id)
		}
	}
	if len(again) > open {
		t.Errorf("%d routed again, %d were open", len(again), open)
	}
}

// TestAWaitingDeliveryHearsThatItsTemplateIsGone: nothing but a hole stands where it was, so no record can say so. The
// end of a transaction leaves such a hole; compaction does as well.
func TestAWaitingDeliveryHearsThatItsTemplateIsGone(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	s.start()
	s.connect("mona", "s1", 1)
	accept := func(notification, template string, version int64) {
		rec := s.delivery(domain.High, "mona", notification, domain.ChannelSocket)
		ev := &whisperv1.Event{}
		if err := proto.Unmarshal(rec.Value, ev); err != nil {
			t.Fatal(err)
		}
		ev.GetDeliveryAccepted().Template, ev.GetDeliveryAccepted().TemplateVersion = template, version
		s.publish(rec, ev)
	}
	accept("lost", "card@1", 1)
	accept("on-its-way", "card@2", 0)
	tx, err := kgo.NewClient(kgo.SeedBrokers(s.client.Brokers...), kgo.TransactionalID("x"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tx.Close)
	if err := tx.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	value := []byte(`{"default_locale":"en","locales":{"en":{"body":"Hello"}}}`)
	if err := tx.ProduceSync(t.Context(), &kgo.Record{Topic: consumers.TopicTemplates, Key: []byte("card@2"), Value: value}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if err := tx.EndTransaction(t.Context(), kgo.TryCommit); err != nil { // its marker is at offset 1
		t.Fatal(err)
	}
	s.eventually("the one that came is routed", func() bool { return len(s.of(consumers.TopicNode("n1"))) == 1 })
	s.eventually("the one that can't come failed", func() bool {
		for _, rec := range s.of(consumers.TopicEvents) {
			ev := &whisperv1.Event{}
			if proto.Unmarshal(rec.Value, ev) == nil && ev.GetNotificationId() == "lost" && ev.GetDeliveryFailed() != nil {
				if got := ev.GetDeliveryFailed().GetReason(); got != "template card@1 is gone" {
					t.Errorf("reason is %s", got)
				}
				return true
			}
		}
		return false
	})
}
