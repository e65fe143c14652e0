package decide

import (
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/localtime"
	"github.com/klivvr/whisper/domain/profile"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// turns are deliveries that could go now, were they not too many for one decision: what quiet hours held of a user, or what waited for
// users who connect. Each goes when its turn comes, [DueSlice] each time that time passes, so that alerts of others get theirs
// between. Its invariants:
//
//   - A delivery is in it at most once, and knows how: [delivery.turn]. One that ends leaves it.
//   - of is how many of a user and lane are in it. As long as any is, what newly may go of that user and lane gets in line behind
//     it: a user's lane stays in order. What was begun before is only tried again, and does not wait.
//   - Nothing of it is durable, and nothing has to be: each delivery in it is parked, or its offset is not committed. A restart
//     decides anew that it may go.
//
// It costs 8 bytes a delivery, as long as it is in it.
type turns struct {
	lanes [len(domain.Lanes)]turnQueue
	of    map[userLane]int
}

// turn is why a delivery is in turns.
type turn int8

const (
	noTurn turn = iota
	toWake      // its user connected: send it to the socket, if the user is still there
	toGo        // nothing was against it: ask again, and try from where it stands
)

// turnQueue is first in, first out, but for those who go before one whose turn it is: they lie in a list above. What ended meanwhile
// is in it as noTurn, and is passed over.
type turnQueue struct{ lists [][]*delivery }

func (q *turnQueue) pop() (d *delivery) {
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
func (t *turns) add(d *delivery, why turn) {
	if d.turn != noTurn {
		d.turn = max(d.turn, why)
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
func (t *turns) addFirst(of []*delivery) {
	for _, d := range of {
		if d.turn == noTurn {
			t.enter(d, toGo)
		}
		d.turn = toGo
	}
	q := &t.lanes[of[0].source.Lane]
	q.lists = append(q.lists, of)
}

func (t *turns) enter(d *delivery, why turn) {
	d.turn = why
	if t.of == nil {
		t.of = map[userLane]int{}
	}
	t.of[laneOf(d)]++
}

// wait says whether any of d's user and lane do.
func (t *turns) wait(d *delivery) bool { return t.waits(laneOf(d)) }

func (t *turns) waits(of userLane) bool { return len(t.of) > 0 && t.of[of] > 0 }

// drop takes d out.
func (t *turns) drop(d *delivery) {
	if d.turn == noTurn {
		return
	}
	d.turn = noTurn
	if key := laneOf(d); t.of[key] > 1 {
		t.of[key]--
	} else {
		delete(t.of, key)
	}
}

// next takes out the one whose turn it is, of the most urgent lane; nil: there is none.
func (t *turns) next() (d *delivery, why turn) {
	for i := range t.lanes {
		for d = t.lanes[i].pop(); d != nil; d = t.lanes[i].pop() {
			if why = d.turn; why != noTurn {
				t.drop(d)
				return d, why
			}
		}
	}
	return nil, noTurn
}

// any says whether there may be one.
func (t *turns) any() bool { return len(t.of) > 0 }

// takeTurns does a slice of them.
func (s *State) takeTurns() {
	for range s.policy.dueSlice() {
		d, why := s.deliveries.turns.next()
		if d == nil {
			break
		}
		s.busy, s.turnOf = busy{delivery: d}, d
		reachable := len(s.presence.live(d.user())) > 0
		switch {
		case d.expired(s.now):
			s.expire(d)
		case reachable && s.wakeable(d):
			s.wakeUp(d)
		case why == toWake:
		case d.rulesChanged && s.early(d):
		case d.stage() == stageAway && reachable:
			s.sendFromSocket(d)
		default:
			s.advance(d)
		}
	}
	s.busy, s.turnOf = busy{}, nil
}

// wakeUp sends to a user who is there what waited for that.
func (s *State) wakeUp(d *delivery) {
	d.tries = 0
	s.sendFromSocket(d)
}

// mayWake says whether d may be woken now. Where this decision has woken enough, or others of d's lane wait for their turn, d waits
// for its own.
func (s *State) mayWake(d *delivery) bool {
	if s.woken >= s.policy.dueSlice() || s.deliveries.turns.wait(d) {
		s.deliveries.turns.add(d, toWake)
		return false
	}
	s.woken++
	return true
}

// inLine says whether d, against which nothing is, waits for its turn: others of its user and lane go first. Those are who wait for
// theirs already, and, of a user for whom too many are held to be let out at once, what quiet hours held and would hold no longer.
func (s *State) inLine(d *delivery) bool {
	if d.begun() {
		return false
	}
	turns, own := &s.deliveries.turns, s.turnOf == d
	older := s.olderRested(d)
	switch {
	case len(older) > 0 && own:
		turns.addFirst(append(older, d))
	case len(older) > 0 || !own && turns.wait(d):
		for _, o := range older {
			turns.add(o, toGo)
		}
		turns.add(d, toGo)
	default:
		turns.drop(d) // it goes now
		return false
	}
	s.deliveries.schedule(d, d.expires())
	return true
}

// olderRested are what quiet hours hold and would not hold now, older than d and of its lane, where its user has a crowd.
func (s *State) olderRested(d *delivery) (older []*delivery) {
	c := s.deliveries.crowds[d.user()]
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
