package gateway

import (
	"math"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"
)

// admission lets connections in at a rate. Who comes too early is told to come again when those before
// have been let in: the refused are a queue that empties at the same rate. It is one for the node, not one an address:
// what it protects is the node's own work.
type admission struct {
	price price         // of one connection
	room  time.Duration // how much may come at once

	mu       sync.Mutex
	admitted meter
	queue    meter // of those who were told to come again
}

// longestWait is what a refused client is told at the most.
const longestWait = time.Minute

func newAdmission(perSecond int) *admission {
	p := max(1, time.Second/time.Duration(perSecond))
	// A quarter of a second's worth at once: what comes together keeps the node's other work waiting.
	return &admission{price: p, room: max(0, time.Second/4-p)}
}

// take lets one in (0), or says when to come again.
func (a *admission) take(now int64) (wait time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.admitted.allow(now, a.price, a.room) {
		return 0
	}
	a.queue.charge(now, a.price)
	wait = min(longestWait, a.queue.debt(now, 0))
	return wait + rand.N(wait/2+time.Second)
}

// waiting is how many were refused whose turn has not come.
func (a *admission) waiting(now int64) float64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return float64(a.queue.debt(now, 0)) / float64(a.price)
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

// counts is how many connections each address has at a time; it keeps nothing of one that has none.
type counts map[address]int

func (c counts) add(a address) { c[a]++ }

func (c counts) remove(a address) {
	if c[a]--; c[a] <= 0 {
		delete(c, a)
	}
}

// addresses bounds the connections of one address, from accept to the end of the session; it costs nothing where
// there is no limit.
type addresses struct {
	limit int

	mu   sync.Mutex
	have counts
}

func newAddresses(limit int) *addresses {
	return &addresses{limit: limit, have: counts{}}
}

func (c *addresses) add(a address) bool {
	if c.limit <= 0 || !a.IsValid() {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.have[a] >= c.limit {
		return false
	}
	c.have.add(a)
	return true
}

func (c *addresses) remove(a address) {
	if c.limit <= 0 || !a.IsValid() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.have.remove(a)
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
