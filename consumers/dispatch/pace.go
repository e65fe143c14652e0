package dispatch

import (
	"sync"
	"time"
)

// pace says how fast this process walks its broadcasts, from what its alerts suffer; no process asks another one.
//
// It paces two things, each by an [allowance] of its own: records, which Kafka and dispatch have to do with, and connected users,
// whose gateways, sockets and acknowledgements are another kind of work. The law of both is additive increase, multiplicative
// decrease, as in TCP (RFC 5681): a pace is halved when too many alerts waited too long, grows by a sixteenth of what it was
// before that while they don't, and by a quarter of what it is until the first cut and once it is past twice the last peak. Where half
// as many waited too long it stays as it is.
//
// TCP doubles there. But a window stops what is sent when answers are late, and a pace does not: what is handed over beyond what a
// machine does is waited for by every alert until one tells of it and all of that is done. At twice what it does, half a second of
// that costs alerts half a second; at a quarter more, an eighth.
//
// Three signals tell how alerts fare: their age when dispatch takes them, how long Kafka takes for their record to a channel, and
// how long it is from there to their user's socket, which gateways tell by their facts. The last cuts only what is handed to
// gateways; the first two cut both. How much an alert may wait is no constant but what alerts wait where nothing is walked: see
// [signal]. Where no alert came for [alertsGone] there is no pace at all; what is bounded then is what Kafka has not
// acknowledged (maxOutstanding), so that an alert finds room.
//
// Gateways tell late: facts are gathered there, and read back. So what a gateway tells counts for the pace that was in force when
// dispatch handed the alert over. A pace that alerts have not met yet does not grow, and is not cut for the one before.
//
// While alerts come, nothing is walked for [probeFor] every [probeEvery], as BBR drains its queue now and then: how
// long alerts wait without broadcasts changes with the machine and the number of alerts, and a process that has just started
// does not know it.
type pace struct {
	bound float64 // records a second, whatever alerts say; 0: none

	mu            sync.Mutex
	alerts, kafka signal
	gateways      gateways
	records       allowance
	sockets       allowance // connected users
	walked        time.Time // the last slice
	before        gap       // the last time without slices that was long enough to learn from
	alert         time.Time // the last alert
	handed        time.Time // the last one of which a gateway will tell
	full          time.Time
	probed        time.Time
	probing       bool
}

// gap is a time in which nothing was walked.
type gap struct {
	from, to time.Time
	probe    bool
}

// hold is what holds broadcasts back.
type hold int

const (
	holdNothing  hold = iota
	holdAlerts        // alerts are taken later than without broadcasts, or it is not known yet whether they are
	holdKafka         // Kafka acknowledges late
	holdGateways      // gateways hand alerts to sockets later than without broadcasts
	holdBound         // --walk-records
	holds
)

// holdNames are the values of the label held_by.
var holdNames = [holds]string{"nothing", "alerts", "kafka", "gateways", "bound"}

func (h hold) String() string { return holdNames[h] }

const (
	// firstPace is where the first broadcast beside alerts begins, in records a second, and where one goes on that an alert
	// meets: it grows from there. To begin with more would be a burst that fills gateways' and Kafka's queues for seconds
	// before the first alert tells of it. firstSockets is the same in connected users a second.
	firstPace    = 40_000
	firstSockets = 2_500
	// leastPace ends a broadcast, whatever alerts say: for a million users who are away that takes some three minutes. leastSockets
	// is as much in connected users, of whom each counts as routedCost.
	leastPace    = 10_000
	leastSockets = leastPace / routedCost
	// paceStep is how often the pace changes at most: what was walked before a cut has to pass Kafka before the cut shows.
	// It grows only once stepAlerts, two for each alert, have told how they fare with it.
	paceStep   = 250 * time.Millisecond
	stepAlerts = 8
	// paceGrows is what a step multiplies the pace by until the first cut.
	paceGrows = 1.25
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

func newPace(bound int) *pace {
	return &pace{
		bound:   float64(bound),
		records: allowance{first: firstPace, least: leastPace},
		sockets: allowance{first: firstSockets, least: leastSockets},
	}
}

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

// observe takes what one of the first two signals tells of the pace as it is now.
func (c *pace) observe(s *signal, now time.Time, value time.Duration, h hold) {
	excess := s.excess(now, value)
	began := now.Add(-excess)
	switch calm, probe := c.calm(began, now); {
	case calm >= settle || probe && calm >= probeSettle:
		s.learnIn(now, excess, probe)
	case now.Sub(c.walked) >= settle: // it is over, and was not when this began to wait
	default:
		c.meet(now)
		c.records.tell(began, 1)
		if now.Sub(c.handed) >= silentFor { // gateways have nothing to tell
			c.sockets.tell(began, 1)
		}
		if s.judge(now, excess) {
			c.cut(now, now, h)
		}
	}
}

// handsOver notes that an alert is written to a node, which will tell of it. alone: to no other node. Of several, whoever is first ends
// the alert, and what the others tell of it is not seen.
func (c *pace) handsOver(now time.Time, node string, alone bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.handed = now
	if n := c.gateways.of(now, []byte(node)); n != nil && alone {
		n.handed(now)
	}
}

// arrived notes when an alert was given to a socket, by the clock of its node, and when dispatch wrote it to that node. The clocks
// may differ, as with taken.
func (c *pace) arrived(now, routed, sent time.Time, node []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.gateways.of(now, node)
	if n == nil {
		return
	}
	n.tells(now, routed)
	excess := n.excess(now, sent.Sub(routed))
	calm, probe := c.calm(routed, routed.Add(excess))
	if calm >= settle || probe && calm >= probeSettle {
		n.learnIn(now, excess, probe)
		return
	}
	if c.sockets.used.IsZero() {
		return
	}
	c.meet(now)
	c.sockets.tell(routed, 2)
	if c.gateways.judge(now, n, excess, routed, &c.sockets) {
		c.cut(now, routed, holdGateways)
	}
}

// calm is for how long nothing had been walked when an alert began to wait, and whether that was a probe; 0 where something was
// walked before its wait was over.
func (c *pace) calm(began, ended time.Time) (since time.Duration, probe bool) {
	switch {
	case !began.Before(c.walked):
		return began.Sub(c.walked), c.probing
	case began.After(c.before.from) && ended.Before(c.before.to):
		return began.Sub(c.before.from), c.before.probe
	default:
		return 0, false
	}
}

// meet gives the pace to a broadcast that an alert meets.
func (c *pace) meet(now time.Time) {
	c.records.begin(now)
	c.sockets.begin(now)
}

// cut answers alerts that began to wait at the time of.
func (c *pace) cut(now, of time.Time, h hold) {
	cut := c.sockets.halve(now, of, h)
	if h != holdGateways {
		cut = c.records.halve(now, of, h) || cut
	}
	if cut {
		c.alerts.share.of, c.kafka.share.of = c.alerts.share.of/2, c.kafka.share.of/2
		c.gateways.reset()
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

// spent notes what came of a slice: so many records, and connected users it is sent to. It says when its partition may walk the
// next: partitions take turns.
func (c *pace) spent(now time.Time, records, users int) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.Sub(c.walked) >= 2*probeSettle {
		c.before = gap{c.walked, now, c.probed.After(c.walked)}
	}
	c.walked = now
	limit, _ := c.limit()
	next := c.records.use(now, records, limit)
	if users > 0 {
		if at := c.sockets.use(now, users, c.sockets.perSecond); at.After(next) {
			next = at
		}
	}
	return next
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

// step lets the paces grow.
func (c *pace) step(now time.Time) {
	switch {
	case !c.gone(now):
		c.meet(now)
		c.records.step(now, c.trouble)
		c.sockets.step(now, c.gateways.trouble)
	case c.records.perSecond > 0:
		c.records.end()
		c.sockets.end()
		c.alerts.share.of, c.kafka.share.of = 0, 0
		c.gateways.reset()
	}
}

// trouble says that alerts begin to wait too long: it is not the time to write more.
func (c *pace) trouble(now time.Time) bool {
	return c.alerts.share.past(now, mostShare/2) || c.kafka.share.past(now, mostShare/2)
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

// limit is the pace of records, or 0, and what sets it.
func (c *pace) limit() (perSecond float64, h hold) {
	if c.bound > 0 && (c.records.perSecond == 0 || c.bound < c.records.perSecond) {
		return c.bound, holdBound
	}
	return c.records.perSecond, c.records.holds()
}

// Pace is how fast one process goes on with its broadcasts.
type Pace struct {
	// Limit is how many records a second they may write or cause now, and Connected to how many connected users a second they may be
	// sent; 0: as many as there is room for.
	Limit, Connected float64
	// PerSecond and ConnectedPerSecond are what they did last.
	PerSecond, ConnectedPerSecond float64
	// HeldBy is what holds them back: nothing, alerts, kafka, gateways or bound.
	HeldBy string

	by hold
}

// now is the pace at this moment.
func (c *pace) now(now time.Time) (p Pace) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.step(now)
	p.Limit, p.by = c.limit()
	p.Connected = c.sockets.perSecond
	p.PerSecond, p.ConnectedPerSecond = c.records.meter.rate(now), c.sockets.meter.rate(now)
	switch {
	case now.Sub(c.full) < time.Second:
		p.by = holdKafka
	case c.probing:
	case p.Connected > 0 && p.ConnectedPerSecond >= p.Connected/2 && p.by != holdBound:
		p.by = c.sockets.holds()
	case p.PerSecond < p.Limit/2:
		p.by = holdNothing
	}
	p.HeldBy = p.by.String()
	return p
}
