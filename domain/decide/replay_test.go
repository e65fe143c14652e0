package decide

import (
	"testing"
	"time"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/profile"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// TestAReplayKnowsTheNewestUseOfAnID and keeps what it knows.
func TestAReplayKnowsTheNewestUseOfAnID(t *testing.T) {
	t.Parallel()
	hash := domain.HashDelivery("pay", "mona")
	first, second := domain.NewDeliveryID(noon, hash), domain.NewDeliveryID(noon.Add(time.Hour), hash)
	sent := func(id domain.DeliveryID, channel string, attempt int32) *whisperv1.Event {
		return &whisperv1.Event{DeliveryId: id[:], NotificationId: "pay", UserId: "mona", AtUs: 7, Kind: &whisperv1.Event_DeliverySent{
			DeliverySent: &whisperv1.DeliverySent{Channel: channel, Attempt: attempt},
		}}
	}
	p := replay{}
	p.keep(hash, sent(first, domain.ChannelSocket, 2))
	p.keep(hash, sent(first, domain.ChannelSocket, 1))
	if r := p[hash]; r.attempt != 2 || !r.socketSent || r.sentUS != 7 || r.settled || r.waits() {
		t.Fatalf("%+v", r)
	}
	p.keep(hash, sent(second, domain.ChannelAPNs, 1))
	p.keep(hash, sent(first, domain.ChannelSocket, 3)) // late, and of the earlier one
	if r := p[hash]; r.attempt != 1 || r.socketSent || !r.settled || r.ended || r.pushed != profile.ChannelBit(domain.ChannelAPNs) ||
		!r.at.Equal(second.Time()) {
		t.Fatalf("%+v", r)
	}
	p.keep(hash, &whisperv1.Event{
		DeliveryId: second[:],
		Kind:       &whisperv1.Event_DuplicateDropped{DuplicateDropped: &whisperv1.DuplicateDropped{}},
	})
	p.keep(hash, &whisperv1.Event{
		DeliveryId: second[:], NotificationId: "pay", UserId: "mona",
		Kind: &whisperv1.Event_DeliveryDeferred{DeliveryDeferred: &whisperv1.DeliveryDeferred{}},
	})
	if r := p[hash]; !r.settled || r.user != "mona" {
		t.Fatalf("%+v", r)
	}
	var over replay
	over.keep(hash, sent(first, domain.ChannelSocket, 1)) // nothing is kept
}
