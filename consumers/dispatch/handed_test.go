package dispatch

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/decide"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// What a gateway tells of an alert is told to the pace: how long it took by the node's clock, since dispatch handed it over. What it
// tells of other lanes is not.
func TestThePaceHearsOfAlertsFromGateways(t *testing.T) {
	t.Parallel()
	p := alone(t)
	p.replaying = false
	now := time.UnixMilli(1_800_000_000_000)
	p.role.cfg.Now = func() time.Time { return now }
	p.mail.tell(
		decide.NodeChanged{Node: "n1", Incarnation: 1},
		decide.PresenceChanged{User: "mona", Node: "n1", Presence: &whisperv1.Presence{UserId: "mona", Node: "n1", Incarnation: 1, Sessions: 1, LatestSession: "s1"}},
	)
	p.work()
	ask := func(lane domain.Lane, notification string) domain.DeliveryID {
		id := domain.NewDeliveryID(now, domain.HashDelivery(notification, "mona"))
		rec := &kgo.Record{Topic: consumers.TopicDeliveries(lane), Timestamp: now}
		p.mail.put(t.Context(), queueHigh+int(lane), []item{{rec: rec, input: decide.DeliveryArrived{
			Event: &whisperv1.Event{
				DeliveryId: id[:], NotificationId: notification, UserId: "mona", Lane: lane.Proto(),
				Kind: &whisperv1.Event_DeliveryAccepted{DeliveryAccepted: &whisperv1.DeliveryAccepted{
					Category: "default", Channels: []string{domain.ChannelSocket}, Content: &whisperv1.Content{Title: "T"},
					AcceptedAtMs: now.UnixMilli(), ExpiresAtMs: now.Add(time.Hour).UnixMilli(), Request: &whisperv1.Position{Topic: "r"},
				}},
			},
			Source: decide.LaneOffset{Lane: lane},
		}}})
		for p.work() {
		}
		return id
	}
	tell := func(lane domain.Lane, f domain.AttemptFact) {
		facts := &domain.AttemptFacts{Notification: "n", Lane: lane, Attempt: 1, Node: "n1"}
		facts.Prepare()
		f.User = "mona"
		value, _ := facts.Encode(f)
		fd := feed{part: p, queue: queueEvents}
		p.mail.put(t.Context(), queueEvents, []item{fd.decodeFact(&kgo.Record{Topic: consumers.TopicEvents, Value: value})})
		for p.work() {
		}
	}
	alert, news := ask(domain.High, "alert"), ask(domain.Low, "news")
	pace := p.role.pace
	if !pace.handed.Equal(now) || !pace.gateways.nodes["n1"].pending.Equal(now) {
		t.Fatalf("it does not know that a gateway has an alert: %s, %+v", pace.handed, pace.gateways.nodes)
	}
	const skew = -time.Hour // of the node's clock
	sent := now.Add(skew + 7*time.Millisecond).UnixMicro()
	now = now.Add(80 * time.Millisecond)
	tell(domain.Low, domain.AttemptFact{ID: news, AtUS: 1})
	if n := pace.gateways.nodes["n1"]; n.pending.IsZero() || n.least[0] != 0 {
		t.Fatalf("what is told of the low lane counts: %+v", n)
	}
	tell(domain.High, domain.AttemptFact{ID: alert, AtUS: now.UnixMicro(), Delivered: true, SentAtUS: sent, LatencyUS: 1})
	if n := pace.gateways.nodes["n1"]; !n.pending.IsZero() || n.least[0] != skew+7*time.Millisecond || n.n != 1 {
		t.Errorf("it was told %+v", n)
	}
}
