package bench

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/klivvr/whisper/gateway"
	"github.com/klivvr/whisper/gateway/client"
)

const benchSecret = "the secret of a benchmark on loopback"

// audience are the connected users of a benchmark. They acknowledge what they get, or let the gateway do it.
type audience struct {
	users     int
	current   atomic.Pointer[measurement]
	clients   []*client.Client
	broadcast atomic.Pointer[broadcastCount]
}

// broadcastCount counts the users who have the broadcast that runs now, or a request that is part of it: its id is id/N.
type broadcastCount struct {
	id    string
	begun time.Time
	want  int64
	have  atomic.Int64
	all   chan time.Time // when the last one of want had it
}

func (b *broadcastCount) is(id string) bool {
	rest, ok := strings.CutPrefix(id, b.id)
	return ok && (rest == "" || rest[0] == '/')
}

func (b *broadcastCount) add(now time.Time) {
	if b.have.Add(1) == b.want {
		b.all <- now
	}
}

// measurement is the load that runs now. Ids carry its number, so a late notification of an earlier measurement
// is not counted.
type measurement struct {
	serial int
	lat    *latencies
}

func userName(i int) string { return fmt.Sprintf("bench-%d", i) }

// connectAudience holds users connections to the gateway.
func connectAudience(ctx context.Context, url string, users int, autoAck bool, progress func(done int)) (*audience, error) {
	a := &audience{users: users, clients: make([]*client.Client, users)}
	now := time.Now()
	var done atomic.Int64
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(32)
	for i := range users {
		g.Go(func() error {
			if gctx.Err() != nil {
				return gctx.Err()
			}
			token, err := gateway.SignToken([]byte(benchSecret), userName(i), 24*time.Hour, now)
			if err != nil {
				return err
			}
			c, err := client.Dial(ctx, url, client.StaticToken(token), client.Options{Window: 16, Handle: a.take, AutoAck: autoAck})
			if err != nil {
				return err
			}
			a.clients[i] = c
			if n := done.Add(1); n%1000 == 0 {
				progress(int(n))
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		a.close()
		return nil, fmt.Errorf("connect %d users (is the limit of open files above that?): %w", users, err)
	}
	return a, nil
}

func (a *audience) take(_ context.Context, n client.Notification) error {
	now := time.Now()
	if b := a.broadcast.Load(); b != nil && b.is(n.ID) {
		b.add(now)
		return nil
	}
	if m, i := a.measured(n.ID); m != nil {
		m.lat.arrive(i, now)
	}
	return nil
}

// handed notes that dispatch could read a delivery.
func (a *audience) handed(id string, at time.Time) {
	if m, i := a.measured(id); m != nil {
		m.lat.handed.arrive(i, at)
	}
}

// measured is the measurement that a notification is of, where it is the one that runs now, and its number there.
func (a *audience) measured(id string) (*measurement, int) {
	var serial, i int
	if _, err := fmt.Sscanf(id, "b%d-%d", &serial, &i); err != nil {
		return nil, 0
	}
	if m := a.current.Load(); m != nil && m.serial == serial {
		return m, i
	}
	return nil, 0
}

func (a *audience) close() {
	for _, c := range a.clients {
		if c != nil {
			_ = c.Close()
		}
	}
}
