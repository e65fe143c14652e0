package decide

import (
	"testing"
	"time"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/category"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// TestAskingWhenItWasHandedOverTakesNoFlightUp: gateways tell of each delivery of a broadcast of the high lane, and each is asked about.
func TestAskingWhenItWasHandedOverTakesNoFlightUp(t *testing.T) {
	t.Parallel()
	now := time.UnixMilli(1_700_000_000_000)
	s := NewState(0, DefaultPolicy())
	s.ReplayDone()
	s.begin(now)
	id := domain.NewDeliveryID(now, domain.HashDelivery("cast", ""))
	w := newWalk(s.users, &whisperv1.Event{
		DeliveryId: id[:], NotificationId: "cast", Lane: whisperv1.Lane_LANE_HIGH,
		Kind: &whisperv1.Event_BroadcastAccepted{BroadcastAccepted: &whisperv1.BroadcastAccepted{Partitions: 1, Accepted: &whisperv1.DeliveryAccepted{
			Channels: []string{domain.ChannelSocket}, ExpiresAtMs: now.Add(time.Hour).UnixMilli(),
		}}},
	}, Trace{}, LaneOffset{Lane: domain.High})
	s.broadcasts.add(w)
	w.at = "mona"
	s.fly(w, s.openSlice(w), "mona", w.idOf("mona").Hash(), place{node: "n1", incarnation: 1}, &sharedText{}, &category.Category{})
	if _, nodes := s.Handed(w.idOf("mona"), firstAttempt); nodes != 0 || len(s.deliveries.flights.at) != 1 {
		t.Errorf("to %d nodes; %d flights are left", nodes, len(s.deliveries.flights.at))
	}
}
