package decide

import (
	"time"

	"github.com/klivvr/whisper/domain"
)

// Handed says when a delivery's attempt was handed to the gateways that hold its user, and to how many of them: 0 where that attempt
// does not say how long the way to a socket is. The first one does, of a delivery that did not wait for its user to connect, is no part of
// a broadcast, and that no gateway has told of yet. It changes nothing: a flight stays one.
func (s *State) Handed(id domain.DeliveryID, attempt int32) (at time.Time, nodes int) {
	d := s.deliveries.byHash[id.Hash()]
	if d == nil || attempt != 1 || d.attempt != 1 || d.walk != nil || d.all || d.parked || d.socketTook || d.sending.IsZero() || !d.about(id) {
		return time.Time{}, 0
	}
	for _, w := range d.waiting {
		if !w.push() {
			nodes++
		}
	}
	return d.sending, nodes
}
