package dispatch_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// usersOf are n users of partition 0 who have a phone, as whisper.users keeps them.
func (s *setup) usersOf(n int) (users []string) {
	s.t.Helper()
	var recs []*kgo.Record
	for i := 0; len(users) < n; i++ {
		user := fmt.Sprint("u", i)
		if consumers.PartitionOf(user, partitions) != 0 {
			continue
		}
		users = append(users, user)
		value, err := proto.Marshal(&whisperv1.Profile{Endpoints: []*whisperv1.Endpoint{{Name: "iphone", Channel: "apns", Token: "t-" + user, App: "a"}}})
		if err != nil {
			s.t.Fatal(err)
		}
		recs = append(recs, &kgo.Record{Topic: consumers.TopicUsers, Key: []byte(user), Value: value})
	}
	if err := s.pub.PublishSync(s.t.Context(), recs...); err != nil {
		s.t.Fatal(err)
	}
	return users
}

// remembered is the window's record of a broadcast.
func (s *setup) remembered(note string, at time.Time) {
	s.t.Helper()
	hash := domain.HashDelivery(note, "")
	s.publish(&kgo.Record{Topic: consumers.TopicSeen, Key: []byte{0}}, &whisperv1.Seen{
		Hashes: hash[:], Requests: []uint64{1}, AcceptedMs: []uint64{uint64(at.UnixMilli())},
	})
}

// pushTaken is the fact that a provider took a push.
func (s *setup) pushTaken(user, note string, at time.Time) *kgo.Record {
	s.t.Helper()
	id := domain.NewDeliveryID(at, domain.HashDelivery(note, user))
	rec, err := consumers.EventRecord(consumers.TopicEvents, 0, &whisperv1.Event{
		DeliveryId: id[:], NotificationId: note, UserId: user, Lane: whisperv1.Lane_LANE_LOW, AtUs: at.UnixMicro(),
		Kind: &whisperv1.Event_DeliverySent{DeliverySent: &whisperv1.DeliverySent{Attempt: 1, Channel: "apns", Provider: "apns", Endpoint: "iphone", ProviderId: "0123456789abcdef", LatencyUs: 1}},
	}, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return rec
}

// retract is what intake writes to partition 0.
func (s *setup) retract(note string) {
	s.t.Helper()
	rec, err := consumers.EventRecord(consumers.TopicDeliveries(domain.Low), 0, &whisperv1.Event{
		NotificationId: note, Lane: whisperv1.Lane_LANE_LOW, AtUs: time.Now().UnixMicro(),
		Kind: &whisperv1.Event_RetractRequested{RetractRequested: &whisperv1.RetractRequested{Request: &whisperv1.Position{Topic: "r", Offset: time.Now().UnixNano()}}},
	}, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.pub.PublishSync(s.t.Context(), rec); err != nil {
		s.t.Fatal(err)
	}
}

// silent counts the silent pushes, by user and token.
func (s *setup) silent(note string) map[string]int {
	s.t.Helper()
	users := map[string]int{}
	for _, rec := range s.of(consumers.TopicPush("apns", domain.Low)) {
		p := &whisperv1.Push{}
		if err := proto.Unmarshal(rec.Value, p); err != nil {
			s.t.Fatal(err)
		}
		if p.GetNotificationId() != note {
			continue
		}
		if !p.GetRetract() || p.GetToken() != "t-"+p.GetUserId() || p.GetContent() != nil || p.GetAttempt() != 1 {
			s.t.Errorf("got %v", p)
		}
		users[p.GetUserId()]++
	}
	return users
}

// marked says whether the log keeps that a notification's facts were read back.
func (s *setup) marked(note string) (marked bool) {
	s.t.Helper()
	for _, rec := range s.of(consumers.TopicTimers) {
		p := &whisperv1.Parked{}
		if err := proto.Unmarshal(rec.Value, p); err != nil {
			s.t.Fatal(err)
		}
		if p.GetRetraction().GetNotificationId() == note {
			marked = p.GetRetraction().GetRecalled()
		}
	}
	return marked
}

func TestARetractionIsReadBack(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	users := s.usersOf(300)
	at := time.Now().Add(-time.Minute)
	s.remembered("news", at)
	var recs []*kgo.Record
	for i, user := range users {
		if i%2 == 0 {
			recs = append(recs, s.pushTaken(user, "news", at))
		}
		recs = append(recs, s.pushTaken(user, "other", at))
	}
	if err := s.pub.PublishSync(t.Context(), recs...); err != nil {
		t.Fatal(err)
	}
	stop := s.start()
	s.retract("news")
	s.retract("nobody's")
	s.eventually("those who were pushed to are told", func() bool { return len(s.silent("news")) == len(users)/2 })
	s.eventually("that is noted", func() bool { return s.marked("news") && s.marked("nobody's") })
	s.eventually("everything is let go", func() bool { return s.lag(consumers.TopicDeliveries(domain.Low)) == 0 })
	// A push that was in flight is taken now.
	if err := s.pub.PublishSync(t.Context(), s.pushTaken(users[1], "news", at)); err != nil {
		t.Fatal(err)
	}
	s.eventually("it is taken back", func() bool { return s.silent("news")[users[1]] == 1 })
	s.eventually("its fact is let go", func() bool { return s.lag(consumers.TopicEvents) == 0 })
	stop()
	s.start() // with the mark there is nothing to read
	s.ask(domain.Low, users[2], "after", domain.ChannelPush)
	topic := consumers.TopicPush("apns", domain.Low)
	s.eventually("it works on", func() bool { return len(s.of(topic)) == len(users)/2+2 })
	for user, n := range s.silent("news") {
		if n != 1 {
			t.Errorf("%s is told %d times", user, n)
		}
	}
	if n := len(s.silent("other")) + len(s.silent("nobody's")); n != 0 {
		t.Errorf("%d are told of what was not taken back", n)
	}
}

// TestARestartResumesAReadingBack: the broker gives the first megabyte and no more; dispatch is stopped, which
// must not take long, and the next one reads from the beginning.
func TestARestartResumesAReadingBack(t *testing.T) {
	t.Parallel()
	const others = 16_000 // some 2 MB
	s := newSetup(t)
	users := s.usersOf(400)
	at := time.Now().Add(-time.Minute)
	s.remembered("news", at)
	early, late := users[:200], users[200:]
	var recs []*kgo.Record
	for _, user := range early {
		recs = append(recs, s.pushTaken(user, "news", at))
	}
	for i := range others {
		recs = append(recs, s.pushTaken(users[i%400], fmt.Sprint("other-", i), at))
	}
	for _, user := range late {
		recs = append(recs, s.pushTaken(user, "news", at))
	}
	if err := s.pub.PublishSync(t.Context(), recs...); err != nil {
		t.Fatal(err)
	}
	topics, err := s.adm.ListTopics(t.Context(), consumers.TopicEvents)
	if err != nil {
		t.Fatal(err)
	}
	events := topics[consumers.TopicEvents].ID
	stop := s.start()
	s.eventually("the facts are seen", func() bool { return s.lag(consumers.TopicEvents) == 0 })
	var stuck atomic.Bool
	stuck.Store(true)
	s.cluster.ControlKey(int16(kmsg.Fetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
		s.cluster.KeepControl()
		return holdFetch(req.(*kmsg.FetchRequest), stuck.Load(), events, int64(len(recs)))
	})
	s.retract("news")
	s.eventually("the first are told", func() bool { return len(s.silent("news")) == len(early) })
	begin := time.Now()
	stop()
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("the stop took %s", took)
	}
	if s.marked("news") {
		t.Error("it counts as read")
	}
	stuck.Store(false)
	s.start()
	s.eventually("all are told", func() bool { return len(s.silent("news")) == len(users) })
	s.eventually("that is noted", func() bool { return s.marked("news") })
}

// holdFetch refuses to give what is in the middle of the partition's facts, up to their end.
func holdFetch(req *kmsg.FetchRequest, hold bool, events kadm.TopicID, end int64) (kmsg.Response, error, bool) {
	for _, t := range req.Topics {
		if t.Topic != consumers.TopicEvents && t.TopicID != events {
			continue
		}
		for _, p := range t.Partitions {
			if !hold || p.Partition != 0 || p.FetchOffset == 0 || p.FetchOffset >= end {
				continue
			}
			resp := req.ResponseKind().(*kmsg.FetchResponse)
			rt := kmsg.NewFetchResponseTopic()
			rt.Topic, rt.TopicID = t.Topic, t.TopicID
			rp := kmsg.NewFetchResponseTopicPartition()
			rp.Partition, rp.ErrorCode = p.Partition, kerr.NotLeaderForPartition.Code
			rt.Partitions = append(rt.Partitions, rp)
			resp.Topics = append(resp.Topics, rt)
			return resp, nil, true
		}
	}
	return nil, nil, false
}

// TestRecordsThatRetentionTookAreCounted: of whom nothing is left nobody can be told, and that is not silent.
func TestRecordsThatRetentionTookAreCounted(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	users := s.usersOf(4)
	at := time.Now().Add(-time.Minute)
	s.remembered("news", at)
	for _, user := range users {
		if err := s.pub.PublishSync(t.Context(), s.pushTaken(user, "news", at)); err != nil {
			t.Fatal(err)
		}
	}
	s.start()
	s.eventually("the facts are let go", func() bool { return s.lag(consumers.TopicEvents) == 0 })
	var before kadm.Offsets
	before.Add(kadm.Offset{Topic: consumers.TopicEvents, Partition: 0, At: 3})
	if _, err := s.adm.DeleteRecords(t.Context(), before); err != nil {
		t.Fatal(err)
	}
	lost := metrics.GetOrCreateCounter(`whisper_dispatch_recalls_truncated_total`)
	was := lost.Get()
	s.retract("news")
	s.eventually("it is counted", func() bool { return lost.Get() == was+1 })
	s.eventually("the rest is told", func() bool { return s.silent("news")[users[3]] == 1 })
	s.eventually("that is noted", func() bool { return s.marked("news") })
	if n := len(s.silent("news")); n != 1 {
		t.Errorf("%d are told", n)
	}
}
