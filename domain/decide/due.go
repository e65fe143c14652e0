package decide

import (
	"time"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// A delivery is due when nothing but Whisper holds it back: not its send_at, not the policy (quiet hours, caps, digests, the
// usual hour), not a pause or the rate of its broadcast, and its user can be reached.
// Waiting for a provider, or for an acknowledgement, is no such reason: that
// time is Whisper's own.

// noteReady notes that what held d has ended, when an attempt is about to be made.
func (s *State) noteReady(d *delivery) {
	switch {
	case heldReason(d.phase) != "" && !d.until.IsZero() && d.until.Before(s.now):
		d.readyMs = max(d.readyMs, d.until.UnixMilli())
	case heldReason(d.phase) != "", d.phase == whisperv1.Phase_PHASE_AWAY, d.lacking && d.attempt == 0:
		d.readyMs = s.now.UnixMilli()
	}
}

// noteReadyNow: an operator's word, a pause or a rate, held d until now.
func (s *State) noteReadyNow(d *delivery) { d.readyMs = s.now.UnixMilli() }

// dueMs is what an attempt carries: 0 where d was due with its request.
func (d *delivery) dueMs() int64 {
	due := max(d.acc.GetSendAtMs(), d.readyMs)
	if due <= d.id.Time().UnixMilli() {
		return 0
	}
	return due
}

// Due is since when a delivery was due, in Unix microseconds, of an attempt that carries dueMs.
func Due(id domain.DeliveryID, dueMs int64) int64 {
	return max(id.Time().UnixMicro(), time.UnixMilli(dueMs).UnixMicro())
}
