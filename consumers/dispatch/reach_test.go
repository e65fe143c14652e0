package dispatch_test

import (
	"strings"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// register gives the user a phone.
func (s *setup) register(user string) {
	s.publish(&kgo.Record{
		Topic: consumers.TopicChanges, Partition: consumers.PartitionOf(user, partitions), Key: []byte(user),
		Value: []byte(`{"endpoints":{"phone":{"channel":"apns","token":"abcdef"}}}`),
	}, nil)
	s.eventually("the profile is kept", func() bool {
		for _, rec := range s.of(consumers.TopicUsers) {
			if string(rec.Key) == user {
				return true
			}
		}
		return false
	})
}

func (s *setup) facts(kind string) (events []*whisperv1.Event) {
	for _, rec := range s.of(consumers.TopicEvents) {
		if consumers.KindOfRecord(rec) == kind {
			ev := &whisperv1.Event{}
			if err := proto.Unmarshal(rec.Value, ev); err != nil {
				s.t.Fatal(err)
			}
			events = append(events, ev)
		}
	}
	return events
}

// A node lives and its topic is gone: what was on its way there bounces and goes over the next channel, and others
// don't notice.
func TestARouteToATopicThatIsGoneIsABounce(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	s.connect("mona", "s1", 1)
	s.start()
	s.register("mona")
	s.ask(domain.High, "mona", "before")
	node := consumers.TopicNode("n1")
	s.eventually("the node is routed to", func() bool { return len(s.of(node)) == 1 })
	if _, err := s.adm.DeleteTopics(t.Context(), node); err != nil {
		t.Fatal(err)
	}
	s.ask(domain.High, "mona", "after")
	push := consumers.TopicPush("apns", domain.High)
	s.eventually("it goes over the next channel", func() bool {
		for _, rec := range s.of(push) {
			p := &whisperv1.Push{}
			if proto.Unmarshal(rec.Value, p) == nil && p.GetNotificationId() == "after" {
				return true
			}
		}
		return false
	})
	bounced := s.facts("attempt_failed")
	if len(bounced) == 0 || bounced[0].GetAttemptFailed().GetClass() != whisperv1.FailureClass_FAILURE_CLASS_UNREACHABLE ||
		bounced[0].GetAttemptFailed().GetNode() != "n1" || bounced[0].GetNotificationId() != "after" {
		t.Errorf("the bounce: %v", bounced)
	}
}

// A channel's topic is gone: its attempts fail in a way that is worth another try, and the socket is used as ever.
func TestAPushTopicThatIsGoneHoldsUpNobody(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	s.start()
	s.register("omar")
	if _, err := s.adm.DeleteTopics(t.Context(), consumers.TopicPush("apns", domain.High)); err != nil {
		t.Fatal(err)
	}
	s.ask(domain.High, "omar", "push-me", domain.ChannelPush)
	s.eventually("it failed and is tried again", func() bool {
		for _, ev := range s.facts("attempt_failed") {
			if ev.GetAttemptFailed().GetClass() == whisperv1.FailureClass_FAILURE_CLASS_RETRY {
				return len(s.facts("delivery_deferred")) > 0
			}
		}
		return false
	})
	s.connect("mona", "s1", 1)
	s.ask(domain.High, "mona", "fine")
	s.eventually("others are served", func() bool { return len(s.of(consumers.TopicNode("n1"))) == 1 })
}

// A changelog's partition takes nothing: that partition stops and says why, the others go on, and it goes on when it
// is mended, with everything that came meanwhile.
func TestAPartitionWhoseLogTakesNothingStopsAlone(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	role, _ := s.run()
	s.eventually("dispatch is ready", func() bool { return role.Ready() == nil })
	bad, good := "mona", "omar"
	for consumers.PartitionOf(good, partitions) == consumers.PartitionOf(bad, partitions) {
		good += "x"
	}
	on := &atomic.Bool{}
	on.Store(true)
	s.refuseTimers(consumers.PartitionOf(bad, partitions), on)
	s.ask(domain.High, bad, "b-1")
	s.eventually("the partition is stopped", func() bool { return len(role.Stopped()) == 1 })
	told := role.Stopped()[0]
	if told.Partition != consumers.PartitionOf(bad, partitions) || !strings.Contains(told.Reason, consumers.TopicTimers) || !strings.Contains(told.Help, "max.message.bytes") {
		t.Errorf("stopped: %+v", told)
	}
	s.ask(domain.High, good, "g-1")
	s.ask(domain.High, bad, "b-2")
	s.eventually("the other partition goes on", func() bool { return len(s.parkedIDs()) == 1 })
	on.Store(false)
	s.eventually("it goes on by itself or when it is asked to", func() bool { role.Retry(); return len(s.parkedIDs()) == 3 })
	s.eventually("everything is let go", func() bool {
		return s.lag(consumers.TopicDeliveries(domain.High)) == 0 && role.Ready() == nil
	})
}

// parkedIDs are the notifications that are parked, each once.
func (s *setup) parkedIDs() map[string]bool {
	ids := map[string]bool{}
	for _, rec := range s.of(consumers.TopicTimers) {
		p := &whisperv1.Parked{}
		if rec.Value != nil && proto.Unmarshal(rec.Value, p) == nil {
			ids[p.GetAccepted().GetNotificationId()] = true
		}
	}
	return ids
}

// refuseTimers has the broker refuse what is written to one partition of whisper.timers while it is on; what comes in
// the same request is refused with it, as a broker may.
func (s *setup) refuseTimers(partition int32, on *atomic.Bool) {
	s.cluster.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		s.cluster.KeepControl()
		produce, ok := req.(*kmsg.ProduceRequest)
		if !ok || !on.Load() {
			return nil, nil, false
		}
		timers := s.cluster.TopicInfo(consumers.TopicTimers)
		hit := false
		resp := produce.ResponseKind().(*kmsg.ProduceResponse)
		for _, rt := range produce.Topics {
			st := kmsg.NewProduceResponseTopic()
			st.Topic, st.TopicID = rt.Topic, rt.TopicID
			for _, rp := range rt.Partitions {
				sp := kmsg.NewProduceResponseTopicPartition()
				sp.Partition, sp.ErrorCode = rp.Partition, kerr.NotLeaderForPartition.Code // tried again by the client
				if (rt.Topic == consumers.TopicTimers || timers != nil && timers.TopicID == rt.TopicID) && rp.Partition == partition {
					hit, sp.ErrorCode = true, kerr.MessageTooLarge.Code
				}
				st.Partitions = append(st.Partitions, sp)
			}
			resp.Topics = append(resp.Topics, st)
		}
		return resp, nil, hit
	})
}

// What somebody else wrote to a changelog ends no restore: it is kept as a dead letter, and everything else is there.
func TestJunkOnAChangelogIsPassedOver(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	partition := consumers.PartitionOf("omar", partitions)
	stop := s.start()
	s.ask(domain.High, "omar", "kept")
	s.eventually("it is parked and let go", func() bool {
		return s.parkedIDs()["kept"] && s.lag(consumers.TopicDeliveries(domain.High)) == 0
	})
	stop()
	junk := []string{consumers.TopicUsers, consumers.TopicSeen, consumers.TopicCounters, consumers.TopicTimers, consumers.TopicPresence}
	for _, topic := range junk {
		s.publish(&kgo.Record{Topic: topic, Partition: partition, Key: []byte("junk"), Value: []byte("\xff not a message")}, nil)
	}
	s.publish(&kgo.Record{Topic: consumers.TopicNodes, Key: []byte("junk"), Value: []byte("\xff not a message")}, nil)
	s.publish(&kgo.Record{Topic: consumers.TopicTemplates, Key: []byte("junk"), Value: []byte("\xff not a message")}, nil)
	s.publish(&kgo.Record{Topic: consumers.TopicCategories, Key: []byte("junk"), Value: []byte("\xff not a message")}, nil)
	s.start()
	s.eventually("each is a dead letter", func() bool { return len(s.of(consumers.TopicDeadLetters)) >= len(junk) })
	s.connect("omar", "s1", 1)
	s.eventually("what was parked goes on", func() bool { return len(s.of(consumers.TopicNode("n1"))) == 1 })
	s.ask(domain.High, "omar", "kept")
	s.eventually("the window is there", func() bool { return len(s.facts("duplicate_dropped")) == 1 })
}
