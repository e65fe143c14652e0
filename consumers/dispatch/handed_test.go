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
	now := time.UnixMilli(1_800_000_000_000)
	p := withMona(t, func() time.Time { return now })
	tell := func(lane domain.Lane, f domain.AttemptFact) {
		p.mail.put(t.Context(), queueEvents, []item{p.told(lane, f)})
		for p.work() {
		}
	}
	alert, news := p.asked(t, domain.High, "alert"), p.asked(t, domain.Low, "news")
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

// withMona is alone, with mona connected.
func withMona(t testing.TB, now func() time.Time) *partition {
	p := alone(t)
	p.replaying = false
	p.role.cfg.Now = now
	p.mail.tell(
		decide.NodeChanged{Node: "n1", Incarnation: 1},
		decide.PresenceChanged{User: "mona", Node: "n1", Presence: &whisperv1.Presence{
			UserId: "mona", Node: "n1", Incarnation: 1, Sessions: 1, LatestSession: "s1",
		}},
	)
	p.work()
	return p
}

// asked has a delivery arrive for mona.
func (p *partition) asked(t testing.TB, lane domain.Lane, notification string) domain.DeliveryID {
	now := p.role.cfg.Now()
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

// told is a gateway's fact about mona's delivery.
func (p *partition) told(lane domain.Lane, f domain.AttemptFact) item {
	facts := &domain.AttemptFacts{Notification: "n", Lane: lane, Attempt: 1, Node: "n1"}
	facts.Prepare()
	f.User = "mona"
	value, _ := facts.Encode(f)
	fd := feed{part: p, queue: queueEvents}
	return fd.decodeFact(&kgo.Record{Topic: consumers.TopicEvents, Value: value})
}

// BenchmarkHanded is what the pace's third signal costs, beside reading the fact: of an alert, and of anything else.
func BenchmarkHanded(b *testing.B) {
	now := time.UnixMilli(1_800_000_000_000)
	p := withMona(b, func() time.Time { return now })
	for _, lane := range []domain.Lane{domain.High, domain.Low} {
		in := p.told(lane, domain.AttemptFact{ID: p.asked(b, lane, lane.String()), AtUS: now.UnixMicro()}).input
		b.Run(lane.String(), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				p.handed(in, now)
			}
		})
	}
}
