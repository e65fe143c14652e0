package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync"
	"time"
)

// startEngine starts what reads, writes and times sockets: it is there before the first and ends after the
// last. An error of a poller, which would leave sockets that nobody reads, is told to failed.
func (g *Gateway) startEngine(ctx context.Context, failed func(error)) (stop func(), err error) {
	if err := g.makePollers(); err != nil {
		for _, p := range g.pollers {
			p.close()
		}
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	for _, p := range g.pollers {
		running.Go(func() {
			if err := p.run(); err != nil {
				failed(err)
			}
		})
	}
	running.Go(g.flusher.run)
	running.Go(func() { _ = g.timekeeper.run(ctx) }) // never fails
	return func() {
		cancel()
		g.flusher.stop()
		for _, p := range g.pollers {
			p.close()
		}
		running.Wait()
	}, nil
}

// makePollers makes one for two processors: reading is a small part of the work.
func (g *Gateway) makePollers() error {
	if g.cfg.Unpolled {
		return nil
	}
	for range max(1, runtime.GOMAXPROCS(0)/2) {
		p, err := newPoller(g.now)
		if errors.Is(err, errors.ErrUnsupported) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read sockets: %w", err)
		}
		g.pollers = append(g.pollers, p)
	}
	return nil
}

// pollerOf picks one in turn; nil: the connection needs a goroutine.
func (g *Gateway) pollerOf(conn net.Conn) *poller {
	if len(g.pollers) == 0 || !pollable(conn) {
		return nil
	}
	return g.pollers[g.turn.Add(1)%uint32(len(g.pollers))]
}

// abandon cuts the sockets that are still there, after a drain or an error. Those who listen get to know
// why.
func (g *Gateway) abandon(ctx context.Context) {
	g.state.Store(stopped)
	g.hub.each(func(s *session) { s.close(closeRestarting, "the node is restarting", false) })
	g.emptied(ctx, time.Now().Add(closeLinger))
	g.timekeeper.each((*session).cut)
	g.emptied(ctx, time.Now().Add(closeLinger))
}
