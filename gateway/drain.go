package gateway

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"
)

// leavingPace is the shortest time between two clients that are asked to go elsewhere, where there is
// time: the other nodes have to take them in.
const leavingPace = 4 * time.Millisecond

// The drain of T: clients are asked to leave over the first half, each with a jitter of its own; those
// that stay are closed at seven tenths; what is left to write to Kafka has the rest.
func (g *Gateway) leaveWindow() time.Duration { return g.cfg.DrainTimeout / 2 }
func (g *Gateway) leaveJitter() time.Duration { return min(g.cfg.DrainTimeout/10, time.Second) }

// drain stops in order: let nobody in, ask the clients to go elsewhere, one after the other, take their
// last acknowledgements, hand back what they leave unacknowledged, close, write what is left, commit.
// Until a client leaves it gets its notifications here; its presence goes with it, so dispatch finds it
// where it connects next.
func (g *Gateway) drain(ctx context.Context, server *http.Server, stopReading func()) error {
	began := time.Now()
	ctx, cancel := context.WithDeadline(context.WithoutCancel(ctx), began.Add(g.cfg.DrainTimeout))
	defer cancel()
	defer context.AfterFunc(ctx, g.broker.GiveUp)()
	g.state.Store(draining)
	_ = server.Close() // the listener; sockets are not its any more
	g.nodes.draining.Store(true)
	g.nodes.beat(nil)
	had := g.connections.Load()
	g.askToLeave(ctx)
	g.emptied(ctx, began.Add(g.cfg.DrainTimeout*7/10))
	g.hub.each(func(s *session) { s.close(closeRestarting, "the node is restarting", true) })
	g.emptied(ctx, began.Add(g.cfg.DrainTimeout*8/10))
	g.timekeeper.each((*session).handBack)
	if had > 0 {
		g.bounceTheLast(ctx)
	}
	stopReading()
	g.lanes.stop()
	g.receipts.flush()
	g.presence.publish()
	err := g.broker.Flush(ctx)
	if err == nil {
		err = g.lanes.commit(ctx)
	}
	if err != nil {
		return fmt.Errorf("drain within %s: %w", g.cfg.DrainTimeout, err)
	}
	g.cfg.Logger.Info("gateway has drained", "node", g.cfg.Node,
		"connections", had, "took", time.Since(began).Round(time.Millisecond).String())
	return nil
}

// askToLeave sends the reconnect frames, evenly over the window, as long as somebody is here.
func (g *Gateway) askToLeave(ctx context.Context) {
	var all []*session
	g.hub.each(func(s *session) { all = append(all, s) })
	if len(all) == 0 {
		return
	}
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	gap := min(g.leaveWindow()/time.Duration(len(all)), leavingPace)
	began := time.Now()
	tick := time.NewTicker(min(max(gap, time.Millisecond), leavingPace))
	defer tick.Stop()
	for asked := 0; asked < len(all); {
		for ; asked < len(all) && time.Since(began) >= time.Duration(asked)*gap; asked++ {
			all[asked].control(reconnectFrame(rand.N(g.leaveJitter() + 1)))
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// lastRoutes is how long frames may still come for users of whom dispatch has not yet heard that they left.
const lastRoutes = 250 * time.Millisecond

// bounceTheLast hands back at once what was under way to users who have left, instead of leaving it to the
// node's next start or to its silence.
func (g *Gateway) bounceTheLast(ctx context.Context) {
	g.presence.publish()
	if g.broker.Flush(ctx) != nil {
		return // drain's own flush says it
	}
	wait := time.NewTimer(min(lastRoutes, g.cfg.DrainTimeout/10))
	defer wait.Stop()
	select {
	case <-ctx.Done():
	case <-wait.C:
	}
}

// emptied waits until no connection is left, at most until a time.
func (g *Gateway) emptied(ctx context.Context, until time.Time) {
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for g.connections.Load() > 0 {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// jitter is a time of at least least, and up to more longer.
func jitter(least, more time.Duration) time.Duration { return least + rand.N(more+1) }
