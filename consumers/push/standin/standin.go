// Package standin has what simulated providers have in common: answers that a test or a person asks for, and the attempts
// that were accepted last. Its types have no mutex of their own: a simulator uses its own for them.
package standin

import "slices"

// Answers are answers that take the place of ordinary ones, one after the other. The zero Answers is empty.
type Answers[A any] struct {
	list []program[A]
}

type program[A any] struct {
	answer A
	left   int // negative: for good
}

// Add gives the next times requests this answer, after what was added before (times < 1: all that follow).
func (s *Answers[A]) Add(times int, answer A) {
	if times < 1 {
		times = -1
	}
	s.list = append(s.list, program[A]{answer, times})
}

// Next takes the next answer; ok says that there is one.
func (s *Answers[A]) Next() (answer A, ok bool) {
	if s == nil || len(s.list) == 0 {
		return answer, false
	}
	p := &s.list[0]
	answer = p.answer
	if p.left > 0 {
		if p.left--; p.left == 0 {
			s.list = s.list[1:]
		}
	}
	return answer, true
}

// ByToken are the answers to each token. Those to "" are for every token that has none.
type ByToken[A any] map[string]*Answers[A]

// Add is that of the token's [Answers].
func (b ByToken[A]) Add(token string, times int, answer A) {
	if b[token] == nil {
		b[token] = &Answers[A]{}
	}
	b[token].Add(times, answer)
}

// Next takes the token's next answer; ok says that there is one.
func (b ByToken[A]) Next(token string) (answer A, ok bool) {
	if answer, ok = b[token].Next(); !ok {
		answer, ok = b[""].Next()
	}
	return answer, ok
}

// Record is what was accepted last, and who watches it.
type Record[R any] struct {
	most     int
	ring     []R
	next     int
	watchers map[int]func(R)
	watches  int
}

// NewRecord remembers at most so many.
func NewRecord[R any](most int) *Record[R] {
	return &Record[R]{most: most, watchers: map[int]func(R){}}
}

// Add remembers one, and tells everybody who watches.
func (k *Record[R]) Add(r R) {
	if len(k.ring) < k.most {
		k.ring = append(k.ring, r)
	} else {
		k.ring[k.next] = r
		k.next = (k.next + 1) % len(k.ring)
	}
	for _, f := range k.watchers {
		f(r)
	}
}

// All are those that it remembers, oldest first.
func (k *Record[R]) All() []R { return slices.Concat(k.ring[k.next:], k.ring[:k.next]) }

// Watch calls f with each that follows, until Unwatch of what it returns.
func (k *Record[R]) Watch(f func(R)) (watch int) {
	k.watches++
	k.watchers[k.watches] = f
	return k.watches
}

// Unwatch ends a watch.
func (k *Record[R]) Unwatch(watch int) { delete(k.watchers, watch) }
