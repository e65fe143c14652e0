package dispatch

import (
	"math"
	"slices"
	"sync"
	"time"
)

// pace says how fast this process walks its broadcasts, from what its alerts suffer; no process asks another one.
//
// The law is additive increase, multiplicative decrease, as in TCP (RFC 5681): the pace is halved when too many alerts
// waited too long, grows by a sixteenth of what it was before that while they don't, and doubles until the first cut and once it
// is past twice the last peak. How much an alert may wait is no constant but what alerts wait where nothing is walked: see
// [signal]. Where no alert came for [alertsGone] there is no pace at all; what is bounded then is what Kafka has not
// acknowledged (maxOutstanding), so that an alert finds room.
//
// While alerts come, nothing is walked for [probeFor] every [probeEvery], as BBR drains its queue now and then: how
// long alerts wait without broadcasts changes with the machine and the number of alerts, and a process that has just started
// does not know it.
type pace struct {
	bound float64 // records a second, whatever alerts say; 0: none

	mu            sync.Mutex
	alerts, kafka signal
	perSecond     float64 // 0: no pace
	peak          float64 // before the last cut; 0: there was none, or it is passed
	cause         hold    // of the last cut
	next          time.Time
	sockets       time.Time // when more connected users may be handed over
	walked        time.Time // the last slice
	alert         time.Time // the last alert
	stepped, cut  time.Time
	told          int // what alerts told since the last step
	full          time.Time
	probed        time.Time
	probing       bool
	meter         meter
}

// hold is what holds broadcasts back.
type hold int

const (
	holdNothing hold = iota
	holdAlerts       // alerts are taken later than without broadcasts, or it is not known yet whether they are
	holdKafka        // Kafka acknowledges late
	holdBound        // --walk-records
	holds
)

// holdNames are the values of the label held_by.
var holdNames = [holds]string{"nothing", "alerts", "kafka", "bound"}

func (h hold) String() string { return holdNames[h] }

const (
	// firstPace is where the first broadcast beside alerts begins, in records a second, and where one goes on that an alert
	// meets: it doubles from there. To begin with more would be a burst that fills gateways' and Kafka's queues for seconds
	// before the first alert tells of it.
	firstPace = 40_000
	// socketsBeside is how many connected users a second are handed to gateways while alerts come. What fills up then is
	// gateways and sockets, which neither of the signals sees; so this is a constant until one does.
	socketsBeside = 2_500
	// leastPace ends a broadcast, whatever alerts say: for a million users who are away that takes some three minutes.
	leastPace = 10_000
	// paceStep is how often the pace changes at most: what was walked before a cut has to pass Kafka before the cut shows.
	// It grows only once stepAlerts, two for each alert, have told how they fare with it.
	paceStep   = 250 * time.Millisecond
	stepAlerts = 8
	// paceBurst is what a pace makes good for: loops look at the time every few milliseconds only.
	paceBurst = 10 * time.Millisecond
	// alertsGone is how long no alert must have come until broadcasts have no pace: who has an alert a minute keeps the pace.
	alertsGone = time.Minute
	probeEvery = 10 * time.Second
	probeFor   = 400 * time.Millisecond
	// What was walked is felt for so long: probeSettle until most of it is through Kafka, settle until also its feedback is.
	probeSettle = 100 * time.Millisecond
	settle      = time.Second
)

func newPace(bound int) *pace { return &pace{bound: float64(bound)} }

// taken notes that an alert is taken from its lane, and when intake wrote it. Only what all ages of the last minute have in
// common tells how far the two clocks are apart, so nothing but the difference to the least of them counts.
func (c *pace) taken(now, written time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.alert = now
	c.observe(&c.alerts, now, now.Sub(written), holdAlerts)
}

// acked notes how long Kafka took for an alert's record to its channel.
func (c *pace) acked(now time.Time, took time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.observe(&c.kafka, now, took, holdKafka)
}

func (c *pace) observe(s *signal, now time.Time, value time.Duration, h hold) {
	excess := s.excess(now, value)
	switch since := now.Sub(c.walked) - excess; { // when it began to wait
	case since >= settle || c.probing && since >= probeSettle:
		if c.probing || now.Sub(s.learnt) >= learnEvery {
			s.learn(now, excess)
		}
		return
	case since >= settle-excess: // it is over, and was not when this began to wait
		return
	}
	if c.perSecond == 0 {
		c.perSecond, c.stepped = firstPace, now
	}
	c.told++
	if s.judge(now, excess) && now.Sub(c.cut) >= paceStep {
		c.peak, c.perSecond = c.perSecond, max(c.perSecond/2, leastPace)
		c.cut, c.stepped, c.cause, c.told = now, now, h, 0
		c.alerts.share, c.kafka.share = c.alerts.share/2, c.kafka.share/2
	}
}

// from is when the next slice may be walked, now or later.
func (c *pace) from(now time.Time) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.step(now)
	if end := c.probe(now); end.After(now) {
		return end
	}
	return now
}

// spent notes what came of a slice, in records, and says when its partition may walk the next: partitions take
// turns.
func (c *pace) spent(now time.Time, records int) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.walked = now
	c.meter.add(now, float64(records))
	limit, _ := c.limit()
	if limit == 0 {
		c.next = now
		return now
	}
	c.next = after(c.next, now, time.Duration(float64(records)/limit*float64(time.Second)))
	return c.next
}

// after moves the time of what goes next by what the last took. What was not used before is made good for, up to paceBurst.
func after(next, now time.Time, takes time.Duration) time.Time {
	if burst := now.Add(-paceBurst); next.Before(burst) {
		next = burst
	}
	return next.Add(takes)
}

// routed notes that a slice was handed over for so many connected users, and says when its partition may walk the next.
func (c *pace) routed(now time.Time, users int) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone(now) {
		return now
	}
	c.sockets = after(c.sockets, now, time.Duration(users)*time.Second/socketsBeside)
	return c.sockets
}

// noAlerts says that none came for so long that none is expected to wait behind what is walked.
func (c *pace) noAlerts(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.gone(now)
}

// gone is noAlerts for who holds mu.
func (c *pace) gone(now time.Time) bool { return now.Sub(c.alert) >= alertsGone }

// waits notes that Kafka has to acknowledge something before more is walked.
func (c *pace) waits(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.full = now
}

// step lets the pace grow.
func (c *pace) step(now time.Time) {
	switch {
	case c.perSecond == 0 && !c.gone(now):
		c.perSecond, c.stepped, c.told = firstPace, now, 0
	case c.perSecond == 0:
	case c.gone(now):
		c.perSecond, c.peak = 0, 0
		c.alerts.share, c.kafka.share = 0, 0
	case c.told < stepAlerts || now.Sub(c.stepped) < paceStep:
	case c.meter.rate(now) < c.perSecond/2: // nobody uses it
		c.stepped, c.told = now, 0
	default:
		if c.perSecond >= 2*c.peak {
			c.peak = 0
		}
		if c.peak == 0 {
			c.perSecond *= 2
		} else {
			c.perSecond += c.peak / 16
		}
		c.stepped, c.told = now, 0
	}
}

// probe is until when nothing is walked, to see how long alerts wait without.
func (c *pace) probe(now time.Time) (end time.Time) {
	if c.gone(now) {
		c.probing = false
		return now
	}
	if !c.probing && now.Sub(c.probed) >= probeEvery && (now.Sub(c.alerts.learnt) >= probeEvery || c.alerts.n < enough) {
		c.probing, c.probed = true, now
	}
	end = c.probed.Add(probeFor)
	c.probing = c.probing && now.Before(end)
	if !c.probing {
		return now
	}
	return end
}

// limit is the pace, or 0, and what sets it.
func (c *pace) limit() (perSecond float64, h hold) {
	if c.bound > 0 && (c.perSecond == 0 || c.bound < c.perSecond) {
		return c.bound, holdBound
	}
	if c.perSecond == 0 {
		return 0, holdNothing
	}
	return c.perSecond, max(c.cause, holdAlerts)
}

// now is how many records a second broadcasts may write or cause (0: as many as there is room for), how many they did last, and
// what holds them back.
func (c *pace) now(now time.Time) (limit, walked float64, h hold) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.step(now)
	limit, h = c.limit()
	walked = c.meter.rate(now)
	switch {
	case now.Sub(c.full) < time.Second:
		h = holdKafka
	case walked < limit/2 && !c.probing:
		h = holdNothing
	}
	return limit, walked, h
}

// signal is one of the ways to see how alerts fare: how long they waited at one place, beyond the least of
// the last minute (as CoDel has it), and how that compares to what they waited while nothing was walked.
type signal struct {
	least  [2]time.Duration // of this half minute, and of the one before
	began  time.Time
	ring   [128]time.Duration // of what was seen while nothing was walked
	n, at  int
	learnt time.Time
	most   time.Duration // what may be waited; 0: to be found
	judged time.Time
	share  float64 // of those who waited longer, a moving mean
}

const (
	leastFor = 30 * time.Second
	// learnEvery makes the ring ten seconds long at least, however many alerts there are. A probe takes all.
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
	late := 0.0
	if excess > s.allowed() {
		late = 1
	}
	s.share += (late - s.share) * min(1.0/shareOver, now.Sub(s.judged).Seconds()/shareFor.Seconds())
	s.judged = now
	return s.share > mostShare
}

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
