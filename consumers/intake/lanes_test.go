package intake

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
)

var low, normal = consumers.TopicRequests(domain.Low), consumers.TopicRequests(domain.Normal)

// holdProduce keeps the broker from answering what is written to a topic, and whatever comes over the same connection,
// as a broker does that throttles a client. held is closed when there is something.
func holdProduce(t *testing.T, cluster *kfake.Cluster, topic string) (held <-chan struct{}, letGo func()) {
	t.Helper()
	there, over := make(chan struct{}), make(chan struct{})
	first, letGo := sync.OnceFunc(func() { close(there) }), sync.OnceFunc(func() { close(over) })
	t.Cleanup(letGo)
	id := cluster.TopicInfo(topic).TopicID
	cluster.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		if slices.ContainsFunc(req.(*kmsg.ProduceRequest).Topics, func(t kmsg.ProduceRequestTopic) bool { return t.Topic == topic || t.TopicID == id }) {
			first()
			cluster.SleepControl(func() { <-over })
		}
		return nil, nil, false
	})
	return there, letGo
}

// list is a request to n users, each of whose deliveries has so many bytes and some.
func list(users, bytes int) string {
	names := make([]string, users)
	for i := range names {
		names[i] = fmt.Sprintf(`"listed-%d"`, i)
	}
	return fmt.Sprintf(`{"to":{"users":[%s]},"content":{"body":"b","data":{"x":%q}}}`, strings.Join(names, ","), strings.Repeat("x", bytes))
}

// What is more urgent goes through while Kafka takes nothing of the low lane, a list of thousands waits there, and more
// lists than there are processors wait behind it.
func TestAlertsGoThroughWhileTheLowLaneIsHeld(t *testing.T) {
	t.Parallel()
	b := setup(t)
	held, letGo := holdProduce(t, b.cluster, consumers.TopicDeliveries(domain.Low))
	role, _ := b.start(b.config())
	const users, bytes = 5_000, 7_000
	for p := range int32(partitions) {
		rec := requestRecord(list(users, bytes))
		rec.Topic, rec.Partition = low, p
		b.publish(rec)
	}
	<-held
	out := role.outlets.lanes[domain.Low]
	b.eventually("the lists have all the room they get", func() bool {
		return !out.Room(64 << 10)
	})
	if free := out.Publisher.Free(); free < 0.9 {
		t.Errorf("lists have filled the producer's buffer: %.2f of it is free", free)
	}
	for _, topic := range []string{normal, high} {
		rec := requestRecord(oneUser("mona"))
		rec.Topic = topic
		b.publish(rec)
		lane, err := consumers.LaneOfTopic(topic)
		if err != nil {
			t.Fatal(err)
		}
		if events := b.events(consumers.TopicDeliveries(lane), 1); events["mona"] == nil {
			t.Errorf("%s: %v", topic, events)
		}
	}
	b.publish(&kgo.Record{Topic: consumers.TopicProfiles, Key: []byte("mona"), Value: []byte(`{"locale":"ar"}`)})
	b.read(consumers.TopicChanges, 1)
	if n := b.committed(low); n > 0 {
		t.Errorf("%d lists are committed, and not written", n)
	}
	letGo()
	b.read(consumers.TopicDeliveries(domain.Low), partitions*users)
	b.eventually("the lists are committed", func() bool { return b.committed(low) == partitions })
}

// A broker throttles by the client id: that of alerts is not the one that the others are known by.
func TestAlertsHaveAClientIDOfTheirOwn(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.start(b.config())
	adm, err := b.client.Admin()
	if err != nil {
		t.Fatal(err)
	}
	defer adm.Close()
	groups, err := adm.DescribeGroups(t.Context(), Group)
	if err != nil {
		t.Fatal(err)
	}
	topics := map[string][]string{}
	for _, m := range groups[Group].Members {
		assigned, _ := m.Assigned.AsConsumer()
		for _, topic := range assigned.Topics {
			topics[m.ClientID] = append(topics[m.ClientID], topic.Topic)
		}
	}
	if got := topics["intake-test-high"]; len(got) != 1 || got[0] != high {
		t.Errorf("the consumer of alerts has %v", got)
	}
	if got := topics["intake-test"]; len(got) != 5 || slices.Contains(got, high) {
		t.Errorf("the consumer of the rest has %v", got)
	}
}
