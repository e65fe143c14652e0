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
//   - A user's are in indexes if they are too many to be looked through, or else in byUser, in the order of [compareArrival].
//   - A delivery is in the list of its notification, or of its broadcast.
//   - Of those in atSockets, each that is to be answered is there. Who is not any more leaves it when it is scheduled next, or ends.
//   - resting and untexted are hints: what they name may be over, and what they don't name is not looked for. Both end with
//     the user's last delivery.
type deliveries struct {
	byHash    map[domain.DeliveryHash]*delivery
	byUser    map[string][]*delivery
	indexes   map[string]*userIndex
	indexFrom int // how many a user may have who has none
	// notes has those of a notification, but for a broadcast's, which are in its walk's list.
	notes map[string]*linked
	// atSockets are those that were handed to a gateway and are to be answered.
	atSockets linked
	due       schedule[*delivery]
	waves     schedule[*wave]
	flights   flights
	ready     readyQueue
	parked    int
	// How many are due before their time, since their category has other rules.
	hastened int

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

func newDeliveries(from int) deliveries {
	return deliveries{
		indexFrom: from, flights: newFlights(),
		byHash: map[domain.DeliveryHash]*delivery{}, byUser: map[string][]*delivery{}, indexes: map[string]*userIndex{},
		notes:   map[string]*linked{},
		resting: map[string]bool{}, untexted: map[userLane][]*delivery{},
	}
}

// get is the delivery with a hash, of several legs the first; nil: it is not held.
func (h *deliveries) get(hash domain.DeliveryHash) *delivery {
	if f, flies := h.flights.at[hash]; flies {
		return h.takeUp(hash, f)
	}
	return h.byHash[hash]
}

// has says whether one with a hash is held.
func (h *deliveries) has(hash domain.DeliveryHash) bool {
	_, flies := h.flights.at[hash]
	return flies || h.byHash[hash] != nil
}

// holds says whether d has not ended: what is done about one delivery may end another.
func (h *deliveries) holds(d *delivery) bool { return h.byHash[d.key()] == d }

// inFlight is how many are not parked.
func (h *deliveries) inFlight() int { return len(h.byHash) - h.parked + len(h.flights.at) }

// add holds d.
func (h *deliveries) add(d *delivery) {
	h.byHash[d.key()] = d
	h.listOf(d).add(d, noteLink)
	user := d.user()
	if c := h.indexes[user]; c != nil {
		c.add(d)
		return
	}
	of := h.byUser[user]
	switch {
	case len(of) == 0 || compareArrival(of[len(of)-1], d) < 0:
		of = append(of, d)
	default:
		at, _ := slices.BinarySearchFunc(of, d, compareArrival)
		of = slices.Insert(of, at, d)
	}
	if len(of) > h.indexFrom {
		h.indexes[user] = newUserIndex(of)
		delete(h.byUser, user)
		return
	}
	h.byUser[user] = of
}

// listOf is where d is listed by its notification.
func (h *deliveries) listOf(d *delivery) *linked {
	if d.walk != nil {
		return &d.walk.held
	}
	note := d.ev.GetNotificationId()
	if h.notes[note] == nil {
		h.notes[note] = &linked{}
	}
	return h.notes[note]
}

// unlist takes d out of its lists.
func (h *deliveries) unlist(d *delivery) {
	h.atSockets.remove(d, atSocketLink)
	list := h.listOf(d)
	if list.remove(d, noteLink); list.latest == nil && d.walk == nil {
		delete(h.notes, d.ev.GetNotificationId())
	}
}

// drop lets go of d, which is under key.
func (h *deliveries) drop(d *delivery, key domain.DeliveryHash) {
	h.unschedule(d)
	h.unlist(d)
	delete(h.byHash, key)
	if d.parked {
		h.parked--
	}
	h.ready.drop(d)
	h.hasten(d, false)
	if h.leaveUser(d) {
		return
	}
	delete(h.resting, d.user())
	if len(h.untexted) > 0 { // nearly never
		for _, lane := range domain.Lanes {
			delete(h.untexted, userLane{d.user(), lane})
		}
	}
}

// leaveUser takes d out of its user's, and says whether there are others.
func (h *deliveries) leaveUser(d *delivery) (others bool) {
	user := d.user()
	if c := h.indexes[user]; c != nil {
		if c.drop(d); c.n == 0 {
			delete(h.indexes, user)
		}
		return c.n > 0
	}
	rest := h.byUser[user]
	if i := slices.Index(rest, d); i >= 0 {
		rest = slices.Delete(rest, i, i+1)
	}
	if len(rest) == 0 {
		delete(h.byUser, user)
		return false
	}
	h.byUser[user] = rest
	return true
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

// hasten notes whether d is due since its category has other rules.
func (h *deliveries) hasten(d *delivery, changed bool) {
	switch {
	case changed && !d.rulesChanged:
		h.hastened++
	case !changed && d.rulesChanged:
		h.hastened--
	}
	d.rulesChanged = changed
}

// schedule has d looked at at a time, or when it expires.
func (h *deliveries) schedule(d *delivery, at time.Time) {
	if d.wave != nil {
		h.unschedule(d)
	}
	h.due.set(d, earliest(at, d.expires()))
	h.listSocket(d)
}

// listSocket has d in atSockets if it waits for a socket.
func (h *deliveries) listSocket(d *delivery) {
	switch waits := d.openSockets(); {
	case waits == d.atSocket.in():
	case waits:
		h.atSockets.add(d, atSocketLink)
	default:
		h.atSockets.remove(d, atSocketLink)
	}
}

// ofNote are those of a notification, and of its broadcast, which may be nil: in order.
func (h *deliveries) ofNote(note string, w *walk) (of []*delivery) {
	if list := h.notes[note]; list != nil {
		of = slices.AppendSeq(of, list.all(noteLink))
	}
	if w != nil {
		h.takeUpIf(func(v *wave) bool { return v.walk == w }, anyRecord)
		of = slices.AppendSeq(of, w.held.all(noteLink))
	}
	slices.SortFunc(of, compareArrival)
	return of
}

// onNode are those that wait for an answer of a node's incarnation, in order.
func (h *deliveries) onNode(node string, incarnation uint64) (of []*delivery) {
	h.takeUpIf(anyWave, func(g *group) bool { return g.node == node && g.incarnation == incarnation })
	for d := range h.atSockets.all(atSocketLink) {
		if slices.ContainsFunc(d.waiting, func(w waiting) bool { return w.node == node && w.incarnation == incarnation }) {
			of = append(of, d)
		}
	}
	slices.SortFunc(of, compareArrival)
	return of
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
