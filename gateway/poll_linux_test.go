package gateway

import (
	"net"
	"strings"
	"testing"
	"time"
)

// pair is a connection over loopback, both ends.
func pair(t *testing.T) (server, client net.Conn) {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if client, err = (&net.Dialer{}).DialContext(t.Context(), "tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return server, client
}

// A handler may be late: the gateway has stopped, and the number of its epoll may be anybody's.
func TestAConnectionAfterTheEndIsFreed(t *testing.T) {
	t.Parallel()
	n := setup(t)
	n.stop()
	<-n.ended
	server, client := pair(t)
	s := newSession(n.Gateway, grant{user: "late", until: n.clock.now().Add(time.Hour)}, false)
	n.connections.Add(1)
	var err error
	if s.link, err = n.pollers[0].adopt(s, server); err != nil {
		t.Fatal(err)
	}
	n.open(s, []byte("HTTP/1.1 101 Switching Protocols\r\n\r\n"), nil)
	if n.connections.Load() != 0 || s.phase != freed {
		t.Errorf("%d connections are left", n.connections.Load())
	}
	_ = client.SetReadDeadline(time.Now().Add(3 * time.Minute))
	buf := make([]byte, 1024)
	for {
		if _, err := client.Read(buf); err != nil {
			if strings.Contains(err.Error(), "timeout") {
				t.Error("its socket is open")
			}
			break
		}
	}
	if p := n.pollers[0]; len(p.free) != len(p.slots) {
		t.Errorf("%d of %d places are free", len(p.free), len(p.slots))
	}
}

func TestAPollerThatFailsEndsTheRole(t *testing.T) {
	t.Parallel()
	n := setup(t)
	if err := n.pollers[0].file.SetReadDeadline(time.Now().Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	<-n.ended
	if n.err == nil || !strings.Contains(n.err.Error(), "poll sockets") {
		t.Errorf("Run: %v", n.err)
	}
}

func TestPlacesAreReused(t *testing.T) {
	t.Parallel()
	n := setup(t)
	for range 20 {
		c := n.raw(t, "mona")
		c.leave(0)
		eventually(t, "the end", func() bool { return n.connections.Load() == 0 })
	}
	for _, p := range n.pollers {
		p.mu.Lock()
		if len(p.slots) > 1 {
			t.Errorf("%d places for one connection at a time", len(p.slots))
		}
		p.mu.Unlock()
	}
}
