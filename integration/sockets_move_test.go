package integration

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestSocketsMove: users move between two nodes while deliveries flow. Some are cut off, some open the next connection
// before they end the last. Nothing is lost, and nothing waits for an acknowledgement that can't come.
func TestSocketsMove(t *testing.T) {
	const n, rate, users, hops = 5_000, 1_250, 60, 12
	const prefix = "socks-move"
	a := nobody(t)
	var devices []*device
	for i := range users {
		devices = append(devices, a.device(fmt.Sprintf("%s-%d", prefix, i), home(i)))
	}
	moving := a.users
	stop := make(chan struct{})
	var hopping sync.WaitGroup
	var moved atomic.Int64
	for i, d := range devices {
		hopping.Go(func() {
			// One after the other, each hop when the one before has brought something: deliveries flow to every place.
			for turn := 1; turn <= hops; turn++ {
				had := a.countOf(d.user)
				d.turn(home(i + turn))
				if i%2 == 0 {
					d.cut()
				} else {
					d.replace()
				}
				moved.Add(1)
				if !a.waitFor(stop, func() bool { return a.countOf(d.user) > had+n/users/(hops+2) }) {
					return
				}
			}
		})
	}
	// On a slow machine one flood is over before the users have moved often enough to show anything.
	floods := 0
	for floods < 10 && moved.Load() < users*hops/2 {
		floods++
		flood(t, fmt.Sprint(prefix, "-load", floods), moving, n, rate)
		flooded := time.Now()
		eventually(t, "everything arrives", func() bool { return a.count() == n*floods })
		t.Logf("flood %d: everything had arrived %v after the last request", floods, took(flooded))
	}
	close(stop)
	hopping.Wait()
	t.Logf("%d hops of %d users during %d deliveries", moved.Load(), users, n*floods)
	if moved.Load() < users*hops/2 {
		t.Errorf("only %d hops, so this showed little", moved.Load())
	}
	for i := range floods {
		allSettled(t, fmt.Sprint(prefix, "-load", i+1), n)
	}
}

func home(i int) string { return fmt.Sprintf("gateway-%d", 1+i%2) }

// TestSocketsStalePresence: the presence that a killed node wrote stays in Kafka, because nobody withdrew it. It must
// never receive a delivery: neither while the same name runs as a new incarnation, nor after dispatch was restored.
func TestSocketsStalePresence(t *testing.T) {
	const users, each, rate = 40, 5, 1_000
	const prefix = "socks-stale"
	a := nobody(t)
	stay, staying := away(a, prefix+"-away", users)
	for i := range users {
		a.device(fmt.Sprintf("%s-back-%d", prefix, i), "gateway-1", "gateway-2")
	}
	moved := a.users[users:]
	flood(t, prefix+"-before", a.users, 2*users, rate)
	eventually(t, "all are connected to the first node", func() bool { return a.count() == 2*users })
	for _, d := range stay {
		d.reachable(false)
	}
	sys.kill(t, "gateway-1")
	flood(t, prefix+"-moved", moved, users*each, rate)
	eventually(t, "who moved gets theirs at the second node", func() bool { return a.count() == users*(2+each) })
	sys.restart(t, "gateway-1") // the same name, before anybody has declared it dead

	probes := 0
	for _, round := range []string{"restarted", "reread"} {
		before := probes
		if round == "reread" {
			sys.stop(t, "dispatch")
			sys.restart(t, "dispatch")
		}
		eventually(t, round+": no partition looks for who moved at the first node", func() bool {
			probes++
			had, end := a.count(), endOf(t, "whisper.node.gateway-1")
			send(t, "high", request{ID: fmt.Sprintf("stale-probe-%d", probes), To: to(moved...)})
			eventually(t, "all have the probe", func() bool { return a.count() == had+users })
			return endOf(t, "whisper.node.gateway-1") == end
		})
		// Dispatch reads heartbeats up to now before it decides anything, so after its restart not one may go there. That a bounce
		// or a wait in vain mends it later would be too late.
		if tried := probes - before; round == "reread" && tried > 1 {
			t.Errorf("%s: the first node got what was sent at first, until the %d. probe", round, tried)
		}
		have, looked := a.count(), endOf(t, "whisper.node.gateway-1")
		flood(t, fmt.Sprintf("%s-%s", prefix, round), moved, users*each, rate)
		eventually(t, "who moved is not looked for at the first node", func() bool { return a.count() == have+users*each })
		flood(t, fmt.Sprintf("%s-away-%s", prefix, round), staying, users*each, rate)
		eventually(t, "who is nowhere is waited for", func() bool {
			return waiting(t, fmt.Sprintf("%s-away-%s", prefix, round)) == users*each
		})
		if sent := endOf(t, "whisper.node.gateway-1") - looked; sent != 0 {
			t.Errorf("%s: %d records went to the node where nobody is", round, sent)
		}
	}
	have := a.count()
	for _, d := range stay {
		d.reachable(true)
	}
	eventually(t, "who comes back gets what waited", func() bool { return a.count() == have+2*users*each })
	allSettled(t, prefix, users*(2+each+4*each))
}
