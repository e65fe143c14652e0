package dispatch_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/decide"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// TestAPhoneChangesHands between users of different partitions, over restarts, and back; an erased owner's claim goes.
func TestAPhoneChangesHands(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	alice, bob := "alice", "bob"
	for i := 0; consumers.PartitionOf(bob, partitions) == consumers.PartitionOf(alice, partitions); i++ {
		bob = fmt.Sprint("bob-", i)
	}
	stop := s.start()
	s.registerPhone(alice, "iphone", "phone-1")
	s.eventually("alice's claim", func() bool { return s.owner("phone-1") == alice })
	stop()
	s.registerPhone(bob, "mobile", "phone-1") // while nobody runs
	stop = s.start()
	s.eventually("alice's endpoint moves", func() bool { return s.owner("phone-1") == bob && !s.hasPhone(alice) })
	s.pushes(bob, "pay-1", alice)
	stop()

	// Both partitions are restored: by the logs the phone is still bob's.
	stop = s.start()
	s.pushes(bob, "pay-2", alice)
	s.registerPhone(alice, "iphone", "phone-1") // and back
	s.eventually("bob's endpoint moves", func() bool { return s.owner("phone-1") == alice && !s.hasPhone(bob) })
	s.pushes(alice, "pay-3", bob)

	s.publish(&kgo.Record{Topic: consumers.TopicChanges, Partition: consumers.PartitionOf(alice, partitions), Key: []byte(alice)}, nil)
	s.eventually("the claim of an erased user goes", func() bool { return s.owner("phone-1") == "" })
	s.eventually("the erased user has a tombstone", func() bool {
		var last *kgo.Record
		for _, rec := range s.of(consumers.TopicUsers) {
			if string(rec.Key) == alice {
				last = rec
			}
		}
		return last != nil && last.Value == nil
	})
	stop()
}

// TestAClaimThatCantBeRead stops nothing.
func TestAClaimThatCantBeRead(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	put := func(key, value string) {
		for p := range int32(partitions) {
			rec := &kgo.Record{Topic: consumers.TopicTokens, Partition: p, Key: []byte(key), Value: []byte(value)}
			if err := s.pub.PublishSync(t.Context(), rec); err != nil {
				t.Fatal(err)
			}
		}
	}
	token := decide.HashToken("apns", "phone-1")
	put("short", "")
	put(string(token[:]), "\xff\xff")
	put(string(token[:]), "")
	stop := s.start()
	put(string(token[:]), "\x0a\x01\x00")
	rec := &kgo.Record{
		Topic: consumers.TopicChanges, Partition: consumers.PartitionOf("mona", partitions), Key: []byte("mona"), Value: []byte(`{}`),
		Headers: []kgo.RecordHeader{{Key: "moved", Value: []byte("yesterday")}},
	}
	if err := s.pub.PublishSync(t.Context(), rec); err != nil {
		t.Fatal(err)
	}
	for _, topic := range []string{consumers.TopicChanges, consumers.TopicTokens} {
		s.eventually("a dead letter from "+topic, func() bool {
			return slices.ContainsFunc(s.of(consumers.TopicDeadLetters), func(rec *kgo.Record) bool {
				return slices.ContainsFunc(rec.Headers, func(h kgo.RecordHeader) bool { return h.Key == "topic" && string(h.Value) == topic })
			})
		})
	}
	s.registerPhone("mona", "iphone", "phone-1")
	s.pushes("mona", "pay", "omar")
	stop()
}

// TestClaimsOfAnOwnerWhoLostThePartition change nothing, wherever they come from: the user's partition or the token's. The log
// ends with what stands.
func TestClaimsOfAnOwnerWhoLostThePartition(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	token := decide.HashToken("apns", "phone-1")
	part := consumers.PartitionOf(string(token[:]), partitions)
	late := func(claim *whisperv1.TokenClaim, headers ...kgo.RecordHeader) {
		value, err := proto.Marshal(claim)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.pub.PublishSync(t.Context(), &kgo.Record{Topic: consumers.TopicTokens, Partition: part, Key: token[:], Value: value, Headers: headers}); err != nil {
			t.Fatal(err)
		}
	}
	stop := s.start()
	s.registerPhone("mona", "iphone", "phone-1")
	s.eventually("the claim", func() bool { return s.owner("phone-1") == "mona" })
	by := binary.BigEndian.AppendUint32(nil, uint32(consumers.PartitionOf("mona", partitions)))
	// Epoch 0.0 is before any owner's: what it claims is later than what stands, and counts nevertheless as nothing.
	for name, header := range map[string]kgo.RecordHeader{
		"of the user's partition":  {Key: "claimant", Value: binary.BigEndian.AppendUint64(by, 0)},
		"of the token's partition": {Key: consumers.HeaderOwner, Value: make([]byte, 8)},
	} {
		if header.Key == consumers.HeaderOwner {
			stop() // of a greater owner, then
			stop = s.start()
			s.registerPhone("omar", "ipad", "other")
			s.eventually("the next owner decides", func() bool { return s.owner("other") == "omar" })
			header.Value[7] = 1
		}
		before := len(s.of(consumers.TopicTokens))
		late(&whisperv1.TokenClaim{UserId: "zombie", Endpoint: "phone", AtMs: time.Now().Add(time.Hour).UnixMilli()}, header)
		s.eventually("what stands is written behind one "+name, func() bool {
			return len(s.of(consumers.TopicTokens)) > before+1 && s.owner("phone-1") == "mona"
		})
		if !s.hasPhone("mona") {
			t.Errorf("a late claim %s takes the phone", name)
		}
	}
	stop()
}

func (s *setup) registerPhone(user, endpoint, token string) {
	s.t.Helper()
	rec := &kgo.Record{
		Topic: consumers.TopicChanges, Partition: consumers.PartitionOf(user, partitions), Key: []byte(user),
		Value: fmt.Appendf(nil, `{"endpoints":{%q:{"channel":"apns","token":%q,"app":"a"}}}`, endpoint, token),
		// A later registration has a later time, also within this millisecond.
		Timestamp: time.Now().Add(time.Duration(len(s.of(consumers.TopicTokens))) * time.Millisecond),
	}
	if err := s.pub.PublishSync(s.t.Context(), rec); err != nil {
		s.t.Fatal(err)
	}
}

// owner is whose the log of claims says that a token is.
func (s *setup) owner(token string) (user string) {
	hash := decide.HashToken("apns", token)
	for _, rec := range s.of(consumers.TopicTokens) {
		c := &whisperv1.TokenClaim{}
		if bytes.Equal(rec.Key, hash[:]) && proto.Unmarshal(rec.Value, c) == nil {
			user = c.GetUserId()
		}
	}
	return user
}

func (s *setup) hasPhone(user string) (has bool) {
	for _, rec := range s.of(consumers.TopicUsers) {
		p := &whisperv1.Profile{}
		if string(rec.Key) == user && proto.Unmarshal(rec.Value, p) == nil {
			has = len(p.GetEndpoints()) > 0
		}
	}
	return has
}

// pushes: of two users who are sent a notification, one is pushed to; the other has no phone.
func (s *setup) pushes(to, notification, not string) {
	s.t.Helper()
	for _, user := range []string{not, to} {
		s.eventually("a phone's owner is pushed to", func() bool { // the profile may be on its way
			if s.pushed(notification, to) {
				return true
			}
			s.ask(domain.High, user, notification, domain.ChannelPush)
			return user == not || s.pushed(notification, to)
		})
	}
	if s.pushed(notification, not) {
		s.t.Errorf("%s is pushed to %s, whose phone it is no more", notification, not)
	}
}

func (s *setup) pushed(notification, user string) bool {
	return slices.ContainsFunc(s.of(consumers.TopicPush(domain.ChannelAPNs, domain.High)), func(rec *kgo.Record) bool {
		p := &whisperv1.Push{}
		return proto.Unmarshal(rec.Value, p) == nil && p.GetNotificationId() == notification && p.GetUserId() == user
	})
}
