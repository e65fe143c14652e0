package decide

import (
	"iter"
	"slices"
)

// inOrder are items in their order, each once. They lie in runs of at most maxRun, none of them empty, so that
// putting one in, finding one and taking one out costs the logarithm of how many there are and at most a run's length of
// pointers to move, wherever it stands. It costs 8 bytes an item, and up to 16 where runs are half full.
//
// The zero value is empty.
type inOrder[T ordered[T]] struct{ runs [][]T }

// ordered is what inOrder holds: a pointer.
type ordered[T any] interface {
	comparable
	// compare is a total order, which does not change while the item is there.
	compare(other T) int
}

const maxRun = 256

// find is where d is, or would be put.
func (o *inOrder[T]) find(d T) (run, at int, found bool) {
	run, _ = slices.BinarySearchFunc(o.runs, d, func(run []T, d T) int { return run[len(run)-1].compare(d) })
	if run == len(o.runs) {
		return run, 0, false
	}
	at, found = slices.BinarySearchFunc(o.runs[run], d, T.compare)
	return run, at, found
}

// put puts d in its place, unless it is there.
func (o *inOrder[T]) put(d T) {
	run, at, found := o.find(d)
	switch {
	case found:
		return
	case run == len(o.runs) && (run == 0 || len(o.runs[run-1]) == maxRun): // behind all others, as nearly always
		o.runs = append(o.runs, []T{d})
		return
	case run == len(o.runs):
		run, at = run-1, len(o.runs[run-1])
	case len(o.runs[run]) == maxRun:
		half := o.runs[run][maxRun/2:]
		o.runs = slices.Insert(o.runs, run+1, slices.Clone(half))
		clear(half)
		if o.runs[run] = o.runs[run][:maxRun/2]; at > maxRun/2 {
			run, at = run+1, at-maxRun/2
		}
	}
	o.runs[run] = slices.Insert(o.runs[run], at, d)
}

// remove takes d out, if it is there.
func (o *inOrder[T]) remove(d T) {
	run, at, found := o.find(d)
	if !found {
		return
	}
	if o.runs[run] = slices.Delete(o.runs[run], at, at+1); len(o.runs[run]) == 0 {
		o.runs = slices.Delete(o.runs, run, run+1)
	}
}

// removeFirst takes out the one before all others, which is there.
func (o *inOrder[T]) removeFirst() {
	if o.runs[0] = slices.Delete(o.runs[0], 0, 1); len(o.runs[0]) == 0 {
		o.runs = slices.Delete(o.runs, 0, 1)
	}
}

// first is the one before all others, or nil.
func (o *inOrder[T]) first() (first T) {
	if len(o.runs) > 0 {
		first = o.runs[0][0]
	}
	return first
}

// all are they, in order. The set may not change meanwhile.
func (o *inOrder[T]) all() iter.Seq[T] {
	return func(yield func(T) bool) {
		for _, run := range o.runs {
			for _, d := range run {
				if !yield(d) {
					return
				}
			}
		}
	}
}

// backward are they, the last one first. The set may not change meanwhile.
func (o *inOrder[T]) backward() iter.Seq[T] {
	return func(yield func(T) bool) {
		for _, run := range slices.Backward(o.runs) {
			for _, d := range slices.Backward(run) {
				if !yield(d) {
					return
				}
			}
		}
	}
}
