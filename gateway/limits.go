package gateway

import (
	"math"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"
)

// admission lets connections in at a rate. Who comes too early is told to come again when those before
// have been let in: the refused are counted as a queue that empties at the rate.
type admission struct {
	rate, burst float64

	mu     sync.Mutex
	tokens float64
	queue  float64
	at     time.Time
}

// longestWait is what a refused client is told at the most.
const longestWait = time.Minute

func newAdmission(perSecond int, now time.Time) *admission {
	// A quarter of a second's worth at once: what comes together keeps the node's other work waiting.
	burst := math.Max(1, float64(perSecond)/4)
	return &admission{rate: float64(perSecond), burst: burst, tokens: burst, at: now}
}

// take lets one in (0), or says when to come again.
func (a *admission) take(now time.Time) (wait time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.pass(now)
	if a.tokens >= 1 {
		a.tokens--
		return 0
	}
	a.queue++
	wait = min(longestWait, time.Duration(a.queue/a.rate*float64(time.Second)))
	return wait + rand.N(wait/2+time.Second)
}

// waiting is how many were refused whose turn has not come.
func (a *admission) waiting(now time.Time) float64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.pass(now)
	return a.queue
}

// pass lets the time pass; under the lock.
func (a *admission) pass(now time.Time) {
	if passed := now.Sub(a.at).Seconds(); passed > 0 {
		a.tokens = math.Min(a.burst, a.tokens+passed*a.rate)
		a.queue = math.Max(0, a.queue-passed*a.rate)
		a.at = now
	}
}

// address is what connections are counted by: an IPv4 address, or the /64 that one IPv6 host has to itself.
type address = netip.Addr

func countedAs(a netip.Addr) address {
	a = a.Unmap()
	if a.Is6() {
		if p, err := a.WithZone("").Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return a
}

// addresses counts connections by address; it costs nothing where there is no limit.
type addresses struct {
	limit int

	mu    sync.Mutex
	count map[address]int
}

func newAddresses(limit int) *addresses {
	return &addresses{limit: limit, count: map[address]int{}}
}

func (c *addresses) add(a address) bool {
	if c.limit <= 0 || !a.IsValid() {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.count[a] >= c.limit {
		return false
	}
	c.count[a]++
	return true
}

func (c *addresses) remove(a address) {
	if c.limit <= 0 || !a.IsValid() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.count[a]--; c.count[a] <= 0 {
		delete(c.count, a)
	}
}

// spareFiles are for everything but sockets: Kafka, logs, the operations port, connections on their way
// through the handshake.
const spareFiles = 256

// fitFiles lowers the limit of connections to what the process may open, and says so: better to refuse
// clients than to fail to accept them.
func (g *Gateway) fitFiles(files uint64) {
	room := int64(0)
	if files > spareFiles {
		room = int64(min(files-spareFiles, math.MaxInt32))
	}
	limit := min(int64(g.cfg.MaxConnections), max(room, 1))
	g.limit.Store(limit)
	// Half of the spare ones are for handshakes, and what the sockets leave.
	left := int64(min(files, math.MaxInt32)) - limit - spareFiles/2
	g.handshakes.limit.Store(max(spareFiles/2, min(g.handshakes.limit.Load(), left)))
	if limit < int64(g.cfg.MaxConnections) {
		g.cfg.Logger.Warn("file limit is too low for max-connections: raise it (ulimit -n, LimitNOFILE) or lower --max-connections",
			"node", g.cfg.Node, "file_limit", files, "max_connections", g.cfg.MaxConnections, "connections_possible", limit)
	}
}
