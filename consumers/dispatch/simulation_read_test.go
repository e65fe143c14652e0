package dispatch

import (
	"time"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

func unprovenRead(ev *whisperv1.Event) bool {
	return ev.GetDeliveryRead() != nil && !domain.ProvenRead(ev)
}

// mayHaveReached: after this fact the user may have had it, so that it may have been read.
func mayHaveReached(ev *whisperv1.Event) bool {
	return ev.GetDeliverySent() != nil || ev.GetAttemptFailed().GetClass() == whisperv1.FailureClass_FAILURE_CLASS_UNKNOWN
}

// makeUpRead is a gateway that passes on what a client says of an id that its session was never sent: without a receipt,
// with the right one or that of an earlier delivery.
func (w *world) makeUpRead(notification, user string, receipt int) {
	at := time.UnixMilli(0)
	for _, lane := range w.lanes {
		for _, ev := range lane {
			mine := ev.GetUserId() == user || ev.GetBroadcastAccepted() != nil
			if receipt == 0 || ev.GetNotificationId() != notification || !mine || len(ev.GetDeliveryId()) == 0 {
				continue
			}
			if at = domain.DeliveryID(ev.GetDeliveryId()).Time(); receipt == 2 {
				at = at.Add(-7 * 24 * time.Hour)
			}
		}
	}
	id := domain.NewDeliveryID(at, domain.HashDelivery(notification, user))
	w.events = append(w.events, &whisperv1.Event{
		DeliveryId: id[:], NotificationId: notification, UserId: user, AtUs: w.now.UnixMicro(),
		Kind: &whisperv1.Event_DeliveryRead{DeliveryRead: &whisperv1.DeliveryRead{Node: simNodes[0]}},
	})
}
