package dispatch

import (
	"sync/atomic"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/decide"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// epoch is a stretch of outputs that are to be acknowledged by Kafka before the offsets that they let
// go may be committed. A partition fills one, seals it with the offsets, and fills the next; they are
// committed in order. One counter an epoch is all that an output costs. What may be written only when all that
// is acknowledged (a walk's cursor, the tombstone of a delivery whose end is a fact, the window that would call it a
// duplicate) follows as the epoch's second part, and the offsets wait for that, too.
type epoch struct {
	outstanding atomic.Int64
	offsets     offsets
	cursors     map[domain.DeliveryID]decide.Advanced
	marks       []decide.ParkAfter
	tombstones  []domain.DeliveryID
	releasing   []decide.Releasing
	seen        []decide.SeenDelivery    // what the window has to remember
	patches     []*whisperv1.PatchSource // how far the patches have come
	followed    bool                     // the second part is handed over
	acked       func(error)              // for every publish of this epoch
	broken      atomic.Bool              // something of it can't be written: it is never complete
}

// offsets are what may be committed of each topic; negative: nothing new.
type offsets struct {
	lanes   [3]int64
	events  int64
	changes int64
}

// newEpoch makes one. A failed publish keeps it open for good, so its sources are never committed, and fail stops
// the partition: what was decided is decided again.
func newEpoch(fail func(error)) *epoch {
	e := &epoch{}
	e.acked = func(err error) {
		if err == nil {
			e.outstanding.Add(-1)
			return
		}
		e.broken.Store(true)
		fail(err)
	}
	return e
}

func (e *epoch) complete() bool { return e.outstanding.Load() == 0 }
