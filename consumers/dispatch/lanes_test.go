package dispatch_test

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
)

// holdLow has Kafka answer nothing that is written to the low lane of node n1 until letGo. held is closed once something is.
func (s *setup) holdLow() (held <-chan struct{}, letGo func()) {
	node := consumers.TopicNode("n1")
	id := s.cluster.TopicInfo(node).TopicID
	first, over := make(chan struct{}), make(chan struct{})
	begins, letGo := sync.OnceFunc(func() { close(first) }), sync.OnceFunc(func() { close(over) })
	s.t.Cleanup(letGo)
	s.cluster.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		s.cluster.KeepControl()
		if slices.ContainsFunc(req.(*kmsg.ProduceRequest).Topics, func(t kmsg.ProduceRequestTopic) bool {
			return (t.Topic == node || t.TopicID == id) &&
				slices.ContainsFunc(t.Partitions, func(p kmsg.ProduceRequestTopicPartition) bool { return p.Partition == int32(domain.Low) })
		}) {
			begins()
			s.cluster.SleepControl(func() { <-over })
		}
		return nil, nil, false
	})
	return first, letGo
}

// An alert reaches its node and its push role while Kafka answers nothing of what less urgent lanes hand over, and
// nothing that comes over the same connection, as a broker does that throttles a client.
func TestAlertsAreHandedOverWhileOtherLanesAreHeld(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	node := consumers.TopicNode("n1")
	held, letGo := s.holdLow()
	s.connect("mona", "s1", 1)
	s.start()
	s.ask(domain.Low, "mona", "news")
	<-held
	s.ask(domain.High, "mona", "pay")
	lanes := func() (lanes []int32) {
		for _, rec := range s.of(node) {
			lanes = append(lanes, rec.Partition)
		}
		return lanes
	}
	s.eventually("the alert is with its node", func() bool { return slices.Contains(lanes(), int32(domain.High)) })
	if got := lanes(); slices.Contains(got, int32(domain.Low)) {
		t.Errorf("the node has lanes %v, low is held", got)
	}
	letGo()
	s.eventually("both are there", func() bool { return len(lanes()) == 2 })
}

// A backlog of one lane holds up the fetches of the others for no longer than a small answer takes.
func TestLanesAreFetchedInSmallPieces(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	high := consumers.TopicDeliveries(domain.High)
	id := s.cluster.TopicInfo(high).TopicID
	var pieces atomic.Bool
	s.cluster.ControlKey(int16(kmsg.Fetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
		for _, topic := range req.(*kmsg.FetchRequest).Topics {
			for _, p := range topic.Partitions {
				if (topic.Topic == high || topic.TopicID == id) && p.PartitionMaxBytes <= 128<<10 {
					pieces.Store(true)
				}
			}
		}
		return nil, nil, false
	})
	s.start()
	s.eventually("the lanes are fetched in pieces of 128 KiB", pieces.Load)
}
