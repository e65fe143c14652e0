package decide

import (
	"time"

	"github.com/klivvr/whisper/domain"
)

// HandedAt is when a delivery's attempt was handed to the gateways that hold its user, if that attempt says how long the way to a
// socket is: the first one, of a delivery that did not wait for its user to connect, is no part of a broadcast, and that no gateway
// has told of yet.
func (s *State) HandedAt(id domain.DeliveryID, attempt int32) (at time.Time, ok bool) {
	d := s.deliveries.get(id.Hash())
	if d == nil || attempt != 1 || d.attempt != 1 || d.walk != nil || d.all || d.parked || d.socketTook ||
		d.sending.IsZero() || !d.openSockets() || !d.about(id) {
		return time.Time{}, false
	}
	return d.sending, true
}
