package integration

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"
)

// TestSocketsStorm kills the node that has all clients. They reconnect to another one at its admit rate, and get
// everything that was sent meanwhile.
func TestSocketsStorm(t *testing.T) {
	const prefix, users, perSecond = "socks-storm", "storm", 200
	clients := clientsFor(t, 4_000)
	admitting(t, "gateway-2", 125) // so that it is a storm on any machine: a slow one connects few in a second
	c := gather(t, users, clients, 1)
	connected := c.counts()
	if connected.Lost > 0 {
		t.Errorf("%d connections were lost before anything happened", connected.Lost)
	}
	killed := time.Now()
	sys.kill(t, "gateway-1")
	stop, sent := make(chan struct{}), make(chan int, 1)
	go func() { sent <- stream(t, prefix+"-load", users, clients, perSecond, stop) }()
	const inRequest = 5_000 // recipients of one request
	for from := 0; from < clients; from += inRequest {
		var some []string
		for i := from; i < min(from+inRequest, clients); i++ {
			some = append(some, fmt.Sprintf("%s-%d", users, i))
		}
		send(t, "normal", request{ID: fmt.Sprintf("%s-all-%d-%d", prefix, from, time.Now().UnixMicro()), To: to(some...)})
	}
	eventually(t, "all are back", func() bool { return c.counts().Connected == int64(clients) })
	back := took(killed)
	close(stop)
	n := <-sent + clients
	eventually(t, "all have everything", func() bool { return c.counts().Arrived == int64(n) })
	counts := c.counts()
	t.Logf("%d clients were back %v after the kill and had all of %d deliveries after %v (p50 %.0f ms, max %.0f ms); %d times one was asked to wait, %d deliveries came twice",
		clients, back, n, took(killed), counts.P50, counts.Max, counts.Refused-connected.Refused, counts.Twice)
	if counts.Refused == connected.Refused {
		t.Error("nobody was asked to wait: it was no storm")
	}
	allSettled(t, prefix, n)
	sys.restart(t, "gateway-1")
}

// admitting restarts a gateway with an admit rate that holds until the test ends.
func admitting(t *testing.T, name string, rate int) {
	t.Helper()
	args := sys.proc(name).args
	again := func(args []string) {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute) // also after the test
		defer cancel()
		sys.kill(t, name)
		sys.proc(name).args = args
		if err := sys.up(ctx, name); err != nil {
			t.Error(err)
		}
	}
	again(append(slices.Clone(args), "--admit-rate", strconv.Itoa(rate)))
	t.Cleanup(func() { again(args) })
}
