package dispatch

import "time"

// gateways judges how long alerts take from dispatch to their user's socket. Each node has a clock and a distance of its own, so
// each is compared with itself alone: its least of the last minute, and what it is while nothing is walked. One judgement
// follows from all of them, since a walk goes over users in the order of their ids and can't pass over those of a node.
//
// A node that is slow for other reasons than what is walked must not hold all broadcasts for good. One whose alerts are late though
// the pace has been the least for [asideAfter], while most nodes' are not, is set aside: for [asideFor] it has no say. So it costs a
// broadcast some seconds of each minute; and its own users' alerts still pass what is less urgent there.
type gateways struct {
	nodes map[string]*gateway
	all   share // of the alerts of all nodes that have a say
	swept time.Time
}

type gateway struct {
	signal
	heard time.Time // the last alert that was handed to it, or that it told of
	aside time.Time // it has no say until then
	// The share of all that it told lately. The signal's own begins anew with each cut: an alert that was handed over before a cut
	// is no reason for another, but one not to grow.
	lately share
	// The first alert that was handed to it since the last one that it told of, and how long it takes until it tells, a moving mean.
	// Zero: it has told of all there may be.
	pending time.Time
	delay   time.Duration
}

const (
	// nodeShare of a node's alerts are late where it suffers while others don't: among many nodes they are too few for mostShare
	// of all, and each by itself must not cut for what is chance. Few alerts go to one of many, so the mean is over fewer.
	nodeShare  = 0.25
	nodeOver   = 8
	asideAfter = 5 * time.Second
	asideFor   = time.Minute
	// A node is silent where it tells nothing for silentTimes as long as it usually takes, and paceStep. An alert of which it has not
	// told by silentFor is none of which it will.
	silentTimes = 2
	silentFor   = 10 * time.Second
	// A node that no alert went to for nodeFor is forgotten. 1.2 KB each.
	nodeFor  = 10 * time.Minute
	maxNodes = 1_000
)

// of is what is known of a node; nil: there are too many.
func (g *gateways) of(now time.Time, node []byte) *gateway {
	if now.Sub(g.swept) >= leastFor {
		g.swept = now
		for name, n := range g.nodes {
			if now.Sub(n.heard) >= nodeFor {
				delete(g.nodes, name)
			}
		}
	}
	n := g.nodes[string(node)]
	if n == nil {
		if len(g.nodes) >= maxNodes {
			return nil
		}
		if g.nodes == nil {
			g.nodes = map[string]*gateway{}
		}
		n = &gateway{}
		g.nodes[string(node)] = n
	}
	n.heard = now
	return n
}

// handed: an alert is on its way to the node.
func (n *gateway) handed(now time.Time) {
	if n.pending.IsZero() || now.Sub(n.pending) >= silentFor {
		n.pending = now
	}
}

// tells: the node told of an alert that was handed to it then.
func (n *gateway) tells(now, routed time.Time) {
	if !routed.Before(n.pending) {
		n.pending = time.Time{}
	}
	n.delay += (min(max(now.Sub(routed), 0), silentFor) - n.delay) / 8
}

// trouble says that alerts begin to be late, or a node's are, or that it does not tell of them: it is not the time to hand over more.
// A node that died while its alerts were late is no reason.
func (g *gateways) trouble(now time.Time) bool {
	if g.all.past(now, mostShare/2) {
		return true
	}
	for _, n := range g.nodes {
		waits := now.Sub(n.pending)
		silent := !n.pending.IsZero() && waits > silentTimes*n.delay+paceStep && waits < silentFor
		if !now.Before(n.aside) && (silent || n.lately.past(now, nodeShare)) {
			return true
		}
	}
	return false
}

// judge takes what was seen of a node while something was walked, and says whether too many waited too long since the last cut.
// routed is when the alert was handed over.
func (g *gateways) judge(now time.Time, n *gateway, excess time.Duration, routed time.Time, pace *allowance) bool {
	late := excess > n.allowed()
	lately := n.lately.add(now, late, nodeOver) > nodeShare
	if now.Before(n.aside) {
		return false
	}
	if lately && !pace.lowest.IsZero() && now.Sub(pace.lowest) >= asideAfter && !g.mostLate(now) {
		n.aside = now.Add(asideFor)
		g.reset() // most of it was of this node
		return false
	}
	if routed.Before(pace.cut) {
		return false
	}
	own := n.share.add(now, late, nodeOver) > nodeShare
	return g.all.add(now, late, shareOver) > mostShare || own
}

// mostLate says that too many alerts are late at most of the nodes that tell of any. Those that told before, and are gone, are not
// well for that.
func (g *gateways) mostLate(now time.Time) bool {
	tell, late := 0, 0
	for _, n := range g.nodes {
		if n.lately.tells(now) {
			tell++
		}
		if n.lately.past(now, nodeShare) {
			late++
		}
	}
	return 2*late > tell
}

// reset begins all shares anew: the pace is another one.
func (g *gateways) reset() {
	g.all.of = 0
	for _, n := range g.nodes {
		n.share.of = 0
	}
}
