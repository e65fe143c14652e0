package decide

import (
	"iter"
	"slices"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// byArrival are deliveries in the order of [compareArrival].
type byArrival = inOrder[*delivery]

// indexFrom is how many deliveries a user may have that are looked through one by one.
// Nearly everybody has fewer, for whom an index costs more
// than it saves.
const indexFrom = 64

// userIndex has the deliveries of a user who has more than that: at night, or away for weeks. It finds those that are asked for without
// a look at the others. Its invariants:
//
//   - all has every one of the user's deliveries; keyed has each that has a collapse key, under it.
//   - resting and gathered have every one that quiet hours, or a digest, hold. They are hints: what is held no longer is
//     taken out when it is met at the front, or ends.
//
// It costs 8 to 16 bytes a delivery, as many again for one that is held, and 100 for a collapse key.
type userIndex struct {
	n        int
	all      byArrival
	keyed    map[string]*byArrival
	resting  [len(domain.Lanes)]byArrival
	gathered [len(domain.Lanes)]byArrival
}

func newUserIndex(of []*delivery) *userIndex {
	c := &userIndex{keyed: map[string]*byArrival{}}
	for _, d := range of {
		c.add(d)
		c.held(d)
	}
	return c
}

func (c *userIndex) add(d *delivery) {
	c.n++
	c.all.put(d)
	if key := d.acc.GetCollapseKey(); key != "" {
		if c.keyed[key] == nil {
			c.keyed[key] = &byArrival{}
		}
		c.keyed[key].put(d)
	}
}

// held notes that d is held by the policy.
func (c *userIndex) held(d *delivery) {
	if d.phase == whisperv1.Phase_PHASE_QUIET {
		c.resting[d.source.Lane].put(d)
	}
	if d.phase == whisperv1.Phase_PHASE_DIGEST {
		c.gathered[d.source.Lane].put(d)
	}
}

func (c *userIndex) drop(d *delivery) {
	c.n--
	c.all.remove(d)
	if key := d.acc.GetCollapseKey(); key != "" {
		if of := c.keyed[key]; of != nil {
			if of.remove(d); of.first() == nil {
				delete(c.keyed, key)
			}
		}
	}
	c.resting[d.source.Lane].remove(d)
	c.gathered[d.source.Lane].remove(d)
}

// firstResting is the lane's first that quiet hours hold, or nil.
func (c *userIndex) firstResting(lane domain.Lane) *delivery {
	of := &c.resting[lane]
	for d := of.first(); d != nil; d = of.first() {
		if d.phase == whisperv1.Phase_PHASE_QUIET {
			return d
		}
		of.removeFirst()
	}
	return nil
}

// of are a user's, in the order of [compareArrival]. The list changes with the next that is added or ends.
func (h *deliveries) of(user string) []*delivery {
	h.takeUpOf(user)
	if c := h.indexes[user]; c != nil {
		return slices.AppendSeq(make([]*delivery, 0, c.n), c.all.all())
	}
	return h.byUser[user]
}

// count is how many of returns.
func (h *deliveries) count(user string) int {
	h.takeUpOf(user)
	if c := h.indexes[user]; c != nil {
		return c.n
	}
	return len(h.byUser[user])
}

// keyed are a user's with a collapse key.
func (h *deliveries) keyed(user, key string) []*delivery {
	h.takeUpOf(user)
	if c := h.indexes[user]; c != nil {
		of := c.keyed[key]
		if of == nil {
			return nil
		}
		return slices.Collect(of.all())
	}
	var of []*delivery
	for _, d := range h.byUser[user] {
		if d.acc.GetCollapseKey() == key {
			of = append(of, d)
		}
	}
	return of
}

// gathered may have been gathered for a digest of a user and lane, the last one first: whoever was.
func (h *deliveries) gathered(user string, lane domain.Lane) iter.Seq[*delivery] {
	if c := h.indexes[user]; c != nil {
		return c.gathered[lane].backward()
	}
	return func(yield func(*delivery) bool) {
		for _, d := range slices.Backward(h.byUser[user]) {
			if d.source.Lane == lane && !yield(d) {
				return
			}
		}
	}
}

// hold notes that the policy holds d.
func (h *deliveries) hold(d *delivery) {
	if d.phase == whisperv1.Phase_PHASE_QUIET {
		h.resting[d.user()] = true
	}
	if c := h.indexes[d.user()]; c != nil {
		c.held(d)
	}
}
