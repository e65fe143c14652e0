package decide

import (
	"time"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/profile"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// replay is what facts told of deliveries that were in flight when the partition was let go, by the delivery's hash: each is
// handed out again, or a broadcast comes to its user again, and goes on from there. nil: the replay is over, and keeps
// nothing. Its invariants:
//
//   - Of an id that was used twice, it knows the later delivery only: what is in flight is that one.
//   - What it tells only grows: an end stays an end, attempts are never fewer.
type replay map[domain.DeliveryHash]replayed

// replayed is what was told of a delivery before this State took it.
type replayed struct {
	attempt int32
	settled bool
	// Of one that goes out over several channels at once: nothing at all is left to do; an acknowledgement came over a
	// socket; providers of these channels took a push.
	ended, acked bool
	pushed       profile.ChannelMask
	note         string
	user         string
	at           time.Time // of the delivery id: whose the facts are, if the notification id was used twice
	// A socket took it at sentUS and has not acknowledged.
	socketSent bool
	sentUS     int64
}

// waits: it was put off, and nothing else is told of it.
func (r *replayed) waits() bool { return !r.settled && !r.socketSent && r.attempt == 0 }

// keep takes over what a fact tells of a delivery.
func (p replay) keep(hash domain.DeliveryHash, ev *whisperv1.Event) {
	if p == nil {
		return
	}
	id := domain.DeliveryID(ev.GetDeliveryId())
	r, known := p[hash]
	if ev.GetDeliveryRead() != nil && !domain.ProvenRead(ev) {
		if known && (r.socketSent || r.pushed != 0) && (id.Timeless() || r.at.Equal(id.Time())) {
			r.settled, r.ended = true, true
			p[hash] = r
		}
		return
	}
	if known && !r.at.Equal(id.Time()) {
		if id.Time().Before(r.at) {
			return
		}
		r = replayed{} // the id was used again; what is in flight is the later one
	}
	r.note, r.user, r.at = ev.GetNotificationId(), ev.GetUserId(), id.Time()
	switch k := ev.GetKind().(type) {
	case *whisperv1.Event_DeliverySent:
		r.attempt = max(r.attempt, k.DeliverySent.GetAttempt())
		if k.DeliverySent.GetChannel() == domain.ChannelSocket {
			r.socketSent, r.sentUS = true, max(r.sentUS, ev.GetAtUs())
		} else {
			r.settled = true
			r.pushed |= profile.ChannelBit(k.DeliverySent.GetChannel())
		}
	case *whisperv1.Event_AttemptFailed:
		r.attempt = max(r.attempt, k.AttemptFailed.GetAttempt())
	case *whisperv1.Event_DeliveryDelivered:
		r.settled, r.acked = true, true
	case *whisperv1.Event_DeliveryRead, *whisperv1.Event_DeliveryFailed,
		*whisperv1.Event_DeliverySuppressed, *whisperv1.Event_DeliveryExpired, *whisperv1.Event_DeliveryCancelled:
		r.settled, r.ended = true, true
	case *whisperv1.Event_DeliveryScheduled, *whisperv1.Event_DeliveryDeferred: // it was begun with
	case *whisperv1.Event_BroadcastProgressed:
		if k.BroadcastProgressed.GetStartedMs() == 0 {
			return
		}
	default: // duplicates change nothing
		return
	}
	p[hash] = r
}
