package consumers

import "sync"

// Watermark commits a partition behind the slowest of its records: Take them in order, tell Done in
// any order, from any goroutine. It costs one byte a record in flight.
type Watermark struct {
	partition *Partition

	mu      sync.Mutex
	offsets []int64 // ring of what was taken, ascending; done ones are marked in the same place
	done    []bool
	head    int
}

// NewWatermark commits through p.
func NewWatermark(p *Partition) *Watermark { return &Watermark{partition: p} }

// Take notes that the record at offset is being worked on. Offsets ascend; gaps are fine (a compacted
// topic, a control record).
func (w *Watermark) Take(offset int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.offsets = append(w.offsets, offset)
	w.done = append(w.done, false)
}

// Done notes that the record at offset is settled. Every taken offset must be told once.
func (w *Watermark) Done(offset int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	i := w.find(offset)
	if i < 0 {
		return
	}
	w.done[i] = true
	next := int64(-1)
	for w.head < len(w.offsets) && w.done[w.head] {
		next = w.offsets[w.head] + 1
		w.head++
	}
	if next < 0 {
		return
	}
	if w.head == len(w.offsets) {
		w.offsets, w.done, w.head = w.offsets[:0], w.done[:0], 0
	} else if w.head > 1024 && w.head > len(w.offsets)/2 {
		n := copy(w.offsets, w.offsets[w.head:])
		copy(w.done, w.done[w.head:])
		w.offsets, w.done, w.head = w.offsets[:n], w.done[:n], 0
	}
	w.partition.Commit(next)
}

// InFlight is how many were taken and hold the commit back, done ones behind the slowest included.
func (w *Watermark) InFlight() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.offsets) - w.head
}

// find looks for an offset from the place where it stands when there are no gaps.
func (w *Watermark) find(offset int64) int {
	lo, hi := w.head, len(w.offsets)
	if lo == hi {
		return -1
	}
	if guess := lo + int(offset-w.offsets[lo]); guess >= lo && guess < hi && w.offsets[guess] == offset {
		return guess
	}
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if w.offsets[mid] < offset {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo < len(w.offsets) && w.offsets[lo] == offset {
		return lo
	}
	return -1
}
