package integration

import (
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// TestSocketsDrain sends SIGTERM to one of two gateways under load. It stops being ready at once, asks its clients to
// leave one after another, closes those that stay, hands back what they have not acknowledged, and exits with 0. All
// clients are then at the other gateway, and nothing is lost.
func TestSocketsDrain(t *testing.T) {
	const n, rate, users, silent = 5_000, 1_500, 150, 250
	const prefix, node, drain = "socks-drain", "gateway-drain", 20 * time.Second
	if err := sys.up(t.Context(), node, "--drain", drain.String()); err != nil {
		t.Fatal(err)
	}
	a := nobody(t)
	var devices []*device
	for i := range users {
		devices = append(devices, a.device(fmt.Sprintf("%s-%d", prefix, i), node, "gateway-2"))
	}
	moving := a.users
	witnesses := make([]*witness, silent)
	silentUsers := make([]string, silent)
	for i := range witnesses {
		silentUsers[i] = fmt.Sprintf("%s-silent-%d", prefix, i)
		witnesses[i] = watch(t, node, silentUsers[i], i%50 == 0)
	}
	flood(t, prefix+"-silent", silentUsers, silent, rate)
	for _, w := range witnesses {
		<-w.notified // and says nothing
	}

	var ended error
	var lasted time.Duration
	faulted := make(chan struct{})
	go func() {
		defer close(faulted)
		eventuallyCount(a, n/4)
		began := time.Now()
		ended = sys.drained(t, node)
		lasted = time.Since(began)
	}()
	flood(t, prefix+"-load", moving, n, rate)
	<-faulted
	if ended != nil {
		t.Errorf("the gateway did not end with 0: %v", ended)
	}
	for _, d := range devices {
		if d.on() != "gateway-2" {
			t.Errorf("%s is connected to %s", d.user, d.on())
		}
	}
	paced(t, witnesses)
	back := time.Now()
	for _, user := range silentUsers {
		a.device(user, "gateway-2")
	}
	eventually(t, "everything arrives, also what was handed back", func() bool { return a.count() == n+silent })
	t.Logf("drained %d connections in %v; its unacknowledged %d arrived within %v of their users' way back", users+silent, lasted.Round(time.Millisecond), silent, took(back))
	sys.forget(node)
	if lasted > drain {
		t.Errorf("the drain took %v, more than the %v that it has", lasted, drain)
	}
	allSettled(t, prefix+"-load", n)
	allSettled(t, prefix+"-silent", silent)
	if handed := failures(t, prefix+"-silent", "the node drains"); handed != silent {
		t.Errorf("%d of %d were handed back; the others' next connection alone brought them", handed, silent)
	}
}

// drained stops a gateway cleanly and checks that it is not ready meanwhile.
func (s *system) drained(t *testing.T, name string) error {
	t.Helper()
	p := s.proc(name)
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	refused := false
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !refused {
		resp, err := http.Get("http://" + p.ops + "/readyz") //nolint:noctx // a poll with its own end
		if err == nil {
			refused = resp.StatusCode == http.StatusServiceUnavailable
			_ = resp.Body.Close()
		}
		select {
		case <-p.done:
			if !refused {
				t.Error("the gateway was never seen to be not ready while it drained")
			}
			return p.err
		case <-tick.C:
		}
	}
	return p.ended()
}

// witness is a raw connection that acknowledges nothing. It leaves when asked to, or stays until it is closed.
type witness struct {
	stays    bool
	notified chan struct{}
	gone     chan struct{}

	mu      sync.Mutex
	asked   time.Time
	afterMS int64
	end     error // of who stays
}

func watch(t *testing.T, node, user string, stays bool) *witness {
	t.Helper()
	header := http.Header{"Authorization": {"Bearer " + token(user)}}
	conn, resp, err := websocket.DefaultDialer.DialContext(t.Context(), sys.socketURL(node), header)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	w := &witness{stays: stays, notified: make(chan struct{}), gone: make(chan struct{})}
	t.Cleanup(func() { _ = conn.Close(); <-w.gone })
	go func() {
		defer close(w.gone)
		defer func() { _ = conn.Close() }()
		notified := sync.OnceFunc(func() { close(w.notified) })
		for {
			_, text, err := conn.ReadMessage()
			if err != nil {
				w.mu.Lock()
				w.end = err
				w.mu.Unlock()
				return
			}
			var f struct {
				Type    string `json:"type"`
				AfterMS int64  `json:"after_ms"`
			}
			if err := json.Unmarshal(text, &f); err != nil {
				t.Errorf("%s: %v", text, err)
			}
			switch f.Type {
			case "notification":
				notified()
			case "reconnect":
				w.mu.Lock()
				w.asked, w.afterMS = time.Now(), f.AfterMS
				w.mu.Unlock()
				if !w.stays {
					return
				}
			}
		}
	}()
	return w
}

// paced checks that the clients were asked one after another, each with its own time. On a busy machine frames are late
// and arrive together, so only a pace that is much too fast is an error.
func paced(t *testing.T, witnesses []*witness) {
	t.Helper()
	var first, last time.Time
	afters := map[int64]bool{}
	for _, w := range witnesses {
		<-w.gone
		w.mu.Lock()
		if w.asked.IsZero() {
			t.Error("a client was not asked to leave")
		} else {
			if first.IsZero() || w.asked.Before(first) {
				first = w.asked
			}
			if w.asked.After(last) {
				last = w.asked
			}
			afters[w.afterMS] = true
		}
		if w.stays && !websocket.IsCloseError(w.end, websocket.CloseServiceRestart) {
			t.Errorf("a client that stayed was ended with %v, want 1012", w.end)
		}
		w.mu.Unlock()
	}
	const pace = 4 * time.Millisecond // the gateway's own, where the drain has the time
	t.Logf("%d clients were asked to leave over %v, after %d different times", len(witnesses), last.Sub(first).Round(time.Millisecond), len(afters))
	if spread, want := last.Sub(first), time.Duration(len(witnesses))*pace/2; spread < want {
		t.Errorf("all were asked within %v, want %v at least", spread, want)
	}
	if len(afters) < len(witnesses)/10 {
		t.Errorf("only %d different times to go: no jitter", len(afters))
	}
}
