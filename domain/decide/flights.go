package decide

import (
	"iter"
	"slices"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/category"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// flights are deliveries of broadcasts that stand where nearly all of them stand from the walk to the end: their first attempt
// is at one socket, and nothing else was decided about them (stageAtSocket). All but the user and the place is the same for a
// slice, and lies in its [wave], so a flight needs no [delivery]: it is 26 bytes in a map that the garbage collector does not look
// into, and a byte and the user's id in its record to the node.
//
// A gateway's word that the client acknowledged ends a flight, and its word that a socket took the frame is noted. For anything else a
// flight is taken up: it becomes the delivery that it stands for, and the table of stages says what is done. So whoever asks
// [deliveries] for a delivery by its hash, its user, its notification or its node, or because it is due, gets it, flight or not.
//
// We looked at two ways. Making the delivery's struct smaller, and allocating a slice's together, needs no second form; but each
// stays some 500 bytes with pointers in five indexes, and one that is not acknowledged keeps its neighbours in memory. Flights cost a
// second form, which [deliveries.takeUp] alone knows how to leave. A test compares the two by every field, and another plays
// histories in which all, or none, are taken up.
//
// Its invariants:
//
//   - A delivery is a flight or in byHash, never both. A flight is in no other index, and is not parked.
//   - A wave is in waves while it has flights, and counts them among what is left of it. A walk is in walks while it has any.
//   - A flight's user was passed by the walk.
type flights struct {
	at    map[domain.DeliveryHash]flight
	waves map[int64]*wave // by number
	walks []*walk
}

// flight is where one is to be found.
type flight struct {
	wave  int64
	group int32 // of the wave
	place int32 // of the group
}

// flightState is what is known of one.
type flightState uint8

const (
	noFlight    flightState = iota // it ended, was taken up, or never was one
	flightSent                     // on its way
	flightTaken                    // a socket took it
)

func newFlights() flights {
	return flights{at: map[domain.DeliveryHash]flight{}, waves: map[int64]*wave{}}
}

// groupOf is the record that a flight goes out in, and its wave.
func (fs *flights) groupOf(f flight) (*wave, *group) {
	v := fs.waves[f.wave]
	return v, v.groups[f.group]
}

// fly sends a user their first attempt: as [State.group] does, where nothing but the user and the place is the delivery's own.
func (s *State) fly(w *walk, sl *slice, user string, hash domain.DeliveryHash, at place, text *sharedText, c *category.Category) {
	s.countSent(c, user, hash, 0)
	v := s.waveOf(w, sl)
	g := v.groupOf(at, firstAttempt, text)
	g.add(user, flightSent, v.dueMs)
	sl.open++
	w.flying++
	w.open++
	s.deliveries.fly(v, g, hash)
}

// firstAttempt is the number of a flight's only one.
const firstAttempt = 1

// fly adds the last user of a group as a flight of its wave.
func (h *deliveries) fly(v *wave, g *group, hash domain.DeliveryHash) {
	h.flights.at[hash] = flight{wave: v.number, group: g.number, place: int32(len(g.users) - 1)}
	if v.flights++; v.flights == 1 {
		h.flights.waves[v.number] = v
	}
	if v.walk.flights++; v.walk.flights == 1 {
		h.flights.walks = append(h.flights.walks, v.walk)
	}
	h.enter(v)
}

// land takes a flight out.
func (h *deliveries) land(hash domain.DeliveryHash, f flight) {
	v, g := h.flights.groupOf(f)
	g.states[f.place] = noFlight
	delete(h.flights.at, hash)
	if v.flights--; v.flights == 0 {
		delete(h.flights.waves, v.number)
	}
	if v.walk.flights--; v.walk.flights == 0 {
		h.flights.walks = slices.DeleteFunc(h.flights.walks, func(w *walk) bool { return w == v.walk })
	}
	h.leave(v)
}

// flightFact takes a gateway's word about a flight; false: it is about none.
func (s *State) flightFact(fact domain.SocketFact) bool {
	hash := fact.ID.Hash()
	f, flies := s.deliveries.flights.at[hash]
	if !flies {
		return false
	}
	v, g := s.deliveries.flights.groupOf(f)
	if fact.ID != domain.NewDeliveryID(v.walk.id.Time(), hash) && !fact.ID.Timeless() {
		return false
	}
	s.busy = busy{walk: v.walk, user: g.users[f.place]}
	if !fact.Delivered {
		g.states[f.place] = flightTaken
		return true
	}
	s.deliveries.land(hash, f)
	v.walk.open--
	v.walk.flying--
	v.slice.open--
	return true
}

// takeUp makes the delivery that a flight stands for.
func (h *deliveries) takeUp(hash domain.DeliveryHash, f flight) *delivery {
	v, g := h.flights.groupOf(f)
	w, took := v.walk, g.states[f.place] == flightTaken
	d := w.newDelivery(v.slice, g.users[f.place], domain.NewDeliveryID(w.id.Time(), hash))
	d.own, d.step, d.readyMs = v.channels, v.step, v.readyMs
	d.content, d.variant = g.text.content, domain.ChannelSocket
	d.counted, d.sending, d.phase, d.attempt, d.socketTook = true, v.sentAt, whisperv1.Phase_PHASE_SENDING, firstAttempt, took
	d.waiting = append(d.waiting, waiting{attempt: firstAttempt, node: g.node, incarnation: g.incarnation})
	h.add(d)
	h.scheduleIn(v, d)
	h.land(hash, f)
	return d
}

// takeUpOf takes up a user's: one for each broadcast that has any at all is looked for.
func (h *deliveries) takeUpOf(user string) {
	for i := len(h.flights.walks) - 1; i >= 0; i-- { // the walk at i may leave
		hash := domain.HashDelivery(h.flights.walks[i].note(), user)
		if f, flies := h.flights.at[hash]; flies {
			h.takeUp(hash, f)
		}
	}
}

// takeUpIf takes up those of the waves and records that are asked for.
func (h *deliveries) takeUpIf(wave func(*wave) bool, record func(*group) bool) {
	if len(h.flights.at) == 0 {
		return
	}
	for _, v := range h.flights.waves {
		if wave(v) {
			h.takeUpWave(v, record)
		}
	}
}

func (h *deliveries) takeUpWave(v *wave, record func(*group) bool) {
	for _, g := range v.groups {
		if !record(g) {
			continue
		}
		for hash := range g.flights(v.walk) {
			h.takeUp(hash, h.flights.at[hash])
		}
	}
}

func anyWave(*wave) bool    { return true }
func anyRecord(*group) bool { return true }

// flights are those of a record. The one that is told may leave.
func (g *group) flights(w *walk) iter.Seq[domain.DeliveryHash] {
	return func(yield func(domain.DeliveryHash) bool) {
		for i, state := range g.states {
			if state != noFlight && !yield(domain.HashDelivery(w.note(), g.users[i])) {
				return
			}
		}
	}
}

// waveOf is the wave of the slice that is being walked. All of a slice have the same time to acknowledge, and expire together.
func (s *State) waveOf(w *walk, sl *slice) *wave {
	if w.wave != nil {
		return w.wave
	}
	v := s.deliveries.newWave(earliest(s.now.Add(s.ackTimeoutIn(w.acc.GetCategory())), w.expires()))
	first := w.newDelivery(sl, "", w.id) // what is the same for all
	s.settleChannels(first)
	if w.timed() {
		s.noteReadyNow(first)
	}
	v.walk, v.slice, v.sentAt = w, sl, s.now
	v.channels, v.step, v.readyMs, v.dueMs = first.own, first.socketStep(), first.readyMs, first.dueMs()
	w.wave = v
	return v
}

// timed: a rate, or a pause that is over, says when what is sent now was due.
func (w *walk) timed() bool { return w.bucket.rate > 0 || w.steered != nil }
