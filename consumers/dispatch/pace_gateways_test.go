package dispatch

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// node is a gateway as a queue: it gives so many users a second to their sockets, in the order in which they come, and tells
// of alerts some time later. The pace does not know how many.
type node struct {
	name  string
	able  float64       // users a second
	skew  time.Duration // of its clock
	hold  time.Duration // how late its facts are read
	stall func(time.Time) time.Duration
	free  time.Time // when it has done what it has
}

// take puts n users into the queue and says when the last of them is done.
func (n *node) take(now time.Time, users float64) time.Time {
	if n.free.Before(now) {
		n.free = now
	}
	n.free = n.free.Add(time.Duration(users / n.able * float64(time.Second)))
	return n.free
}

type told struct {
	at, routed, sent time.Time
	node             string
}

// crowd is a machine whose users are all connected, on its nodes, in equal parts.
type crowd struct {
	*machine
	nodes  []*node
	turn   int
	facts  []told
	users  float64
	waits  map[string][]time.Duration
	silent bool // gateways tell nothing
}

func newCrowd(seed uint64, able ...float64) *crowd {
	c := &crowd{machine: newMachine(seed), waits: map[string][]time.Duration{}}
	for i, a := range able {
		c.nodes = append(c.nodes, &node{name: fmt.Sprint("n", i), able: a, hold: 60 * time.Millisecond, skew: time.Duration(i) * time.Hour})
	}
	return c
}

const (
	sliceOf  = 16 // connected users, as while alerts come
	slicesOf = 25 // in a tick: what the partition itself can do
)

// run lets time pass; where walking, there is always somebody more who is connected.
func (c *crowd) run(d time.Duration, walking bool) {
	free := c.now // when the partition may walk
	for end := c.now.Add(d); c.now.Before(end); c.now = c.now.Add(tickOf) {
		for n := 0; walking && n < slicesOf && free.Before(c.now.Add(tickOf)) && !c.from(c.now).After(c.now); n++ {
			free = c.spent(c.now, sliceOf*(routedCost+1), sliceOf)
			c.users += sliceOf
			for _, n := range c.nodes {
				n.take(c.now, sliceOf/float64(len(c.nodes)))
			}
		}
		if !c.now.Before(c.due) {
			c.due = c.now.Add(c.every)
			c.alert(c.nodes[c.turn%len(c.nodes)])
			c.turn++
		}
		c.facts = slices.DeleteFunc(c.facts, func(f told) bool {
			if f.at.After(c.now) {
				return false
			}
			c.arrived(c.now, f.routed, f.sent, []byte(f.node))
			return true
		})
	}
}

// alert goes to a user of the node. Dispatch and Kafka are never busy here.
func (c *crowd) alert(n *node) {
	c.taken(c.now, c.now.Add(-time.Millisecond))
	c.acked(c.now, 2*time.Millisecond)
	wait := n.take(c.now, 1).Sub(c.now) + time.Duration(c.random.ExpFloat64()*float64(c.alone))
	if n.stall != nil {
		wait += n.stall(c.now)
	}
	c.waits[n.name] = append(c.waits[n.name], wait)
	if !c.silent {
		c.handsOver(c.now, n.name, true)
		c.facts = append(c.facts, told{c.now.Add(wait + n.hold), c.now, c.now.Add(wait + n.skew), n.name})
	}
}

// during runs with a broadcast, second by second, and says how many connected users a second had it, and in how many of the
// seconds alerts waited at most twice as long as most.
func (c *crowd) during(seconds int, most time.Duration) (perSecond, well float64) {
	c.users = 0
	for range seconds {
		clear(c.waits)
		c.run(time.Second, true)
		if c.p99() <= 2*most {
			well++
		}
	}
	return c.users / float64(seconds), well / float64(seconds)
}

// p99 of all alerts since waits was cleared.
func (c *crowd) p99() time.Duration {
	var all []time.Duration
	for _, w := range c.waits {
		all = append(all, w...)
	}
	return quantile(all, 0.99)
}

// quiet is what alerts wait without a broadcast.
func (c *crowd) quiet() time.Duration {
	clear(c.waits)
	c.run(30*time.Second, false)
	return c.p99()
}

// Whatever gateways can do, connected users are handed over at between half and all of it, and alerts fare well most of the
// time. No other signal sees that: without what gateways tell, alerts would wait for seconds.
func TestThePaceOfConnectedUsersFitsTheGateways(t *testing.T) {
	t.Parallel()
	for name, is := range map[string]struct {
		able []float64
		fits float64 // what all of them can do together, since users are on them in equal parts
		hold time.Duration
		well float64
	}{
		"5,000 a second":                   {able: []float64{5_000}, fits: 5_000},
		"20,000 a second":                  {able: []float64{20_000}, fits: 20_000},
		"100,000 a second":                 {able: []float64{100_000}, fits: 100_000},
		"two gateways":                     {able: []float64{10_000, 10_000}, fits: 20_000},
		"two gateways, one of them slower": {able: []float64{20_000, 5_000}, fits: 10_000},
		"20 gateways, one of them slower": {
			// One alert in twenty goes to the slow one, which tells five times a second: it is late by itself before anybody knows.
			able: append(slices.Repeat([]float64{10_000}, 19), 2_500), fits: 50_000, well: 0.4,
		},
		"facts that are late": {able: []float64{20_000}, fits: 20_000, hold: 500 * time.Millisecond, well: 0.5},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCrowd(7, is.able...)
			for _, n := range c.nodes {
				n.hold = max(n.hold, is.hold)
			}
			quiet := c.quiet()
			_, _ = c.during(20, quiet) // it finds its pace
			perSecond, well := c.during(120, quiet)
			t.Logf("quiet %s; %.0f users a second of %.0f, alerts fare well in %.0f%% of the seconds", quiet, perSecond, is.fits, 100*well)
			if perSecond < is.fits/2 || perSecond > is.fits {
				t.Errorf("%.0f users a second, gateways do %.0f", perSecond, is.fits)
			}
			if well < cmp.Or(is.well, 0.75) {
				t.Errorf("alerts fare well in %.0f%% of the seconds", 100*well)
			}
		})
	}
}

// TestWithoutTheirSignalGatewaysDrown holds the test above to what it is about.
func TestWithoutTheirSignalGatewaysDrown(t *testing.T) {
	t.Parallel()
	c := newCrowd(7, 5_000)
	c.silent = true
	quiet := c.quiet()
	if perSecond, well := c.during(20, quiet); perSecond < 5_000 || well > 0.5 {
		t.Errorf("%.0f users a second, alerts fare well in %.0f%% of the seconds", perSecond, 100*well)
	}
}

// TestABroadcastBeginsWithoutABacklog: in its first seconds it looks for what the machine can do, and must not find that by far more
// than that. A pace that doubles has alerts wait 7 to 50 times as long as alone here, since it is told late.
func TestABroadcastBeginsWithoutABacklog(t *testing.T) {
	t.Parallel()
	for name, is := range map[string]struct {
		able        float64
		hold, every time.Duration
	}{
		"5,000 a second":            {5_000, 60 * time.Millisecond, 10 * time.Millisecond},
		"20,000 a second":           {20_000, 60 * time.Millisecond, 10 * time.Millisecond},
		"few alerts":                {20_000, 60 * time.Millisecond, 100 * time.Millisecond},
		"facts that are late":       {20_000, 300 * time.Millisecond, 10 * time.Millisecond},
		"facts that are quite late": {20_000, 600 * time.Millisecond, 10 * time.Millisecond},
		"gateways that do more":     {100_000, 300 * time.Millisecond, 10 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const runs = 4
			times := 0.0
			for seed := range uint64(runs) {
				c := newCrowd(seed, is.able)
				c.nodes[0].hold, c.every = is.hold, is.every
				quiet := c.quiet()
				clear(c.waits)
				c.run(5*time.Second, true)
				times += float64(c.p99()) / float64(quiet) / runs
			}
			t.Logf("alerts wait %.1f times as long as alone", times)
			if times > 4 {
				t.Errorf("alerts wait %.1f times as long as alone", times)
			}
		})
	}
}

// A gateway that gets slower in the middle of a broadcast, and faster again.
func TestThePaceFollowsAGateway(t *testing.T) {
	t.Parallel()
	c := newCrowd(5, 20_000)
	quiet := c.quiet()
	_, _ = c.during(20, quiet)
	for _, able := range []float64{10_000, 40_000} {
		c.nodes[0].able = able
		_, _ = c.during(20, quiet)
		if perSecond, well := c.during(60, quiet); perSecond < able/2 || perSecond > able || well < 0.75 {
			t.Errorf("%.0f users a second of %.0f, alerts fare well in %.0f%% of the seconds", perSecond, able, 100*well)
		}
	}
}

// A gateway that is sick by itself has its say, and is set aside when it turns out that broadcasts are not to blame.
func TestASickGatewayDoesNotHoldBroadcastsForGood(t *testing.T) {
	t.Parallel()
	c := newCrowd(3, 20_000, 20_000, 20_000)
	quiet := c.quiet()
	_, _ = c.during(20, quiet)
	c.nodes[1].stall = func(time.Time) time.Duration { return time.Duration(c.random.Int64N(int64(2 * time.Second))) }
	perSecond, _ := c.during(120, quiet)
	if perSecond < 60_000/3 {
		t.Errorf("%.0f users a second, of 60000", perSecond)
	}
	c.nodes[1].stall = nil
	c.run(2*asideFor, true)
	if perSecond, well := c.during(30, quiet); perSecond < 30_000 || well < 0.75 {
		t.Errorf("it is well again: %.0f users a second, alerts fare well in %.0f%% of the seconds", perSecond, 100*well)
	}
}

// While most gateways are late it is no single one's fault, and the pace stays the least: the broadcast ends all the same.
func TestWhereAllGatewaysAreLateThePaceIsTheLeast(t *testing.T) {
	t.Parallel()
	c := newCrowd(3, 20_000, 20_000)
	quiet := c.quiet()
	_, _ = c.during(5, quiet)
	for _, n := range c.nodes {
		n.stall = func(time.Time) time.Duration { return time.Duration(c.random.Int64N(int64(2 * time.Second))) }
	}
	_, _ = c.during(10, quiet)
	if perSecond, _ := c.during(30, quiet); perSecond < leastSockets*0.9 || perSecond > leastSockets*1.2 {
		t.Errorf("%.0f users a second", perSecond)
	}
	if p := c.pace.now(c.now); p.by != holdGateways {
		t.Errorf("held by %s", p.by)
	}
}

// A gateway that dies while its alerts are late tells nothing any more, for good or bad.
func TestAGatewayThatDiedLateDoesNotHoldBroadcasts(t *testing.T) {
	t.Parallel()
	c := newCrowd(3, 20_000, 20_000, 20_000)
	quiet := c.quiet()
	_, _ = c.during(10, quiet)
	c.nodes[1].stall = func(time.Time) time.Duration { return time.Duration(c.random.Int64N(int64(2 * time.Second))) }
	_, _ = c.during(3, quiet)
	c.nodes = slices.Delete(c.nodes, 1, 2)
	_, _ = c.during(30, quiet)
	if perSecond, well := c.during(30, quiet); perSecond < 40_000/2 || well < 0.75 {
		t.Errorf("%.0f users a second of 40000, alerts fare well in %.0f%% of the seconds", perSecond, 100*well)
	}
}

// Gateways that told before and are gone, as after a rollout, are not most of those that do well.
func TestGatewaysThatAreGoneDoNotOutvoteThoseThatAreLate(t *testing.T) {
	t.Parallel()
	c := newCrowd(3, 20_000, 20_000, 20_000, 20_000)
	quiet := c.quiet()
	_, _ = c.during(10, quiet)
	c.nodes = c.nodes[2:]
	_, _ = c.during(20, quiet)
	for _, n := range c.nodes {
		n.stall = func(time.Time) time.Duration { return time.Duration(c.random.Int64N(int64(2 * time.Second))) }
	}
	_, _ = c.during(10, quiet)
	if perSecond, _ := c.during(30, quiet); perSecond > leastSockets*1.2 {
		t.Errorf("%.0f users a second", perSecond)
	}
}

// Of an alert that goes to two nodes the first that tells ends it. The other is not silent for that.
func TestOfTwoNodesThatHaveAnAlertNoneIsSilent(t *testing.T) {
	t.Parallel()
	p, now := newPace(0), time.Unix(1_800_000_000, 0)
	for _, node := range []string{"n1", "n2"} {
		p.handsOver(now, node, false)
	}
	p.arrived(now.Add(50*time.Millisecond), now, now.Add(time.Millisecond), []byte("n1"))
	if p.gateways.trouble(now.Add(2 * time.Second)) {
		t.Error("n2 is taken to be silent")
	}
	p.handsOver(now, "n2", true)
	if !p.gateways.trouble(now.Add(2 * time.Second)) {
		t.Error("a node that tells nothing of what it alone has is not silent")
	}
}

// What alerts have not met yet does not let the pace grow: before it has doubled again, alerts that were handed over since have
// come to their sockets.
func TestThePaceDoesNotOutrunWhatGatewaysTell(t *testing.T) {
	t.Parallel()
	c := newCrowd(9, 100_000)
	c.quiet()
	c.nodes[0].hold = 2 * time.Second
	c.sockets.end()
	c.run(1900*time.Millisecond, true)
	if c.sockets.perSecond != firstSockets {
		t.Errorf("%.0f users a second before a gateway told anything", c.sockets.perSecond)
	}
	c.run(8*time.Second, true)
	if most := firstSockets * math.Pow(2, 5); c.sockets.perSecond > most || c.sockets.perSecond == firstSockets {
		t.Errorf("%.0f users a second after ten seconds, it may double every two", c.sockets.perSecond)
	}
}

// Where alerts go to phones alone, gateways have nothing to tell, and don't hold anything.
func TestAlertsToPhonesDoNotHoldConnectedUsers(t *testing.T) {
	t.Parallel()
	c := newCrowd(9, 100_000)
	c.silent = true
	c.quiet()
	c.run(10*time.Second, true)
	if c.sockets.perSecond < 4*firstSockets {
		t.Errorf("%.0f users a second", c.sockets.perSecond)
	}
}

// Nor does an alert to a socket now and then, beside many of which gateways tell nothing: the pace would grow by those few alone.
func TestAnAlertToASocketNowAndThenDoesNotHoldConnectedUsers(t *testing.T) {
	t.Parallel()
	c := newCrowd(9, 100_000)
	c.silent = true
	c.quiet()
	for range 3 {
		c.handsOver(c.now, "n0", true)
		c.arrived(c.now, c.now, c.now.Add(time.Millisecond), []byte("n0"))
		c.run(30*time.Second, true)
	}
	if c.sockets.perSecond < 4*firstSockets {
		t.Errorf("%.0f users a second", c.sockets.perSecond)
	}
}

// Connected users begin as a trickle beside alerts, and without alerts nothing holds them.
func TestConnectedUsersBesideAlertsAreNoBurst(t *testing.T) {
	t.Parallel()
	p, now := newPace(0), time.Unix(1_800_000_000, 0)
	if at := p.spent(now, 0, 1_000_000); at.After(now) {
		t.Errorf("without alerts the next slice waits for %s", at.Sub(now))
	}
	p.taken(now, now)
	var at time.Time
	for range 10 {
		p.from(now)
		at = p.spent(now, 0, firstSockets/10)
	}
	if wait := at.Sub(now); wait < time.Second-2*paceBurst || wait > time.Second {
		t.Errorf("a second's worth of them takes %s", wait)
	}
}

// However clocks differ and whatever gateways tell, connected users are handed over at the least pace or faster.
func TestNoGatewayHoldsConnectedUsersForGood(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		c, now := newPace(0), time.Unix(1_800_000_000, 0)
		odd := rapid.OneOf(rapid.Int64(), rapid.Int64Range(-int64(time.Hour), int64(time.Hour)), rapid.Int64Range(0, int64(time.Second)))
		const users = 16
		owed := time.Duration(0)
		for range rapid.IntRange(1, 300).Draw(t, "steps") {
			passed := time.Duration(rapid.Int64Range(0, int64(300*time.Millisecond)).Draw(t, "pause"))
			now, owed = now.Add(passed), max(owed-passed, 0)
			switch rapid.IntRange(0, 2).Draw(t, "what") {
			case 0:
				c.taken(now, now)
				c.handsOver(now, "n", true)
			case 1:
				routed := now.Add(-time.Duration(rapid.Int64Range(0, int64(time.Minute)).Draw(t, "ago")))
				c.arrived(now, routed, routed.Add(time.Duration(odd.Draw(t, "took"))), []byte(rapid.StringN(0, 1, -1).Draw(t, "node")))
			default:
				if at := c.from(now); at.Sub(now) > probeFor {
					t.Fatalf("held for %s", at.Sub(now))
				}
				owed += time.Duration(math.Ceil(users * float64(time.Second) / leastSockets))
				if at := c.spent(now, users, users); at.Sub(now) > owed {
					t.Fatalf("the next slice waits for %s, at the least pace it is %s", at.Sub(now), owed)
				}
			}
		}
	})
}

// What is known of nodes is bounded, and forgotten with them.
func TestNodesThatAreGoneAreForgotten(t *testing.T) {
	t.Parallel()
	p, now := newPace(0), time.Unix(1_800_000_000, 0)
	for i := range 2 * maxNodes {
		p.arrived(now, now, now, fmt.Append(nil, "n", i))
	}
	if n := len(p.gateways.nodes); n != maxNodes {
		t.Errorf("%d nodes are known", n)
	}
	now = now.Add(nodeFor)
	p.arrived(now, now, now, []byte("n0"))
	if n := len(p.gateways.nodes); n != 1 {
		t.Errorf("%d nodes are known of those that are gone", n)
	}
}
