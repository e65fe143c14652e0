package decide

import (
	"cmp"
	"slices"
	"time"

	"github.com/klivvr/whisper/domain"
)

// deliveries are those that have not ended: in flight, or parked in whisper.timers. Its invariants:
//
//   - A delivery is under its key, and in its user's list, once. Of the legs of one delivery the first is under the
//     delivery's own hash (see [delivery.key]).
//   - parked is how many of them are parked; once parked, a delivery stays so until it ends.
//   - Only what is held is scheduled, by itself or with its [wave], and never for later than its expiry.
//   - resting and untexted are hints: what they name may be over, and what they don't name is not looked for. Both end with
//     the user's last delivery.
type deliveries struct {
	byHash map[domain.DeliveryHash]*delivery
	byUser map[string][]*delivery // as they arrived; a broadcast's, legs and restored ones by lane and offset
	due    schedule[*delivery]
	waves  schedule[*wave]
	parked int

	waveSerial int64

	resting  map[string]bool          // users of whom something waits for the end of quiet hours, or did
	untexted map[userLane][]*delivery // what waits for its template, or behind one that does, or did
}

// userLane is what keeps an order of its own.
type userLane struct {
	user string
	lane domain.Lane
}

func laneOf(d *delivery) userLane { return userLane{d.user(), d.source.Lane} }

func newDeliveries() deliveries {
	return deliveries{
		byHash: map[domain.DeliveryHash]*delivery{}, byUser: map[string][]*delivery{},
		resting: map[string]bool{}, untexted: map[userLane][]*delivery{},
	}
}

// get is the delivery with a hash, of several legs the first; nil: it is not held.
func (h *deliveries) get(hash domain.DeliveryHash) *delivery { return h.byHash[hash] }

// of are a user's. The list changes with the next that is added or ends.
func (h *deliveries) of(user string) []*delivery { return h.byUser[user] }

// holds says whether d has not ended: what is done about one delivery may end another.
func (h *deliveries) holds(d *delivery) bool { return h.byHash[d.key()] == d }

// inFlight is how many are not parked.
func (h *deliveries) inFlight() int { return len(h.byHash) - h.parked }

// add holds d, which arrived last of its user's.
func (h *deliveries) add(d *delivery) {
	h.byHash[d.key()] = d
	h.byUser[d.user()] = append(h.byUser[d.user()], d)
}

// insert holds d where its lane and offset put it among its user's. room is where the list may begin, if d is the user's
// only one.
func (h *deliveries) insert(d *delivery, room []*delivery) {
	h.byHash[d.key()] = d
	of := h.byUser[d.user()]
	if len(of) == 0 {
		of = room
	}
	if of = append(of, d); len(of) > 1 {
		slices.SortStableFunc(of, compareArrival)
	}
	h.byUser[d.user()] = of
}

// drop lets go of d, which is under key.
func (h *deliveries) drop(d *delivery, key domain.DeliveryHash) {
	h.unschedule(d)
	delete(h.byHash, key)
	if d.parked {
		h.parked--
	}
	rest := h.byUser[d.user()]
	if i := slices.Index(rest, d); i >= 0 {
		rest = slices.Delete(rest, i, i+1)
	}
	if len(rest) == 0 {
		delete(h.byUser, d.user())
		delete(h.resting, d.user())
		if len(h.untexted) > 0 { // nearly never
			for _, lane := range domain.Lanes {
				delete(h.untexted, userLane{d.user(), lane})
			}
		}
	} else {
		h.byUser[d.user()] = rest
	}
}

// texted takes the delivery at i out of those that wait for a template.
func (h *deliveries) texted(key userLane, i int) {
	switch of := h.untexted[key]; {
	case len(of) == 1:
		delete(h.untexted, key)
	case i == 0:
		of[0] = nil
		h.untexted[key] = of[1:]
	default:
		h.untexted[key] = slices.Delete(of, i, i+1)
	}
}

// lead makes a leg the first of its delivery's, after the first was dropped.
func (h *deliveries) lead(leg *delivery) {
	delete(h.byHash, leg.key())
	h.byHash[leg.id.Hash()] = leg
}

// park counts d among the parked ones.
func (h *deliveries) park(d *delivery) {
	if !d.parked {
		d.parked = true
		h.parked++
	}
}

// schedule has d looked at at a time, or when it expires.
func (h *deliveries) schedule(d *delivery, at time.Time) {
	if d.wave != nil {
		h.unschedule(d)
	}
	h.due.set(d, earlier(at, d.expires()))
}

// sorted are the deliveries that match, in an order that does not depend on the map's.
func (h *deliveries) sorted(match func(*delivery) bool) []*delivery {
	var all []*delivery
	for _, d := range h.byHash {
		if match(d) {
			all = append(all, d)
		}
	}
	slices.SortFunc(all, compareArrival)
	return all
}

// compareArrival orders a lane's deliveries as they came; lanes by their rank.
func compareArrival(a, b *delivery) int {
	if c := cmp.Or(cmp.Compare(a.source.Lane, b.source.Lane), cmp.Compare(a.source.Offset, b.source.Offset)); c != 0 {
		return c
	}
	if c := a.id.Compare(b.id); c != 0 || a == b { // of one broadcast
		return c
	}
	return a.legs.compare(a, b)
}
