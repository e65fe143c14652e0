package gateway

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// idsFrame is a client's frame that names ids from first on.
func idsFrame(verb string, first, count int) []byte {
	ids := make([]string, count)
	for i := range ids {
		ids[i] = fmt.Sprintf(`"%d"`, first+i)
	}
	return clientFrameBytes(finBit|opText, fmt.Sprintf(`{"type":%q,"ids":[%s]}`, verb, strings.Join(ids, ",")))
}

// Reads of what a session was not sent make 256 facts at once and a frame's worth more, then five a second. The rest
// waits and is told in its turn: nothing of it is lost, and nobody is closed for it.
func TestReadsOfStrangersArePacedByID(t *testing.T) {
	t.Parallel()
	n, s, l := onFakeLink(t)
	const frames = 4
	var sent []byte
	for i := range frames {
		sent = append(sent, idsFrame("read", i*maxIDs, maxIDs)...)
	}
	s.received(sent)
	if got := len(n.broker.allFacts()); got > 2*maxIDs || !l.paused {
		t.Fatalf("%d facts at once, paused %t", got, l.paused)
	}
	began := n.now()
	for steps := 0; len(n.broker.allFacts()) < frames*maxIDs; steps++ {
		if steps > 10_000 || s.phase != open {
			t.Fatalf("after %d steps %d facts, closing %t", steps, len(n.broker.allFacts()), s.phase != open)
		}
		n.clock.advance(time.Second)
		if !l.paused {
			s.heard.Store(n.now()) // whoever is read answers pings
		}
		n.timekeeper.tick(n.now())
		n.pumpAll()
		if l.resumed {
			l.resumed = false
			s.received(nil)
		}
		most := 2*maxIDs + int((n.now()-began)/int64(priceStranger)) + maxIDs
		if got := len(n.broker.allFacts()); got > most {
			t.Fatalf("%d facts after %s, at most %d", got, time.Duration(n.now()-began), most)
		}
	}
	if n.metrics.badFrames.Get() > 0 {
		t.Error("it was told of something bad")
	}
}

// What a session was sent may be acknowledged and read at any speed.
func TestWhatWasSentIsAcknowledgedFreely(t *testing.T) {
	t.Parallel()
	n, s, l := onFakeLink(t)
	for round := range 20 {
		for i := range maxIDs {
			n.take(domain.Normal, "mona", fmt.Sprint(round*maxIDs+i))
		}
		n.pumpAll()
		s.received(idsFrame([]string{"ack", "read"}[round%2], round*maxIDs, maxIDs))
	}
	if l.paused || s.phase != open || s.unacked.len() > 0 {
		t.Errorf("paused %t, closing %t, %d unacknowledged", l.paused, s.phase != open, s.unacked.len())
	}
}

func TestRepeatsWithinAFrameAreDropped(t *testing.T) {
	t.Parallel()
	n, s, _ := onFakeLink(t)
	s.received(clientFrameBytes(finBit|opText, `{"type":"read","ids":["a","b","a","a","b"]}`))
	var got []string
	for _, ev := range n.broker.allFacts() {
		got = append(got, ev.GetNotificationId())
	}
	if !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("facts of %v", got)
	}
}

func TestTooManyIDsAreRefusedWhole(t *testing.T) {
	t.Parallel()
	n, s, l := onFakeLink(t)
	s.received(idsFrame("read", 0, maxIDs+1))
	n.pumpAll()
	if len(n.broker.allFacts()) != 0 || s.phase != open || !strings.Contains(string(l.wrote), "at most 256") {
		t.Errorf("%d facts, closing %t, told %s", len(n.broker.allFacts()), s.phase != open, l.wrote)
	}
	s.received(idsFrame("read", 0, 3))
	if len(n.broker.allFacts()) != 3 {
		t.Errorf("%d facts of the next frame", len(n.broker.allFacts()))
	}
}

// Whoever rests because of its reads goes on by itself, on a socket of any kind; others don't notice.
func TestARestingConnectionGoesOn(t *testing.T) { eachLink(t, testARestingConnectionGoesOn) }

func testARestingConnectionGoesOn(t *testing.T, link change) {
	n := setup(t, link)
	attacker, other := n.connect("mallory"), n.connect("mona")
	for i := range 3 {
		if err := attacker.WriteMessage(websocket.TextMessage, unframed(idsFrame("read", i*maxIDs, maxIDs))); err != nil {
			t.Fatal(err)
		}
	}
	if err := attacker.WriteMessage(websocket.PingMessage, []byte("after it all")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it to rest", func() bool { return n.metrics.rests.Get() > 0 })
	if facts := len(n.broker.allFacts()); facts > 2*maxIDs {
		t.Errorf("%d facts before it rested", facts)
	}
	n.broker.put(domain.High, route(n, "mona", "alert"))
	other.wantNotification("alert")
	n.broker.put(domain.High, route(n, "mallory", "alert"))
	attacker.wantNotification("alert") // it is written to all the while
	ponged := make(chan struct{})
	attacker.SetPongHandler(func(string) error { close(ponged); return nil })
	go func() { // its pong handler runs within a read
		for {
			if _, _, err := attacker.ReadMessage(); err != nil {
				return
			}
		}
	}()
	gone := func() bool {
		select {
		case <-ponged:
			return true
		default:
			n.clock.advance(5 * time.Second) // less than what ends a silent session at a time
			return false
		}
	}
	eventually(t, "the ping behind the reads to be answered", gone)
	if facts := len(n.broker.kinds("767")); facts != 1 {
		t.Errorf("the last read was told %d times", facts)
	}
}

// unframed is the payload of a frame that clientFrameBytes made.
func unframed(b []byte) []byte {
	var r frameReader
	r.limit = 1 << 20
	f, _, _ := r.next(slices.Clone(b))
	return f.payload
}

// A connection that ends while it rests is noticed, and gives its place back.
func TestAClientThatLeavesWhileAtRestIsRemoved(t *testing.T) {
	eachLink(t, testWhoLeavesWhileItRestsIsGone)
}

func testWhoLeavesWhileItRestsIsGone(t *testing.T, link change) {
	n := setup(t, link)
	c := n.connect("mallory")
	for i := range 4 {
		_ = c.WriteMessage(websocket.TextMessage, unframed(idsFrame("read", i*maxIDs, maxIDs)))
	}
	eventually(t, "it to rest", func() bool { return n.metrics.rests.Get() > 0 })
	c.Close()
	eventually(t, "it to be gone", func() bool {
		n.clock.advance(5 * time.Second)
		return n.connections.Load() == 0
	})
}

// BenchmarkPingBesideReads: how long another user's ping takes while one connection sends frames of reads as large
// and as fast as it can. Each fact costs 20 µs here, which is less than Kafka's client takes for it.
func BenchmarkPingBesideReads(b *testing.B) {
	n := setup(b, func(c *Config, broker *fakeBroker) {
		broker.discard = true
		broker.onFact = func(*whisperv1.Event) {
			for began := time.Now(); time.Since(began) < 20*time.Microsecond; {
			}
		}
	})
	c := n.connect("mona")
	pong := make(chan struct{}, 1)
	c.SetPongHandler(func(string) error { pong <- struct{}{}; return nil })
	go func() {
		for {
			if _, _, err := c.ReadMessage(); err != nil {
				return
			}
		}
	}()
	median := func() time.Duration {
		var took []time.Duration
		for range 200 {
			began := time.Now()
			if err := c.WriteMessage(websocket.PingMessage, nil); err != nil {
				b.Fatal(err)
			}
			<-pong
			took = append(took, time.Since(began))
			for time.Since(began) < 12*time.Millisecond { // under the limit of frames
				<-time.After(time.Millisecond)
			}
		}
		slices.Sort(took)
		return took[len(took)/2]
	}
	ids := make([]string, 0, maxIDs)
	for i := range 1200 { // nearly what fills a frame of 16 KiB
		ids = append(ids, fmt.Sprintf(`"pay-%06d"`, i))
	}
	large := []byte(`{"type":"read","ids":[` + strings.Join(ids, ",") + `]}`)
	few := []byte(`{"type":"read","ids":[` + strings.Join(ids[:maxIDs], ",") + `]}`)
	for b.Loop() {
		quiet := median()
		stop := make(chan struct{})
		attacker := n.connect("mallory")
		go func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				frame := few
				if i%2 == 0 {
					frame = large
				}
				if attacker.WriteMessage(websocket.TextMessage, frame) != nil {
					return
				}
				<-time.After(12 * time.Millisecond)
			}
		}()
		beside := median()
		close(stop)
		attacker.Close()
		b.ReportMetric(float64(quiet.Microseconds()), "quiet-µs")
		b.ReportMetric(float64(beside.Microseconds()), "beside-µs")
		b.ReportMetric(float64(beside)/float64(quiet), "ratio")
	}
}

// Whoever connects anew to have an empty meter gains nothing: the reads of a user are paced over all their sessions, one
// after the other or at once. Another user does not notice.
func TestReadsOfStrangersArePacedOverConnections(t *testing.T) {
	t.Parallel()
	n := prepare(t, func(c *Config, _ *fakeBroker) { c.MaxPerUser = 3 })
	most, connections := 3*maxIDs, 0
	for frame := range 40 {
		s, l := n.opened("mallory", false)
		connections++
		s.received(idsFrame("read", frame*maxIDs, maxIDs-1)) // so that the session itself is not in debt
		if frame < 3 && l.paused {
			t.Fatalf("connection %d rests", connections)
		}
		s.ended()
		n.pumpAll()
		n.clock.advance(10 * time.Millisecond)
	}
	// What all sessions at once may tell, and a frame more.
	if got := len(n.broker.allFacts()); got > most+2*maxIDs {
		t.Errorf("%d facts over %d connections, at most %d", got, connections, most)
	}
	s, l := n.opened("mona", false)
	s.received(idsFrame("read", 0, maxIDs-1))
	if l.paused || len(n.broker.allFacts()) < 4*(maxIDs-1) {
		t.Error("another user pays for it")
	}
	n.clock.advance(time.Minute) // it is paid for
	before := len(n.broker.allFacts())
	s, l = n.opened("mallory", false)
	s.received(idsFrame("read", 1_000_000, 2))
	if l.paused || len(n.broker.allFacts()) != before+2 {
		t.Errorf("after a minute it rests: %t", l.paused)
	}
	n.clock.advance(time.Hour)
	n.strangers.charge("somebody", n.now(), priceStranger)
	if len(n.strangers.meters) != 1 {
		t.Errorf("%d meters are kept of who has paid", len(n.strangers.meters))
	}
}

// What rests since its user is in debt goes on by itself, and loses nothing.
func TestASessionOfAUserInDebtGoesOn(t *testing.T) {
	t.Parallel()
	n := prepare(t, func(c *Config, _ *fakeBroker) { c.MaxPerUser = 2 })
	for frame := range 3 {
		s, _ := n.opened("mallory", false)
		s.received(idsFrame("read", frame*maxIDs, maxIDs))
		s.ended()
	}
	n.pumpAll()
	s, l := n.opened("mallory", false)
	s.received(idsFrame("read", 1_000_000, 1))
	if !l.paused || len(n.broker.kinds("1000000")) > 0 {
		t.Fatalf("paused %t", l.paused)
	}
	for range 600 {
		n.clock.advance(time.Second)
		s.heard.Store(n.now()) // it answers pings
		n.timekeeper.tick(n.now())
		if l.resumed {
			l.resumed = false
			s.received(nil)
		}
	}
	if len(n.broker.kinds("1000000")) != 1 || s.phase != open {
		t.Errorf("it was told %v, phase %d", n.broker.kinds("1000000"), s.phase)
	}
}
