package dispatch

import (
	"math"
	"slices"
	"time"
)

// signal is one of the ways to see how alerts fare: how long they waited at one place, beyond the least of
// the last minute (as CoDel has it), and how that compares to what they waited while nothing was walked.
type signal struct {
	least  [2]time.Duration // of this half minute, and of the one before
	began  time.Time
	ring   [128]time.Duration // of what was seen while nothing was walked
	n, at  int
	learnt time.Time
	most   time.Duration // what may be waited; 0: to be found
	share  share
}

// share is how many of those who were judged waited too long, a moving mean.
type share struct {
	of     float64
	judged time.Time
}

const (
	leastFor = 30 * time.Second
	// learnEvery makes the ring ten seconds long at least, however many alerts there are.
	learnEvery = 100 * time.Millisecond
	// learnMost is a backlog, not a quiet machine.
	learnMost = time.Second
	// enough to go by.
	enough = 8
	// Without that, or where it is next to nothing, alerts may wait so long.
	mostUnknown = 20 * time.Millisecond
	mostFloor   = 4 * time.Millisecond
	// An alert waits too long past one and a half times what 95 of 100 waited at most without broadcasts, and too many do where
	// it is one in twelve. With times spread as those of a queue are, that is where all wait 1.8 times as long; the
	// promise is twice. A share is told from fewer alerts than a p99, and follows any tail.
	mostQuantile = 0.95
	mostTimes    = 1.5
	mostShare    = 0.08
	// The mean is over so many alerts and so long, at least.
	shareOver = 32
	shareFor  = 320 * time.Millisecond
	toldFor   = 10 * time.Second
)

// excess is value beyond the least.
func (s *signal) excess(now time.Time, value time.Duration) time.Duration {
	switch since := now.Sub(s.began); {
	case s.began.IsZero() || since >= 2*leastFor:
		s.began, s.least = now, [2]time.Duration{math.MaxInt64, math.MaxInt64}
	case since >= leastFor:
		s.began, s.least = now, [2]time.Duration{math.MaxInt64, s.least[0]}
	}
	s.least[0] = min(s.least[0], value)
	return value - min(s.least[0], s.least[1])
}

// learnIn is learn where it is time to: a probe takes all.
func (s *signal) learnIn(now time.Time, excess time.Duration, probe bool) {
	if probe || now.Sub(s.learnt) >= learnEvery {
		s.learn(now, excess)
	}
}

// learn takes what was seen while nothing was walked.
func (s *signal) learn(now time.Time, excess time.Duration) {
	if excess > learnMost {
		return
	}
	s.learnt, s.most = now, 0
	s.ring[s.at] = excess
	s.at = (s.at + 1) % len(s.ring)
	s.n = max(s.n, s.at)
	if s.at == 0 {
		s.n = len(s.ring)
	}
}

// judge takes what was seen while something was walked, and says whether too many waited too long.
func (s *signal) judge(now time.Time, excess time.Duration) bool {
	return s.share.add(now, excess > s.allowed(), shareOver) > mostShare
}

// add takes one, into a mean over so many and over shareFor, at least.
func (s *share) add(now time.Time, late bool, over float64) float64 {
	value := 0.0
	if late {
		value = 1
	}
	s.of += (value - s.of) * min(1/over, max(now.Sub(s.judged), 0).Seconds()/shareFor.Seconds())
	s.judged = now
	return s.of
}

// past says whether it is more than most. A share that nobody added to for toldFor tells nothing of now.
func (s *share) past(now time.Time, most float64) bool { return s.of > most && s.tells(now) }

// tells: somebody was judged lately.
func (s *share) tells(now time.Time) bool { return now.Sub(s.judged) < toldFor }

// allowed is what may be waited.
func (s *signal) allowed() time.Duration {
	if s.n < enough {
		return mostUnknown
	}
	if s.most == 0 {
		s.most = max(mostFloor, time.Duration(mostTimes*float64(quantile(s.ring[:s.n], mostQuantile))))
	}
	return s.most
}

// quantile of some durations, of which there must be one.
func quantile(of []time.Duration, q float64) time.Duration {
	sorted := slices.Sorted(slices.Values(of))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

// meter measures a rate.
type meter struct {
	began   time.Time
	n, last float64
}

func (m *meter) add(now time.Time, n float64) {
	m.turn(now)
	m.n += n
}

// turn begins a new stretch where the last one is over.
func (m *meter) turn(now time.Time) {
	if since := now.Sub(m.began); since >= paceStep {
		m.last = m.n / since.Seconds()
		if m.began.IsZero() {
			m.last = 0
		}
		m.n, m.began = 0, now
	}
}

func (m *meter) rate(now time.Time) float64 {
	m.turn(now)
	return max(m.last, m.n/paceStep.Seconds())
}
