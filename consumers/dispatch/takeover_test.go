package dispatch_test

import (
	"cmp"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// last is the last record of a key.
func (s *setup) last(topic, key string) (rec *kgo.Record) {
	for _, r := range s.of(topic) {
		if string(r.Key) == key {
			rec = r
		}
	}
	return rec
}

func (s *setup) patch(user, profile string) {
	s.t.Helper()
	rec := &kgo.Record{Topic: consumers.TopicChanges, Partition: consumers.PartitionOf(user, partitions), Key: []byte(user)}
	if profile != "" {
		rec.Value = []byte(profile)
	}
	s.publish(rec, nil)
}

// stray writes what an owner that is no more would have written of the key: the record that was there before.
func (s *setup) stray(rec *kgo.Record) {
	s.t.Helper()
	late := *rec
	late.Offset, late.Timestamp = 0, time.Time{}
	s.publish(&late, nil)
}

func (s *setup) parkedOf(user, note string) *kgo.Record {
	for _, rec := range s.of(consumers.TopicTimers) {
		id := domain.DeliveryID(rec.Key)
		if id.Hash() == domain.HashDelivery(note, user) {
			return rec
		}
	}
	return nil
}

// A process that was stopped wakes up when another one has taken over: what it writes then changes nothing that a
// partition is restored from, for the owner that runs and for the one after it.
func TestWhatAnEarlierOwnerWritesIsWrittenOver(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	stop := s.start()
	s.patch("mona", `{"locale":"ar","endpoints":{"phone":{"channel":"apns","token":"t"}}}`)
	s.patch("omar", `{"locale":"ar"}`)
	s.ask(domain.High, "sara", "pay", "socket")
	s.eventually("the first owner has written", func() bool {
		return s.last(consumers.TopicUsers, "mona") != nil && s.last(consumers.TopicUsers, "omar") != nil && s.parkedOf("sara", "pay") != nil
	})
	mona, omar, sara := s.last(consumers.TopicUsers, "mona"), s.last(consumers.TopicUsers, "omar"), s.parkedOf("sara", "pay")
	first := consumers.EpochOf(mona)
	if first == consumers.NoEpoch || consumers.EpochOf(sara) == consumers.NoEpoch {
		t.Fatal("a record of a changelog has no owner")
	}
	stop()

	stop = s.start()
	s.patch("mona", "") // erased
	s.patch("omar", `{"locale":"en"}`)
	s.connect("sara", "s1", 1)
	s.eventually("sara is sent to", func() bool { return len(s.of(consumers.TopicNode("n1"))) == 1 })
	s.ack(s.of(consumers.TopicNode("n1")))
	gone := func(topic, key string) bool { r := s.last(topic, key); return r != nil && r.Value == nil }
	english := func() bool {
		p := &whisperv1.Profile{}
		return s.decode(s.last(consumers.TopicUsers, "omar"), p) && p.GetLocale() == "en"
	}
	s.eventually("the second owner has written", func() bool {
		return gone(consumers.TopicUsers, "mona") && english() && gone(consumers.TopicTimers, string(sara.Key))
	})

	for _, rec := range []*kgo.Record{mona, omar, sara} {
		s.stray(rec)
	}
	defer func() {
		if t.Failed() {
			for _, topic := range []string{consumers.TopicUsers, consumers.TopicTimers} {
				for _, r := range s.of(topic) {
					t.Logf("%s/%d@%d %q %s nil=%t", topic, r.Partition, r.Offset, r.Key, consumers.EpochOf(r), r.Value == nil)
				}
			}
		}
	}()
	s.eventually("the owner has written over what came late", func() bool {
		return gone(consumers.TopicUsers, "mona") && english() && gone(consumers.TopicTimers, string(sara.Key)) &&
			len(s.of(consumers.TopicUsers)) > 6
	})
	for _, key := range []string{"mona", "omar"} {
		if epoch := consumers.EpochOf(s.last(consumers.TopicUsers, key)); epoch <= first {
			t.Errorf("%s was written by the owner %s, the first was %s", key, epoch, first)
		}
	}
	stop()

	for _, rec := range []*kgo.Record{mona, omar, sara} { // nobody is there to see these
		s.stray(rec)
	}
	s.start()
	s.eventually("the next owner has written over what came before it", func() bool {
		return gone(consumers.TopicUsers, "mona") && english() && gone(consumers.TopicTimers, string(sara.Key))
	})
	s.ask(domain.High, "mona", "hello", "apns")
	s.eventually("mona is forgotten", func() bool { return s.reasonOf("mona", "hello") == domain.ReasonUnknownUser })
}

// decode reads a record; false: there is none, or a tombstone.
func (s *setup) decode(rec *kgo.Record, m *whisperv1.Profile) bool {
	s.t.Helper()
	if rec == nil || rec.Value == nil {
		return false
	}
	return proto.Unmarshal(rec.Value, m) == nil
}

func (s *setup) reasonOf(user, note string) string {
	for _, rec := range s.of(consumers.TopicEvents) {
		ev := &whisperv1.Event{}
		if proto.Unmarshal(rec.Value, ev) != nil || ev.GetUserId() != user || ev.GetNotificationId() != note {
			continue
		}
		if reason := cmp.Or(ev.GetDeliverySuppressed().GetReason(), ev.GetDeliveryFailed().GetReason()); reason != "" {
			return reason
		}
	}
	return ""
}

// A stopped process that wakes up may still tell that a delivery came to its end. It is not its to say.
func TestFactsOfAnEarlierOwnerEndNothing(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	stop := s.start()
	s.ask(domain.High, "mona", "pay", "socket")
	s.eventually("it waits", func() bool { return s.parkedOf("mona", "pay") != nil })
	parked := s.parkedOf("mona", "pay")
	stop()
	role, _ := s.run()
	s.eventually("the second owner is ready", func() bool { return role.Ready() == nil })
	rec, err := consumers.EventRecord(consumers.TopicEvents, consumers.PartitionOf("mona", partitions), &whisperv1.Event{
		DeliveryId: parked.Key, NotificationId: "pay", UserId: "mona", AtUs: time.Now().UnixMicro(), Lane: domain.High.Proto(),
		Kind: &whisperv1.Event_DeliverySuppressed{DeliverySuppressed: &whisperv1.DeliverySuppressed{Reason: domain.ReasonQuietHours}},
	}, []kgo.RecordHeader{consumers.EpochOf(parked).Header()})
	if err != nil {
		t.Fatal(err)
	}
	s.publish(rec, nil)
	for i := range 3 { // it is read before what follows it
		s.event(consumers.TopicEvents, "mona", fmt.Sprint("other", i), &whisperv1.Event{Kind: &whisperv1.Event_DeliveryRead{DeliveryRead: &whisperv1.DeliveryRead{}}})
	}
	s.eventually("the fact is read", func() bool { return s.lag(consumers.TopicEvents) == 0 })
	s.connect("mona", "s1", 1)
	s.eventually("it is sent all the same", func() bool { return len(s.of(consumers.TopicNode("n1"))) == 1 })
}

// Facts tell who decided them only where that matters: at the end of a delivery.
func TestEndsNameTheirOwner(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	s.start()
	s.ask(domain.High, "mona", "pay", "apns")
	s.eventually("it is suppressed", func() bool { return s.reasonOf("mona", "pay") != "" })
	for _, rec := range s.of(consumers.TopicEvents) {
		if consumers.KindOfRecord(rec) == "delivery_suppressed" && consumers.EpochOf(rec) == consumers.NoEpoch {
			t.Error("the end does not name its owner")
		}
	}
}

// An intake that was stopped writes the patches that it held when its successor has written them, and later ones.
func TestARepeatedPatchUndoesNothing(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	stop := s.start()
	patch := func(topic byte, offset int64, profile string) {
		source := consumers.Source{Topic: [16]byte{topic}, Partition: 2, Offset: offset}
		rec := &kgo.Record{Topic: consumers.TopicChanges, Partition: consumers.PartitionOf("mona", partitions), Key: []byte("mona"), Headers: []kgo.RecordHeader{source.Header()}}
		if profile != "" {
			rec.Value = []byte(profile)
		}
		s.publish(rec, nil)
	}
	locale := func(want string) func() bool {
		return func() bool {
			p := &whisperv1.Profile{}
			return s.decode(s.last(consumers.TopicUsers, "mona"), p) && p.GetLocale() == want && s.lag(consumers.TopicChanges) == 0
		}
	}
	patch(1, 5, `{"locale":"ar"}`)
	patch(1, 6, `{"locale":"en"}`)
	patch(1, 5, `{"locale":"ar"}`)
	s.eventually("the later one stays", locale("en"))
	stop()
	stop = s.start()
	patch(1, 6, `{"locale":"fr"}`)
	s.eventually("it is read", func() bool { return s.lag(consumers.TopicChanges) == 0 })
	s.eventually("the later one stays over a restart", locale("en"))
	patch(1, 7, "")
	patch(1, 6, `{"locale":"en"}`)
	s.eventually("nobody comes back who was erased", func() bool {
		last := s.last(consumers.TopicUsers, "mona")
		return last != nil && last.Value == nil && s.lag(consumers.TopicChanges) == 0
	})
	patch(2, 0, `{"locale":"de"}`)
	s.eventually("a topic that was made anew counts anew", locale("de"))
	stop()
}

// A parked delivery that no decision can be made about stops its partition once. It is ended, kept as a dead letter, and
// the partition's others go on; so they do for the next owner.
func TestAParkedDeliveryThatMeetsABugIsEnded(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	stop := s.start()
	s.ask(domain.High, "sara", "bad", "socket")
	s.ask(domain.High, "sara", "good", "socket")
	s.eventually("both are parked", func() bool { return s.parkedOf("sara", "bad") != nil && s.parkedOf("sara", "good") != nil })
	stop()
	rec := s.parkedOf("sara", "bad")
	parked := &whisperv1.Parked{}
	if err := proto.Unmarshal(rec.Value, parked); err != nil {
		t.Fatal(err)
	}
	parked.Step, parked.Attempt, parked.Phase, parked.DueMs = -5, 1, whisperv1.Phase_PHASE_BACKOFF, 1 // as no version writes it
	value, err := proto.Marshal(parked)
	if err != nil {
		t.Fatal(err)
	}
	s.publish(&kgo.Record{Topic: consumers.TopicTimers, Partition: rec.Partition, Key: rec.Key, Headers: rec.Headers, Value: value}, nil)

	stop = s.start()
	s.eventually("the broken one is ended", func() bool { return s.reasonOf("sara", "bad") == domain.ReasonInternal })
	s.eventually("it is a dead letter", func() bool {
		for _, dead := range s.of(consumers.TopicDeadLetters) {
			if string(dead.Key) == string(rec.Key) {
				return true
			}
		}
		return false
	})
	s.connect("sara", "s1", 1)
	s.eventually("the other one is sent", func() bool { return len(s.of(consumers.TopicNode("n1"))) == 1 })
	s.ack(s.of(consumers.TopicNode("n1")))
	gone := func(topic, key string) bool { r := s.last(topic, key); return r != nil && r.Value == nil }
	s.eventually("nothing is parked", func() bool {
		return gone(consumers.TopicTimers, string(rec.Key)) && gone(consumers.TopicTimers, string(s.parkedOf("sara", "good").Key))
	})
	stop()
}
