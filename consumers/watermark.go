package consumers

import "sync"

// Watermark commits a partition's offset up to the first record that is not settled. Take records in order; call Done
// for each of them in any order, from any goroutine. A record in flight costs nine bytes: its offset and a flag. So does
// a settled one that waits for an earlier one.
type Watermark struct {
	partition *Partition

	mu      sync.Mutex
	offsets []int64 // of the records that were taken, ascending; from head on they are not committed
	done    []bool  // at the same index: the record is settled
	head    int
}

// NewWatermark commits through p.
func NewWatermark(p *Partition) *Watermark { return &Watermark{partition: p} }

// Take notes that the record at offset is being worked on. Offsets must ascend; gaps are allowed (compacted topics,
// control records).
func (w *Watermark) Take(offset int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.offsets = append(w.offsets, offset)
	w.done = append(w.done, false)
}

// Done notes that the record at offset is settled. Call it once for each offset that was taken.
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

// InFlight is how many taken records are not committed, including settled ones that wait for an earlier one.
func (w *Watermark) InFlight() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.offsets) - w.head
}

// find is the index of an offset, or -1. It first looks where the offset is if there are no gaps.
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
