package integration

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestSocketsFrozenNode: a node that hangs keeps its connections and is silent. It is declared dead, and its users'
// deliveries wait or go elsewhere. When it continues, users who stayed get what waited, nothing is lost, and users who
// moved get nothing twice.
func TestSocketsFrozenNode(t *testing.T) {
	const node, prefix, users, each, rate = "gateway-frozen", "socks-frozen", 40, 10, 1_000
	if err := sys.up(t.Context(), node, "--heartbeat", "250ms"); err != nil {
		t.Fatal(err)
	}
	p := sys.proc(node)
	t.Cleanup(func() { sys.remove(t, node) })
	a := nobody(t)
	var staying, moving []string
	var movers []*device
	for i := range users {
		stays, moves := fmt.Sprintf("%s-stays-%d", prefix, i), fmt.Sprintf("%s-moves-%d", prefix, i)
		a.device(stays, node)
		movers = append(movers, a.device(moves, node))
		staying, moving = append(staying, stays), append(moving, moves)
	}
	flood(t, prefix+"-before", a.users, 2*users, rate)
	eventually(t, "all are connected", func() bool { return a.count() == 2*users })

	if err := p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	awake := false
	wake := func() {
		if !awake {
			awake = true
			_ = p.cmd.Process.Signal(syscall.SIGCONT)
		}
	}
	t.Cleanup(wake) // before the stop, which it could not hear
	frozen := time.Now()
	flood(t, prefix+"-stays", staying, users*each, rate)
	flood(t, prefix+"-moves", moving, users*each, rate)
	eventually(t, "the node is declared dead and its users are waited for", func() bool {
		return waiting(t, prefix+"-stays") == users*each && waiting(t, prefix+"-moves") == users*each
	})
	t.Logf("declared dead within %v", took(frozen))
	for _, d := range movers {
		d.turn("gateway-1")
		d.cut()
	}
	eventually(t, "who moved has everything", func() bool { return a.count() == users*(2+each) })
	wake()
	awakened := time.Now()
	eventually(t, "who stayed has everything", func() bool { return a.count() == users*(2+2*each) })
	t.Logf("who stayed had everything %v after the node went on", took(awakened))
	for _, part := range []string{"-stays", "-moves"} {
		allSettled(t, prefix+part, users*each)
	}
}

// TestSocketsOneNameTwice: a second process is started with a node's name by mistake. The first one ends and says why,
// its users go to the second, and nothing is lost.
func TestSocketsOneNameTwice(t *testing.T) {
	const node, second, prefix, users, n, rate = "gateway-twice", "gateway-second", "socks-twice", 60, 3_000, 1_000
	if err := sys.up(t.Context(), node); err != nil {
		t.Fatal(err)
	}
	first := sys.proc(node)
	t.Cleanup(func() { sys.remove(t, second) })
	a := nobody(t)
	var devices []*device
	for i := range users {
		devices = append(devices, a.device(fmt.Sprintf("%s-%d", prefix, i), node))
	}
	faulted := make(chan struct{})
	go func() {
		defer close(faulted)
		eventuallyCount(a, n/4)
		if err := sys.up(t.Context(), second, "--node", node); err != nil {
			t.Error(err)
			return
		}
		for _, d := range devices {
			d.turn(second)
		}
		if err := first.ended(); err == nil || !strings.Contains(first.out.String(), "another gateway was started as node") {
			t.Errorf("the first process ended with %v and said:\n%s", err, tail(first.out.String()))
		}
	}()
	flood(t, prefix, a.users, n, rate)
	<-faulted
	sys.forget(node)
	flooded := time.Now()
	eventually(t, "everything arrives", func() bool { return a.count() == n })
	t.Logf("everything had arrived %v after the last request", took(flooded))
	allSettled(t, prefix, n)
}
