package gateway

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// holdUp stands in for a writer that a slow socket keeps busy: frames queue up until the test calls write.
func (s *session) holdUp(t *testing.T) {
	t.Helper()
	eventually(t, "the welcome's writer to end", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.writer != idle {
			return false
		}
		s.writer = active
		return true
	})
}

// letGo writes what has queued up since holdUp.
func (s *session) letGo() {
	s.mu.Lock()
	s.writer = waiting
	s.mu.Unlock()
	s.flushNow()
}

func TestLanesLeaveInOrder(t *testing.T) { eachLink(t, testLanesLeaveInOrder) }

func testLanesLeaveInOrder(t *testing.T, link change) {
	n := setup(t, link)
	c := n.connect("mona")
	s := n.session(c)
	s.holdUp(t)
	n.broker.put(domain.Low, route(n, "mona", "low-1"), route(n, "mona", "low-2"))
	n.broker.put(domain.Normal, route(n, "mona", "normal"))
	n.broker.put(domain.High, route(n, "mona", "high-1"), route(n, "mona", "high-2"))
	eventually(t, "all to queue", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.unacked.len() == 5
	})
	writes := n.metrics.writes.Get()
	s.letGo()
	for _, want := range []string{"high-1", "high-2", "normal", "low-1", "low-2"} {
		c.wantNotification(want)
	}
	if got := n.metrics.writes.Get() - writes; got != 1 {
		t.Errorf("%d writes for what fits into one", got)
	}
}

func TestLanesComeOffKafkaInOrder(t *testing.T) {
	t.Parallel()
	n := setup(t)
	l := newLanes(n.Gateway)
	for range 100 {
		l.put(domain.Low, append(l.waiting[domain.Low][:0:0], route(n, "u", "l")))
	}
	l.put(domain.Normal, append(l.waiting[domain.Normal][:0:0], route(n, "u", "n")))
	lane, recs := l.next()
	if lane != domain.Normal || len(recs) != 1 {
		t.Fatalf("first %d of %s", len(recs), lane)
	}
	lane, recs = l.next()
	if lane != domain.Low || len(recs) != laneSlice {
		t.Fatalf("then %d of %s", len(recs), lane)
	}
	l.put(domain.High, append(l.waiting[domain.High][:0:0], route(n, "u", "h")))
	if lane, _ = l.next(); lane != domain.High {
		t.Fatalf("an alert waits behind %s", lane)
	}
}

func TestASlowClientIsClosedAndCostsTheOthersNothing(t *testing.T) {
	eachLink(t, testASlowClientIsClosedAndCostsTheOthersNothing)
}

func testASlowClientIsClosedAndCostsTheOthersNothing(t *testing.T, link change) {
	n := setup(t, link, func(c *Config, _ *fakeBroker) { c.SendBuffer, c.WriteTimeout = 256<<10, 2*time.Second })
	slow, quick := n.connect("mona"), n.connect("omar")
	body := strings.Repeat("x", 32<<10)
	sent := 0
	for i := 0; n.metrics.closes[closeTooSlow].Get() == 0; i++ {
		if i == 5000 {
			t.Fatal("the slow client was never closed")
		}
		n.broker.put(domain.Normal, route(n, "mona", fmt.Sprint("slow-", i), func(r *whisperv1.Route) {
			r.Frame = []byte(`{"type":"notification","id":"` + body + `"}`)
		}))
		n.broker.put(domain.Normal, route(n, "omar", fmt.Sprint("quick-", i)))
		quick.wantNotification(fmt.Sprint("quick-", i))
		if i == 0 {
			n.wantKinds("slow-0", "delivery_sent")
		}
		sent++
	}
	slow.wantClose(closeTooSlow)
	// Everything has an outcome: what the socket took is sent, the rest goes back at once.
	eventually(t, "an outcome for each", func() bool {
		for i := range sent {
			if len(n.broker.kinds(fmt.Sprint("slow-", i))) != 1 {
				return false
			}
		}
		return true
	})
	first, last := n.broker.kinds("slow-0"), n.broker.kinds(fmt.Sprint("slow-", sent-1))
	if first[0] != "delivery_sent" || last[0] != "attempt_failed" {
		t.Errorf("the first is %v, the last is %v", first, last)
	}
	eventually(t, "the connection to be freed", func() bool { return n.connections.Load() == 1 })
}

func TestASocketThatTakesNothingIsCutOff(t *testing.T) {
	eachLink(t, testASocketThatTakesNothingIsCutOff)
}

func testASocketThatTakesNothingIsCutOff(t *testing.T, link change) {
	n := setup(t, link, func(c *Config, _ *fakeBroker) { c.WriteTimeout = 50 * time.Millisecond; c.SendBuffer = 64 << 20 })
	n.connect("mona")
	for i := range 400 {
		n.broker.put(domain.Normal, route(n, "mona", fmt.Sprint(i), func(r *whisperv1.Route) {
			r.Frame = make([]byte, 64<<10)
		}))
	}
	eventually(t, "the connection to be freed", func() bool { return n.connections.Load() == 0 })
	if got := n.metrics.closes[closeTooSlow].Get(); got != 1 {
		t.Errorf("%d closes 4004", got)
	}
	for i := range 400 {
		eventually(t, "an outcome", func() bool { return len(n.broker.kinds(fmt.Sprint(i))) == 1 })
	}
}

func TestASessionThatNeverAcknowledgesIsClosed(t *testing.T) {
	eachLink(t, testWhoNeverAcknowledgesIsClosed)
}

func testWhoNeverAcknowledgesIsClosed(t *testing.T, link change) {
	n := setup(t, link, func(c *Config, _ *fakeBroker) { c.MaxUnacked = 3 })
	c := n.connect("mona")
	for i := range 4 {
		n.broker.put(domain.Normal, route(n, "mona", fmt.Sprint(i)))
		if i < 3 {
			c.wantNotification(fmt.Sprint(i))
		}
	}
	c.wantClose(closeTooSlow)
	n.wantKinds("3", "attempt_failed")
}

func TestOneUserHasSoManyConnections(t *testing.T) { eachLink(t, testOneUserHasSoManyConnections) }

func testOneUserHasSoManyConnections(t *testing.T, link change) {
	n := setup(t, link, func(c *Config, _ *fakeBroker) { c.MaxPerUser = 2 })
	first := n.connect("mona")
	second := n.connect("mona")
	if err := first.WriteMessage(websocket.PingMessage, nil); err != nil {
		t.Fatal(err)
	}
	heard := func(i int) int64 {
		sh := n.hub.shard("mona")
		sh.mu.Lock()
		defer sh.mu.Unlock()
		return sh.users["mona"].sessions[i].heard.Load()
	}
	eventually(t, "the first to be heard of after the second", func() bool { return heard(0) > heard(1) })
	third := n.connect("mona")
	second.wantClose(closeTooMany) // it was silent longest
	n.connect("omar")
	eventually(t, "the second to be gone", func() bool { return n.connections.Load() == 3 })
	n.broker.put(domain.High, route(n, "mona", "a"))
	first.wantNotification("a")
	third.wantNotification("a")
}

// Connections whose clients are gone don't keep their user out: nothing answers on any of them.
func TestDeadSessionsMakeRoomForNewOnes(t *testing.T) {
	t.Parallel()
	n, first, _ := onFakeLink(t, func(c *Config, _ *fakeBroker) { c.MaxPerUser = 3 })
	ghosts := []*session{first}
	for range 9 {
		n.clock.advance(time.Second)
		s, _ := n.opened("mona", false)
		ghosts = append(ghosts, s)
	}
	for i, s := range ghosts {
		if want := i < 7; (s.phase != open) != want || want && s.code != closeTooMany {
			t.Errorf("ghost %d: closing %t with %d", i, s.phase != open, s.code)
		}
	}
	n.presence.publish()
	states := n.broker.presences(t)
	if last := states[len(states)-1]; last.GetSessions() != 3 || last.GetLatestSession() != ghosts[9].id {
		t.Errorf("presence: %v", last)
	}
}

func TestAFullNodeRefusesBeforeTheUpgrade(t *testing.T) {
	t.Parallel()
	n := setup(t, func(c *Config, _ *fakeBroker) { c.MaxConnections = 5 })
	var all []*client
	for i := range 5 {
		all = append(all, n.connect(fmt.Sprint(i)))
	}
	_, resp, err := websocket.DefaultDialer.Dial(n.url, bearer(n.token("late", time.Hour)))
	if err == nil || resp.StatusCode != http.StatusServiceUnavailable {
		t.Fatalf("got %v, %v", resp, err)
	}
	if after, err := strconv.Atoi(resp.Header.Get("Retry-After")); err != nil || after < 1 {
		t.Errorf("Retry-After: %q", resp.Header.Get("Retry-After"))
	}
	m := n.metrics
	if m.connections.Get() != 5 || m.utilization.Get() != 1 || m.highUtilization.Get() != 1 || m.full.Get() != 1 {
		t.Errorf("connections %v, utilization %v, high %d, refused %d", m.connections.Get(), m.utilization.Get(), m.highUtilization.Get(),
			m.full.Get())
	}
	all[0].Close()
	eventually(t, "room", func() bool { return n.connections.Load() == 4 })
	n.connect("late")
	if m.highUtilization.Get() != 1 {
		t.Error("0.8 and back counts as a second rise")
	}
	for _, c := range all[1:] {
		c.Close()
	}
	eventually(t, "room", func() bool { return n.connections.Load() == 1 })
	for i := range 4 {
		n.connect(fmt.Sprint("again-", i))
	}
	if m.highUtilization.Get() != 2 {
		t.Errorf("%d rises, want 2", m.highUtilization.Get())
	}
}

func TestATokenThatExpiresClosesTheSession(t *testing.T) {
	eachLink(t, testATokenThatExpiresClosesTheSession)
}

func testATokenThatExpiresClosesTheSession(t *testing.T, link change) {
	n := setup(t, link)
	long, short := n.connect("mona"), n.dial("", bearer(n.token("omar", time.Minute)))
	n.clock.advance(2 * time.Minute)
	n.timekeeper.tick(n.clock.now().UnixNano())
	short.wantClose(closeExpired)
	n.broker.put(domain.High, route(n, "mona", "a"))
	long.wantNotification("a")
}

func TestPings(t *testing.T) { eachLink(t, testPings) }

func testPings(t *testing.T, link change) {
	n := setup(t, link)
	alive, dead := n.connect("mona"), n.connect("omar")
	go func() { // reading is what answers pings
		for {
			if _, _, err := alive.ReadMessage(); err != nil {
				return
			}
		}
	}()
	s, silent := n.session(alive), n.session(dead)
	for range 3 {
		n.clock.advance(n.cfg.PingInterval)
		pinged := n.clock.now().UnixNano()
		n.timekeeper.tick(pinged)
		eventually(t, "the pong", func() bool { return s.heard.Load() >= pinged })
		n.clock.advance(n.cfg.PongTimeout)
		n.timekeeper.tick(n.clock.now().UnixNano())
	}
	eventually(t, "the silent one to be cut off", func() bool { return n.connections.Load() == 1 })
	if silent.code != closeGone || n.metrics.closes[closeGone].Get() != 1 || s.deaf() {
		t.Errorf("%d closes 1006", n.metrics.closes[closeGone].Get())
	}
}

func TestAClientMayPing(t *testing.T) { eachLink(t, testAClientMayPing) }

func testAClientMayPing(t *testing.T, link change) {
	n := setup(t, link)
	c := n.connect("mona")
	pong := make(chan string, 1)
	c.SetPongHandler(func(payload string) error { pong <- payload; return nil })
	if err := c.WriteControl(websocket.PingMessage, []byte("hi"), time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	n.broker.put(domain.High, route(n, "mona", "a"))
	c.wantNotification("a")
	eventually(t, "the pong", func() bool {
		if len(pong) > 0 {
			return <-pong == "hi"
		}
		n.broker.put(domain.High, route(n, "mona", "b"))
		c.wantNotification("b")
		return false
	})
}

func TestFramesThatExpireInTheQueueAreNotSent(t *testing.T) {
	eachLink(t, testWhatWaitedTooLongForTheSocketIsNotSent)
}

func testWhatWaitedTooLongForTheSocketIsNotSent(t *testing.T, link change) {
	n := setup(t, link)
	c := n.connect("mona")
	s := n.session(c)
	s.holdUp(t)
	n.broker.put(domain.Normal,
		route(n, "mona", "short", func(r *whisperv1.Route) { r.ExpiresAtMs = n.clock.now().Add(time.Minute).UnixMilli() }),
		route(n, "mona", "long"))
	eventually(t, "both to queue", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.unacked.len() == 2
	})
	n.clock.advance(2 * time.Minute)
	s.letGo()
	c.wantNotification("long")
	n.wantKinds("short", "attempt_failed")
	c.ack("short")
	c.wantError(codeUnknownID)
}
