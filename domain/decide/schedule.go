package decide

import (
	"container/heap"
	"time"
)

// schedule holds what is to be looked at at a time, and knows the earliest. Its invariants:
//
//   - An item is in it at most once, and knows where: its slot is the position plus one, or 0 while it is in none.
//   - Items come out by their time; of those with the same time, by [scheduled.compare], which is a total order. So what
//     comes first depends on no map and on no order of insertion, and a replay decides the same.
//   - The time of an item that is in it changes only through set.
//
// The zero value is empty. It costs 8 bytes an item, and set, remove and the earliest's way out cost the logarithm of how
// many there are.
type schedule[T scheduled[T]] struct{ items scheduleHeap[T] }

// scheduled is what a schedule holds: a pointer.
type scheduled[T any] interface {
	comparable
	// dueAt is when it is to be looked at.
	dueAt() time.Time
	setDue(at time.Time)
	// compare orders items with the same time.
	compare(other T) int
	// scheduleSlot is where the schedule notes its place.
	scheduleSlot() *slot
}

// slot is an item's place in its schedule, plus one; 0: it is in none.
type slot int

// set has the item looked at at a time, whether it was in the schedule or not.
func (s *schedule[T]) set(item T, at time.Time) {
	item.setDue(at)
	if at := *item.scheduleSlot(); at > 0 {
		heap.Fix(&s.items, int(at-1))
		return
	}
	heap.Push(&s.items, item)
}

// remove takes the item out; one that is not there is left alone.
func (s *schedule[T]) remove(item T) {
	if at := *item.scheduleSlot(); at > 0 {
		heap.Remove(&s.items, int(at-1))
	}
}

// first is the earliest item; ok is false where there is none.
func (s *schedule[T]) first() (item T, ok bool) {
	if len(s.items) == 0 {
		return item, false
	}
	return s.items[0], true
}

// passed is the earliest item whose time has come; ok is false where there is none.
func (s *schedule[T]) passed(now time.Time) (item T, ok bool) {
	item, ok = s.first()
	return item, ok && !item.dueAt().After(now)
}

func (s *schedule[T]) len() int { return len(s.items) }

// scheduleHeap is what container/heap asks for.
type scheduleHeap[T scheduled[T]] []T

func (h scheduleHeap[T]) Len() int { return len(h) }

func (h scheduleHeap[T]) Less(i, j int) bool {
	if c := h[i].dueAt().Compare(h[j].dueAt()); c != 0 {
		return c < 0
	}
	return h[i].compare(h[j]) < 0
}

func (h scheduleHeap[T]) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	*h[i].scheduleSlot(), *h[j].scheduleSlot() = slot(i+1), slot(j+1)
}

func (h *scheduleHeap[T]) Push(x any) {
	item := x.(T)
	*item.scheduleSlot() = slot(len(*h) + 1)
	*h = append(*h, item)
}

func (h *scheduleHeap[T]) Pop() any {
	var none T
	old := *h
	last := old[len(old)-1]
	old[len(old)-1] = none
	*h = old[:len(old)-1]
	*last.scheduleSlot() = 0
	return last
}
