package gateway

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"pgregory.net/rapid"

	"github.com/klivvr/whisper/domain"
)

// refused dials in vain and returns the answer's status and the seconds of its Retry-After.
func (n *node) refused(t testing.TB, user string) (status, after int) {
	t.Helper()
	conn, resp, err := websocket.DefaultDialer.Dial(n.url, bearer(n.token(user, time.Hour)))
	if err == nil {
		conn.Close()
		t.Fatal("let in")
	}
	if resp == nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	after, err = strconv.Atoi(resp.Header.Get("Retry-After"))
	if err != nil || after < 1 || !resp.Close {
		t.Fatalf("status %d, Retry-After %q, closing %t", resp.StatusCode, resp.Header.Get("Retry-After"), resp.Close)
	}
	return resp.StatusCode, after
}

func TestAMeterLetsASecondsWorthInAtOnceAndThenTheRate(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		rate := rapid.IntRange(1, 1000).Draw(t, "rate")
		now, allowed := int64(1e18), 0
		began := now
		var p meter
		for range rapid.IntRange(1, 500).Draw(t, "frames") {
			now += rapid.Int64Range(0, 2*int64(time.Second)/int64(rate)).Draw(t, "pause")
			if p.allow(now, time.Second/time.Duration(rate), time.Second) {
				allowed++
			}
			// The bucket, what dripped in, and the frame that is just let through.
			if most := float64(rate) + float64(now-began)/1e9*float64(rate) + 2; float64(allowed) > most {
				t.Fatalf("%d frames in %s at %d a second", allowed, time.Duration(now-began), rate)
			}
		}
		if now += int64(time.Second) + int64(time.Second)/int64(rate); !p.allow(now, time.Second/time.Duration(rate), time.Second) {
			t.Fatal("refused after a second of silence")
		}
	})
}

func TestAdmissionLetsInAtTheRate(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		rate := rapid.IntRange(1, 5000).Draw(t, "rate")
		now := time.Unix(1e9, 0)
		began, latest := now, now
		a := newAdmission(rate)
		burst := max(1, float64(rate)/4)
		in := 0
		for range rapid.IntRange(1, 300).Draw(t, "connects") {
			now = now.Add(time.Duration(rapid.Int64Range(-int64(time.Millisecond), int64(time.Second)/int64(rate)).Draw(t, "pause")))
			switch wait := a.take(now.UnixNano()); {
			case wait == 0:
				in++
			case wait < 0 || wait > 3*longestWait/2+time.Second:
				t.Fatalf("told to wait %s", wait)
			}
			if now.After(latest) { // the clock may go back
				latest = now
			}
			if most := burst + latest.Sub(began).Seconds()*float64(rate) + 1; float64(in) > most {
				t.Fatalf("%d let in within %s at %d a second", in, latest.Sub(began), rate)
			}
		}
		if a.waiting(now.Add(time.Hour).UnixNano()) != 0 {
			t.Fatal("the queue never empties")
		}
	})
}

func TestRefusedClientsAreToldToReturnSpreadOut(t *testing.T) {
	t.Parallel()
	now := time.Unix(1e9, 0)
	a := newAdmission(100)
	var waits []time.Duration
	for range 1025 {
		if wait := a.take(now.UnixNano()); wait > 0 {
			waits = append(waits, wait)
		}
	}
	if len(waits) != 1000 {
		t.Fatalf("%d refused, want all but a quarter of a second's worth", len(waits))
	}
	seconds := map[int]int{}
	for _, wait := range waits {
		seconds[int(wait.Seconds())]++
	}
	for second, n := range seconds {
		if n > 2*100 {
			t.Errorf("%d of them come again in second %d", n, second)
		}
	}
}

func TestAStormIsLetInAtTheNodesOwnSpeed(t *testing.T) {
	t.Parallel()
	n := setup(t, func(c *Config, _ *fakeBroker) { c.AdmitRate = 4 })
	n.connect("first") // one at once
	status, _ := n.refused(t, "second")
	if status != http.StatusServiceUnavailable || n.metrics.paced.Get() != 1 || n.connections.Load() != 1 {
		t.Errorf("status %d, %d refused, %d connections", status, n.metrics.paced.Get(), n.connections.Load())
	}
	if !strings.Contains(n.exposed(), "whisper_gateway_admission_waiting 0.") &&
		!strings.Contains(n.exposed(), "whisper_gateway_admission_waiting 1") {
		t.Errorf("the gauge does not tell of who waits")
	}
	n.clock.advance(time.Second)
	n.connect("second")
}

func (n *node) exposed() string {
	var b bytes.Buffer
	n.cfg.Metrics.WritePrometheus(&b)
	return b.String()
}

func TestOneAddressHasSoManyConnectionsAndTakesNobodysTurn(t *testing.T) {
	t.Parallel()
	n := setup(t, func(c *Config, _ *fakeBroker) { c.MaxPerAddress = 2; c.AdmitRate = 8 })
	first := n.connect("a")
	n.connect("b")
	n.clock.advance(time.Second) // the bucket of two is full again
	for range 5 {
		if status, _ := n.refused(t, "c"); status != http.StatusTooManyRequests {
			t.Fatalf("status %d", status)
		}
	}
	if n.metrics.paced.Get() != 0 || n.metrics.addressFull.Get() != 5 {
		t.Errorf("%d refused for the rate, %d for the address", n.metrics.paced.Get(), n.metrics.addressFull.Get())
	}
	first.Close()
	eventually(t, "room", func() bool { return n.connections.Load() == 1 })
	n.connect("c")
}

func TestAddressesAreCountedByWhoHasThem(t *testing.T) {
	t.Parallel()
	for remote, want := range map[string]string{
		"192.0.2.1:80":          "192.0.2.1",
		"[::ffff:192.0.2.1]:80": "192.0.2.1",
		"[2001:db8:1:2:3::4]:5": "2001:db8:1:2::",
		"[fe80::1%eth0]:5":      "fe80::",
		"@":                     "invalid IP",
	} {
		if got := countedAs(hostOf(remote)).String(); got != want {
			t.Errorf("%s counts as %s, want %s", remote, got, want)
		}
	}
	c := newAddresses(1)
	a := countedAs(hostOf("192.0.2.1:1"))
	if !c.add(a) || c.add(a) || !c.add(countedAs(hostOf("192.0.2.2:1"))) || !c.add(address{}) || !c.add(address{}) {
		t.Error("miscounted")
	}
	c.remove(a)
	if len(c.have) != 1 || !c.add(a) {
		t.Errorf("left: %v", c.have)
	}
}

func TestAFileLimitThatIsTooLowIsReported(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		files uint64
		limit int64
		said  bool
	}{{1 << 20, 50_000, false}, {50_256, 50_000, false}, {50_255, 49_999, true}, {1024, 768, true}, {100, 1, true}} {
		var log bytes.Buffer
		n := prepare(t, func(cfg *Config, _ *fakeBroker) { cfg.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
		n.fitFiles(c.files)
		said := strings.Contains(log.String(), "file limit is too low")
		if n.limit.Load() != c.limit || said != c.said {
			t.Errorf("%d files: at most %d connections, said: %t", c.files, n.limit.Load(), said)
		}
		if h := n.handshakes.limit.Load(); h < spareFiles/2 || h+c.limit+spareFiles/2 > int64(max(c.files, 2*spareFiles)) {
			t.Errorf("%d files: %d handshakes", c.files, h)
		}
	}
}

func TestTheHeartbeatTellsTheLimitThatCounts(t *testing.T) {
	t.Parallel()
	n := prepare(t, func(c *Config, _ *fakeBroker) { c.Heartbeat = 5 * time.Millisecond })
	n.start()
	n.limit.Store(1234) // as a file limit would
	eventually(t, "a heartbeat with it", func() bool {
		beats := n.broker.heartbeats(t)
		return beats[len(beats)-1].GetLimit() == 1234
	})
}

func TestAHandshakeMustBeWholeInTime(t *testing.T) {
	t.Parallel()
	n := setup(t, func(c *Config, _ *fakeBroker) { c.HandshakeTimeout = 50 * time.Millisecond })
	c := dialRaw(t, n.Addr().String())
	c.send([]byte("GET /v1/socket HTTP/1.1\r\nHost: "))
	c.toEnd()
	if n.connections.Load() != 0 {
		t.Errorf("%d connections", n.connections.Load())
	}
}

func TestUtilizationHasHysteresis(t *testing.T) {
	t.Parallel()
	in := newInstruments(config().Metrics)
	now := int64(0)
	at := func(n int64) bool { now = n; return in.load(func() int64 { return now }, 100) }
	for i, step := range []struct {
		n       int64
		crossed bool
	}{{80, false}, {81, true}, {80, false}, {71, false}, {100, false}, {70, false}, {81, false}, {69, false}, {80, false}, {81, true}} {
		if got := at(step.n); got != step.crossed {
			t.Errorf("step %d, %d connections: crossed %t", i, step.n, got)
		}
	}
	if in.highUtilization.Get() != 2 || in.utilization.Get() != .81 || in.connections.Get() != 81 {
		t.Errorf("counted %d, %v, %v", in.highUtilization.Get(), in.utilization.Get(), in.connections.Get())
	}
}

func TestTooManyFramesASecondClose4003(t *testing.T) { eachLink(t, testTooManyFramesASecondClose4003) }

func testTooManyFramesASecondClose4003(t *testing.T, link change) {
	n := setup(t, link, func(c *Config, _ *fakeBroker) { c.MaxFrameRate = 10 })
	c := n.connect("mona")
	for i := range 50 { // what it was sent may be acknowledged at any speed
		n.broker.put(domain.High, route(n, "mona", fmt.Sprint(i)))
		c.wantNotification(fmt.Sprint(i))
		c.ack(fmt.Sprint(i))
	}
	eventually(t, "the last acknowledgement", func() bool { return n.metrics.acks.Get() == 50 })
	for range 30 {
		_ = c.WriteMessage(websocket.TextMessage, []byte(`{"type":"ack","ids":["nobody-sent-it"]}`)) // it may be closed already
	}
	tooFast := false
	for {
		_, b, err := c.ReadMessage()
		if err != nil {
			if !websocket.IsCloseError(err, closeBadFrame) {
				t.Errorf("it ended with %v", err)
			}
			break
		}
		tooFast = tooFast || strings.Contains(string(b), codeTooFast)
	}
	if !tooFast {
		t.Error("it was not told why")
	}
}

// What a session remembers of what it got shrinks to little when it falls silent.
func TestWhatWasAcknowledgedIsForgotten(t *testing.T) {
	t.Parallel()
	n, s, _ := onFakeLink(t)
	for i := range 2 * recentEntries {
		n.take(domain.Normal, "mona", fmt.Sprint(i))
		n.pumpAll()
		s.received(clientFrameBytes(finBit|opText, fmt.Sprintf(`{"type":"ack","ids":["%d"]}`, i)))
	}
	if s.unacked.len() > 0 || len(s.recent.entries) != recentEntries {
		t.Errorf("%d unacknowledged, %d remembered", s.unacked.len(), len(s.recent.entries))
	}
	for range 8 {
		n.clock.advance(n.cfg.PingInterval / 2)
		s.heard.Store(n.now())
		n.timekeeper.tick(n.now())
	}
	for _, e := range s.recent.entries {
		if e.d != nil {
			t.Fatal("whole deliveries are kept")
		}
	}
	last, bad := fmt.Sprint(2*recentEntries-1), n.metrics.badFrames.Get()
	for _, verb := range []string{"ack", "read", "read", "ack"} {
		s.received(clientFrameBytes(finBit|opText, fmt.Sprintf(`{"type":%q,"ids":[%q]}`, verb, last)))
	}
	if got := strings.Join(n.broker.kinds(last), " "); got != "delivery_sent delivery_delivered delivery_read" ||
		n.metrics.badFrames.Get() != bad {
		t.Errorf("facts: %s", got)
	}
	facts := n.broker.allFacts()
	if a, b := facts[len(facts)-1], facts[len(facts)-2]; string(a.GetDeliveryId()) != string(b.GetDeliveryId()) || a.GetLane() != b.GetLane() {
		t.Errorf("the read is of %x, the delivery was %x", a.GetDeliveryId(), b.GetDeliveryId())
	}
}
