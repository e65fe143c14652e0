package consumers

import (
	"slices"
	"strings"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/domain"
)

// The topics whose names do not depend on a lane, a channel or a node.
const (
	TopicProfiles    = "whisper.profiles"
	TopicTemplates   = "whisper.templates"
	TopicCategories  = "whisper.categories"
	TopicCounters    = "whisper.counters"
	TopicChanges     = "whisper.changes"
	TopicUsers       = "whisper.users"
	TopicTokens      = "whisper.tokens"
	TopicPresence    = "whisper.presence"
	TopicNodes       = "whisper.nodes"
	TopicTimers      = "whisper.timers"
	TopicSeen        = "whisper.seen"
	TopicEvents      = "whisper.events"
	TopicRevocations = "whisper.revocations"
	TopicDeadLetters = "whisper.deadletters"
)

// Changelogs are the topics that dispatch's partitions are restored from and that their owner writes (to TopicTokens
// others write, too).
func Changelogs() []string {
	return []string{TopicUsers, TopicSeen, TopicCounters, TopicTimers, TopicTokens}
}

// IsState says whether a topic is state that Whisper's own roles keep: what stood there once must not be put back behind
// what stands there now.
func IsState(topic string) bool {
	return topic == TopicPresence || topic == TopicNodes || slices.Contains(Changelogs(), topic)
}

const requestsPrefix, deliveriesPrefix = "whisper.requests.", "whisper.deliveries."

// TopicRequests is where upstream asks, a lane each.
func TopicRequests(l domain.Lane) string { return requestsPrefix + l.String() }

// TopicDeliveries is where intake hands deliveries to dispatch, a lane each.
func TopicDeliveries(l domain.Lane) string { return deliveriesPrefix + l.String() }

// TopicPush is where dispatch hands attempts to a channel's push role, a lane each.
func TopicPush(channel string, l domain.Lane) string {
	return "whisper.push." + channel + "." + l.String()
}

// TopicNode is where dispatch hands frames to one gateway; its partition is the lane.
func TopicNode(node string) string { return "whisper.node." + node }

// GroupNode is under which group a gateway commits how far it is in its topic.
func GroupNode(node string) string { return "whisper-node-" + node }

// LaneOfTopic reads the lane off a requests, deliveries or push topic.
func LaneOfTopic(topic string) (domain.Lane, error) {
	return domain.ParseLane(topic[strings.LastIndexByte(topic, '.')+1:])
}

// PartitionOf is the partition of a user in every topic that is keyed by user id. It is Kafka's own
// default (murmur2), so that a Kafka Streams job or librdkafka with murmur2_random agrees; all
// records of one user are in one partition as long as the number of partitions stays.
func PartitionOf(user string, partitions int32) int32 {
	rec := keyed.Get().(*kgo.Record)
	rec.Key = append(rec.Key[:0], user...)
	partition := int32(userPartitioner.Partition(rec, int(partitions)))
	keyed.Put(rec)
	return partition
}

// keyed are records that hold a key for the partitioner, which looks at nothing else: a new one for each fact would be a
// fifth of what a gateway allocates.
var keyed = sync.Pool{New: func() any { return &kgo.Record{Key: make([]byte, 0, 64)} }} // nil would be no key

// The key decides alone, so one partitioner serves every topic and every goroutine.
var userPartitioner = kgo.StickyKeyPartitioner(nil).ForTopic("")
