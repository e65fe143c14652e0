package dispatch

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/decide"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// alone is a partition that has restored nothing, with a Kafka that takes nothing.
func alone(t testing.TB) *partition {
	t.Helper()
	nobody := consumers.ClientConfig{Brokers: []string{"127.0.0.1:1"}}
	publisher := func(linger time.Duration) *consumers.Publisher {
		to, err := consumers.NewPublisher(nobody, linger)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(to.Close)
		return to
	}
	log := slog.New(slog.DiscardHandler)
	cfg := Config{Client: nobody, Logger: log}
	cfg.setDefaults()
	p := newPartition(&Role{
		cfg: cfg, log: log, urgent: publisher(0), direct: publisher(0), bulk: publisher(consumers.LingerBulk),
		metrics: newRoleMetrics(), notices: newNotices(log), poison: newPoison(), pace: newPace(0),
	}, 0)
	p.resumed = true
	return p
}

// TestLessUrgentLanesLeaveRoomForAlerts: while Kafka takes nothing, the buffer of what is decided fills up.
// The last of it is for alerts.
func TestLessUrgentLanesLeaveRoomForAlerts(t *testing.T) {
	t.Parallel()
	p := alone(t)
	direct := p.role.direct

	offset := int64(-1)
	arrive := func() {
		offset++
		for _, lane := range domain.Lanes {
			id := domain.NewDeliveryID(time.Now(), domain.HashDelivery(string(rune('a'+offset)), "mona"))
			rec := &kgo.Record{Topic: consumers.TopicDeliveries(lane), Offset: offset}
			p.mail.put(t.Context(), queueHigh+int(lane), []item{{rec: rec, input: decide.CancelArrived{
				Event:  &whisperv1.Event{DeliveryId: id[:], NotificationId: "n", Lane: lane.Proto()},
				Source: decide.LaneOffset{Lane: lane, Offset: offset},
			}}})
		}
		for range 3 * len(domain.Lanes) { // a round serves one lane
			p.work()
		}
	}
	fill := func(upTo float64) {
		for direct.Free() > 1-upTo {
			direct.Publish(context.Background(), &kgo.Record{Topic: "anywhere"}, nil)
		}
	}
	for _, c := range []struct {
		full float64
		next [3]int64 // one past what each lane has taken
	}{
		{0, [3]int64{1, 1, 1}},
		{0.55, [3]int64{2, 2, 1}},
		{0.8, [3]int64{3, 2, 1}},
	} {
		fill(c.full)
		arrive()
		for lane, want := range c.next {
			if got := p.ledgers[lane].next; got != want {
				t.Errorf("%.0f%% full: the %s lane stands at %d, want %d", 100*c.full, domain.Lane(lane), got, want)
			}
		}
		if waits := p.idle() <= roomIn; waits != (c.full > 0) {
			t.Errorf("%.0f%% full: idle for %s", 100*c.full, p.idle())
		}
	}
}
