package decide

import (
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/localtime"
	"github.com/klivvr/whisper/domain/profile"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// readyQueue holds deliveries that could be sent now, but are too many for one decision: those that quiet hours held, and those that
// waited for their user to connect. Each time that time passes it hands out [DueSlice] of them, so that alerts of other users are
// decided between. Its invariants:
//
//   - A delivery is in it at most once, and says why: [delivery.readyTo]. A delivery that ends leaves it.
//   - of counts the deliveries of each user and lane. While there is one, a new delivery of that user and lane queues behind it,
//     so the lane stays in order. A delivery with an attempt is only tried again, and does not queue.
//   - It is not durable, and need not be: each delivery in it is parked, or its offset is not committed. A restart decides again
//     that it may be sent.
//
// It costs 8 bytes a delivery.
type readyQueue struct {
	lanes [len(domain.Lanes)]readyLane
	of    map[userLane]int
}

// readyTo is why a delivery is in the readyQueue.
type readyTo int8

const (
	notReady    readyTo = iota
	readyToWake         // its user connected: send it to the socket, if the user is still there
	readyToGo           // nothing was against it: ask again, and try from where it stands
)

// readyLane is first in, first out, but for those who go before one whose turn it is: they lie in a list above. What ended meanwhile
// is in it as notReady, and is passed over.
type readyLane struct{ lists [][]*delivery }

func (q *readyLane) pop() (d *delivery) {
	for len(q.lists) > 0 {
		top := &q.lists[len(q.lists)-1]
		if len(*top) > 0 {
			d, (*top)[0] = (*top)[0], nil
			*top = (*top)[1:]
			return d
		}
		q.lists = q.lists[:len(q.lists)-1]
	}
	q.lists = nil
	return nil
}

// add has d wait behind all others of its lane.
func (t *readyQueue) add(d *delivery, why readyTo) {
	if d.readyTo != notReady {
		d.readyTo = max(d.readyTo, why)
		return
	}
	t.enter(d, why)
	q := &t.lanes[d.source.Lane]
	if len(q.lists) == 0 {
		q.lists = [][]*delivery{nil}
	}
	q.lists[0] = append(q.lists[0], d)
}

// addFirst has the deliveries, which are of one user and lane, wait before all others.
func (t *readyQueue) addFirst(of []*delivery) {
	for _, d := range of {
		if d.readyTo == notReady {
			t.enter(d, readyToGo)
		}
		d.readyTo = readyToGo
	}
	q := &t.lanes[of[0].source.Lane]
	q.lists = append(q.lists, of)
}

func (t *readyQueue) enter(d *delivery, why readyTo) {
	d.readyTo = why
	if t.of == nil {
		t.of = map[userLane]int{}
	}
	t.of[laneOf(d)]++
}

// wait says whether any of d's user and lane do.
func (t *readyQueue) wait(d *delivery) bool { return t.waits(laneOf(d)) }

func (t *readyQueue) waits(of userLane) bool { return len(t.of) > 0 && t.of[of] > 0 }

// drop takes d out.
func (t *readyQueue) drop(d *delivery) {
	if d.readyTo == notReady {
		return
	}
	d.readyTo = notReady
	if key := laneOf(d); t.of[key] > 1 {
		t.of[key]--
	} else {
		delete(t.of, key)
	}
}

// next takes out the one whose turn it is, of the most urgent lane; nil: there is none.
func (t *readyQueue) next() (d *delivery, why readyTo) {
	for i := range t.lanes {
		for d = t.lanes[i].pop(); d != nil; d = t.lanes[i].pop() {
			if why = d.readyTo; why != notReady {
				t.drop(d)
				return d, why
			}
		}
	}
	return nil, notReady
}

// any says whether there may be one.
func (t *readyQueue) any() bool { return len(t.of) > 0 }

// serveReady does a slice of them.
func (s *State) serveReady() {
	for range s.policy.dueSlice() {
		d, why := s.deliveries.ready.next()
		if d == nil {
			break
		}
		s.busy, s.serving = busy{delivery: d}, d
		reachable := len(s.presence.live(d.user())) > 0
		switch {
		case d.expired(s.now):
			s.expire(d)
		case reachable && s.wakeable(d):
			s.wakeUp(d)
		case why == readyToWake:
		case d.rulesChanged && s.early(d):
		case d.stage() == stageAway && reachable:
			s.sendFromSocket(d)
		default:
			s.advance(d)
		}
	}
	s.busy, s.serving = busy{}, nil
}

// wakeUp sends to a user who is there what waited for that.
func (s *State) wakeUp(d *delivery) {
	d.tries = 0
	s.sendFromSocket(d)
}

// mayWake says whether d may be woken now. Where this decision has woken enough, or others of d's lane wait for their turn, d waits
// for its own.
func (s *State) mayWake(d *delivery) bool {
	if s.woken >= s.policy.dueSlice() || s.deliveries.ready.wait(d) {
		s.deliveries.ready.add(d, readyToWake)
		return false
	}
	s.woken++
	return true
}

// queueReady says whether d, against which nothing is, waits for its turn: others of its user and lane go first. Those are who wait for
// theirs already, and, of a user for whom too many are held to be let out at once, what quiet hours held and would hold no longer.
func (s *State) queueReady(d *delivery) bool {
	if d.begun() {
		return false
	}
	ready, own := &s.deliveries.ready, s.serving == d
	older := s.olderReleased(d)
	switch {
	case len(older) > 0 && own:
		ready.addFirst(append(older, d))
	case len(older) > 0 || !own && ready.wait(d):
		for _, o := range older {
			ready.add(o, readyToGo)
		}
		ready.add(d, readyToGo)
	default:
		ready.drop(d) // it goes now
		return false
	}
	s.deliveries.schedule(d, d.expires())
	return true
}

// olderReleased are what quiet hours hold and would not hold now, older than d and of its lane, where its user has an index.
func (s *State) olderReleased(d *delivery) (older []*delivery) {
	c := s.deliveries.indexes[d.user()]
	if c == nil {
		return nil
	}
	lane := d.source.Lane
	if first := c.firstResting(lane); first == nil || compareArrival(first, d) >= 0 {
		return nil
	}
	asleep := s.asleep(d.user())
	if asleep && s.deliveries.hastened == 0 {
		return nil
	}
	var over []*delivery
	for o := range c.resting[lane].all() {
		if compareArrival(o, d) >= 0 {
			break
		}
		switch {
		case o.phase != whisperv1.Phase_PHASE_QUIET:
			over = append(over, o)
		case !o.heldByPause && o.rateSlot <= s.now.UnixMilli() && (!asleep || o.rulesChanged):
			older = append(older, o)
		}
	}
	for _, o := range over {
		c.resting[lane].remove(o)
	}
	return older
}

// asleep: it is quiet at the user's, so whatever quiet hours hold stays held, but where its category's rules are other ones.
func (s *State) asleep(user string) bool {
	view := s.users.ProfileOf(user)
	hours, any := profile.ReadQuiet(view.QuietHours())
	return any && hours.Has(localtime.MinuteOfDay(s.now, s.zone(view)))
}
