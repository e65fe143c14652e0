package dispatch_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// clock stands still unless it is moved.
type clock struct{ at atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.at.Store(time.Now().Add(time.Minute).UnixNano()) // after what is accepted meanwhile
	return c
}

func (c *clock) now() time.Time         { return time.Unix(0, c.at.Load()) }
func (c *clock) moves(by time.Duration) { c.at.Add(int64(by)) }

// crowd gives users a profile and a socket.
func (s *setup) crowd(users int) {
	s.t.Helper()
	records := make([]*kgo.Record, 0, users)
	for i := range users {
		user := fmt.Sprint("user-", i)
		records = append(records, &kgo.Record{
			Topic: consumers.TopicUsers, Partition: consumers.PartitionOf(user, partitions), Key: []byte(user), Value: []byte{},
		})
		presence, err := proto.Marshal(&whisperv1.Presence{
			UserId: user, Node: "n1", Incarnation: 1, Sessions: 1, LatestSession: "s1", AtUs: time.Now().UnixMicro(),
		})
		if err != nil {
			s.t.Fatal(err)
		}
		records = append(records, &kgo.Record{
			Topic: consumers.TopicPresence, Partition: consumers.PartitionOf(user, partitions), Key: []byte(user + "\x00n1"), Value: presence,
		})
	}
	if err := s.pub.PublishSync(s.t.Context(), records...); err != nil {
		s.t.Fatal(err)
	}
}

// broadcast asks for one to everyone.
func (s *setup) broadcast(lane domain.Lane, notification string) {
	s.t.Helper()
	now := time.Now()
	id := domain.NewDeliveryID(now, domain.HashDelivery(notification, ""))
	for p := range int32(partitions) {
		rec, err := consumers.EventRecord(consumers.TopicDeliveries(lane), p, &whisperv1.Event{
			DeliveryId: id[:], NotificationId: notification, Lane: lane.Proto(),
			Kind: &whisperv1.Event_BroadcastAccepted{BroadcastAccepted: &whisperv1.BroadcastAccepted{
				Partitions: partitions,
				Accepted: &whisperv1.DeliveryAccepted{
					Category: "default", Channels: []string{domain.ChannelSocket}, Content: &whisperv1.Content{Title: "T", Body: "B"},
					AcceptedAtMs: now.UnixMilli(), ExpiresAtMs: now.Add(time.Hour).UnixMilli(), Request: &whisperv1.Position{Topic: "r", Offset: now.UnixNano()},
				},
			}},
		}, nil)
		if err != nil {
			s.t.Fatal(err)
		}
		s.publish(rec, nil)
	}
}

// have are how many users the node was sent for, of a lane.
func (s *setup) have(lane domain.Lane) (users int) {
	for _, rec := range s.of(consumers.TopicNode("n1")) {
		if rec.Partition == int32(lane) {
			users += max(1, len(s.route(rec).GetUsers()))
		}
	}
	return users
}

// Where no alert flows a broadcast goes as fast as there is room for it. The clock stands still: any pace at all would end
// it after the first slices.
func TestABroadcastAloneHasNoPace(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	s.now = newClock().now
	const users = 2_000
	s.crowd(users)
	s.start()
	s.broadcast(domain.Low, "news")
	s.eventually("everyone has it", func() bool { return s.have(domain.Low) == users })
}

// An alert that comes in the middle of a broadcast passes it, gives it a pace, and both end.
func TestAlertsPassABroadcastAndPaceIt(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	now := newClock()
	s.now = now.now
	begun, letGo := s.holdLow()
	const users, alerts = 2_000, 20
	s.crowd(users)
	s.start()
	s.broadcast(domain.Low, "news")
	<-begun
	for i := range alerts {
		s.ask(domain.High, "user-0", fmt.Sprint("pay-", i))
	}
	s.eventually("the alerts are with the node", func() bool { return s.have(domain.High) == alerts })
	if n := s.have(domain.Low); n > 0 {
		t.Errorf("%d users have the broadcast, which is held", n)
	}
	letGo()
	s.ask(domain.High, "user-1", "pay")
	s.broadcast(domain.Low, "more news")
	s.eventually("everyone has both", func() bool {
		now.moves(5 * time.Millisecond)
		return s.have(domain.Low) == 2*users && s.have(domain.High) == alerts+1
	})
}
