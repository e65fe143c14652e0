package decide

import "time"

// wave is what a slice of a broadcast sends: deliveries that are to be acknowledged by one time. It stands in a schedule
// for all of them, so a delivery that is acknowledged in time, as nearly all are, is never in a heap. What is left at that
// time goes into the deliveries' own schedule, and is decided about in its order.
//
// Its invariants: a delivery is in one wave at most, or in the schedule, or in neither; in a wave its slot is the negative
// of its place in open, less one. A wave in which nobody is left is in no schedule.
type wave struct {
	number int64 // orders those with the same time
	due    time.Time
	open   []*delivery // nil: gone
	left   int         // of them, and of the flights
	slot   slot

	// What the flights share.
	walk     *walk
	slice    *slice
	sentAt   time.Time
	channels []string
	step     int32
	readyMs  int64
	dueMs    int64
	groups   []*group
	flights  int
}

func (v *wave) dueAt() time.Time    { return v.due }
func (v *wave) setDue(at time.Time) { v.due = at }
func (v *wave) compare(o *wave) int { return int(v.number - o.number) }
func (v *wave) scheduleSlot() *slot { return &v.slot }

// newWave is one that is empty.
func (h *deliveries) newWave(due time.Time) *wave {
	h.waveSerial++
	return &wave{number: h.waveSerial, due: due}
}

// enter: one more is left.
func (h *deliveries) enter(v *wave) {
	if v.left++; v.left == 1 {
		h.waves.set(v, v.due)
	}
}

// leave: one less is left.
func (h *deliveries) leave(v *wave) {
	if v.left--; v.left == 0 {
		h.waves.remove(v)
	}
}

// scheduleIn has d looked at with its wave.
func (h *deliveries) scheduleIn(v *wave, d *delivery) {
	h.unschedule(d)
	v.open = append(v.open, d)
	d.due, d.wave, d.slot = v.due, v, slot(-len(v.open))
	h.enter(v)
	h.listSocket(d)
}

// unschedule: d is not looked at any more.
func (h *deliveries) unschedule(d *delivery) {
	v := d.wave
	if v == nil {
		h.due.remove(d)
		return
	}
	v.open[-d.slot-1] = nil
	d.wave, d.slot = nil, 0
	h.leave(v)
}

// passed is the earliest delivery whose time has come; ok is false where there is none.
func (h *deliveries) passed(now time.Time) (d *delivery, ok bool) {
	for {
		v, over := h.waves.passed(now)
		if !over {
			return h.due.passed(now)
		}
		h.takeUpWave(v, anyRecord)
		h.waves.remove(v)
		for _, d := range v.open {
			if d != nil {
				d.wave, d.slot = nil, 0
				h.due.set(d, v.due)
			}
		}
	}
}

// next is when the earliest delivery is to be looked at; ok is false where there is none.
func (h *deliveries) next() (at time.Time, ok bool) {
	if d, any := h.due.first(); any {
		at, ok = d.due, true
	}
	if v, any := h.waves.first(); any && (!ok || v.due.Before(at)) {
		at, ok = v.due, true
	}
	return at, ok
}
