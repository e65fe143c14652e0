package gateway

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// fakeLink is a socket that takes what a test lets it.
type fakeLink struct {
	room    int
	err     error
	during  func() // runs within a write, once: what others do meanwhile
	wrote   []byte
	polled  bool
	away    bool // whoever reads is busy elsewhere
	paused  bool // nothing is read
	resumed bool
	started bool
	cuts    int
	hungUp  int
	closed  int
}

func (l *fakeLink) start()       { l.started = true }
func (l *fakeLink) direct() bool { return true }

func (l *fakeLink) write(b []byte) (int, error) {
	if l.closed > 0 {
		panic("a write to a descriptor that may be another's by now")
	}
	if during := l.during; during != nil {
		l.during = nil
		during()
	}
	if l.err != nil || l.cuts > 0 {
		return 0, errors.Join(l.err, errors.New("cut"))
	}
	n := min(l.room, len(b))
	l.room -= n
	l.wrote = append(l.wrote, b[:n]...)
	return n, nil
}

func (l *fakeLink) hurry()               { l.open("hurry") }
func (l *fakeLink) hangUp()              { l.open("hangUp"); l.hungUp++ }
func (l *fakeLink) cut()                 { l.open("cut"); l.cuts++ }
func (l *fakeLink) close()               { l.closed++ }
func (l *fakeLink) attentive(int64) bool { return !l.away }
func (l *fakeLink) poll()                { l.open("poll"); l.polled = true }
func (l *fakeLink) pause()               { l.open("pause"); l.paused = true }
func (l *fakeLink) resume()              { l.open("resume"); l.paused, l.resumed = false, true }

func (l *fakeLink) open(what string) {
	if l.closed > 0 {
		panic(what + " of a descriptor that may be another's by now")
	}
}

// onFakeLink is an open session of a gateway that does not run: nothing happens but what the test does.
func onFakeLink(t testing.TB, change ...func(*Config, *fakeBroker)) (*node, *session, *fakeLink) {
	t.Helper()
	n := prepare(t, change...)
	s, l := n.opened("mona", false)
	return n, s, l
}

func (n *node) opened(user string, auto bool) (*session, *fakeLink) {
	n.t.Helper()
	s := newSession(n.Gateway, grant{user: user, until: n.clock.now().Add(time.Hour)}, auto)
	l := &fakeLink{room: 1 << 30}
	s.link = l
	n.connections.Add(1)
	if displaced := s.join(welcomeFrame(s.id, time.Second)); displaced != nil {
		displaced.close(closeTooMany, "too many", false)
	}
	l.start()
	s.flushNow()
	return s, l
}

// pump writes for one session that waits for it; false: none does.
func (n *node) pump() bool {
	f := n.flusher
	f.mu.Lock()
	turn := f.take(nil, 1)
	f.mu.Unlock()
	for _, s := range turn {
		s.flush(newOutbox())
	}
	return len(turn) > 0
}

func (n *node) pumpAll() {
	n.t.Helper()
	for i := 0; n.pump(); i++ {
		if i == 10_000 {
			n.t.Fatal("writing never comes to an end")
		}
	}
}

// take hands a route over as if it had come off Kafka.
func (n *node) take(lane domain.Lane, user, id string, change ...func(*whisperv1.Route)) {
	n.t.Helper()
	rec := route(n, user, id, change...)
	rec.Offset = n.broker.offsets[lane]
	n.broker.offsets[lane]++
	var targets []*session
	if err := n.lanes.take(lane, rec, &targets); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) wantNothingOpen() {
	n.t.Helper()
	for lane := range n.lanes.progress {
		if open := n.lanes.progress[lane].unsettled(); open > 0 {
			n.t.Fatalf("lane %d: %d records have no outcome", lane, open)
		}
	}
}

func TestAClientThatLeavesDuringAWriteIsGivenUp(t *testing.T) {
	t.Parallel()
	n, s, l := onFakeLink(t)
	n.take(domain.Normal, "mona", "a")
	l.room = 10
	l.during = s.ended // the reader meets the end, and the socket takes nothing more
	n.pumpAll()
	if l.closed != 1 || n.connections.Load() != 0 {
		t.Errorf("closed %d times, %d connections", l.closed, n.connections.Load())
	}
	n.wantKinds("a", "attempt_failed")
	n.wantNothingOpen()
}

func TestAClientThatReadsTooSlowlyIsClosedInTime(t *testing.T) {
	t.Parallel()
	n, s, l := onFakeLink(t)
	for i := range 100 {
		n.take(domain.Normal, "mona", fmt.Sprint(i))
	}
	l.room = 0
	for range 10 {
		n.pumpAll()
		if !l.polled {
			break
		}
		l.polled = false
		l.room += 100
		n.clock.advance(n.cfg.WriteTimeout / 2)
		s.heard.Store(n.now()) // it answers pings
		n.timekeeper.tick(n.now())
		s.writable()
	}
	if s.phase == open || s.code != closeTooSlow || l.cuts == 0 {
		t.Fatalf("closing %t with %d, cut %d times", s.phase != open, s.code, l.cuts)
	}
	s.ended()
	n.wantNothingOpen()
}

func TestClientsAreNotCalledSilentWhileTheGatewayDoesNotRead(t *testing.T) {
	t.Parallel()
	n, s, l := onFakeLink(t)
	n.take(domain.Normal, "mona", "a")
	l.room, l.away = 10, true // the poller waits for Kafka: neither pongs nor room are noticed
	n.pumpAll()
	for range 10 {
		n.clock.advance(n.cfg.PingInterval)
		n.timekeeper.tick(n.now())
		n.pumpAll()
	}
	if s.phase != open {
		t.Fatalf("closed with %d", s.code)
	}
	l.away = false
	n.clock.advance(n.cfg.PingInterval)
	n.timekeeper.tick(n.now())
	if s.phase == open || s.code != closeTooSlow {
		t.Errorf("closing %t with %d, now that it is the client's", s.phase != open, s.code)
	}
}

func TestAFrameLargerThanTheBufferGoesAlone(t *testing.T) {
	t.Parallel()
	n, s, l := onFakeLink(t, func(c *Config, _ *fakeBroker) { c.SendBuffer = 1000 })
	large := func(r *whisperv1.Route) { r.Frame = make([]byte, 5000) }
	n.take(domain.Normal, "mona", "a", large)
	n.pumpAll()
	if s.phase != open || len(l.wrote) < 5000 {
		t.Fatalf("closing %t after %d bytes", s.phase != open, len(l.wrote))
	}
	l.room = 0
	n.take(domain.Normal, "mona", "b")
	n.pumpAll()
	n.take(domain.Normal, "mona", "c", large)
	if s.phase == open || s.code != closeTooSlow {
		t.Errorf("closing %t with %d", s.phase != open, s.code)
	}
}

// life is one session through which anything happens in any order.
type life struct {
	n       *node
	s       *session
	l       *fakeLink
	sent    int
	strange int          // ids named that it was not sent
	unsaid  map[int]bool // what wants the client's own word, and did not get it
	ended   bool
	was     phase // before the last step
}

// step has one thing happen and checks that it led along the arrows of the table.
func (f *life) step(t *rapid.T) {
	f.was = f.s.phase
	f.happen(t, false)
	if !leads(f.was, f.s.phase) {
		t.Fatalf("from phase %d to %d", f.was, f.s.phase)
	}
}

// leads: some inputs, one after the other, lead from one phase to another.
func leads(from, to phase) bool {
	if from == to {
		return true
	}
	return slices.ContainsFunc(lives[from][:], func(next phase) bool { return next != never && next > from && leads(next, to) })
}

// happen does one thing; nested: in the middle of a write.
func (f *life) happen(t *rapid.T, nested bool) {
	n, s, l := f.n, f.s, f.l
	if l.resumed && !nested && !f.ended {
		l.resumed = false
		s.received(nil)
	}
	switch rapid.IntRange(0, 16).Draw(t, "what") {
	case 0, 1, 2:
		lane := domain.Lanes[rapid.IntRange(0, 2).Draw(t, "lane")]
		size := rapid.SampledFrom([]int{50, 300, 9000, 40_000}).Draw(t, "size")
		ttl := rapid.SampledFrom([]time.Duration{time.Second, time.Hour}).Draw(t, "ttl")
		own := rapid.Bool().Draw(t, "explicit")
		if own {
			f.unsaid[f.sent] = true
		}
		n.take(lane, "mona", fmt.Sprint(f.sent), func(r *whisperv1.Route) {
			r.ExplicitAck = own
			r.Frame, r.ExpiresAtMs = make([]byte, size), n.clock.now().Add(ttl).UnixMilli()
		})
		f.sent++
	case 3:
		if !f.ended && !l.paused {
			verb := rapid.SampledFrom([]string{"ack", "read"}).Draw(t, "verb")
			id := rapid.IntRange(0, f.sent).Draw(t, "id")
			delete(f.unsaid, id)
			s.received(clientFrameBytes(finBit|opText, fmt.Sprintf(`{"type":%q,"ids":["%d","%d"]}`, verb, id, id)))
		}
	case 16:
		if !f.ended && !l.paused { // of another session, or of nobody
			for range rapid.IntRange(1, 3).Draw(t, "frames") {
				f.strange += maxIDs
				if s.received(idsFrame("read", 1_000_000+f.strange, maxIDs)); l.paused {
					break
				}
			}
		}
	case 4, 5, 6:
		l.room += rapid.SampledFrom([]int{1, 200, 20_000, 1 << 20}).Draw(t, "room")
		if l.polled && !f.ended {
			l.polled = false
			s.writable()
		}
	case 7:
		l.room = 0
	case 8:
		n.clock.advance(rapid.SampledFrom([]time.Duration{time.Second, 6 * time.Second, 26 * time.Second}).Draw(t, "later"))
		n.timekeeper.tick(n.now())
	case 9:
		l.away = !l.away
	case 10:
		if !f.ended && rapid.Bool().Draw(t, "really") {
			s.received(clientFrameBytes(finBit|opClose, "\x03\xe8"))
		}
	case 11:
		if rapid.Bool().Draw(t, "really") {
			f.end()
		}
	case 12:
		if rapid.IntRange(0, 3).Draw(t, "really") == 0 {
			l.err = errors.New("reset")
		}
	case 13:
		if rapid.Bool().Draw(t, "really") {
			s.close(closeRestarting, "the node is restarting", rapid.Bool().Draw(t, "flush"))
		}
	case 14:
		s.control(pingFrame)
	case 15:
		if !nested {
			l.during = func() { f.happen(t, true) }
		}
	}
	if !nested && rapid.Bool().Draw(t, "pump") {
		n.pump()
	}
}

// end is the reader's last word, once.
func (f *life) end() {
	if !f.ended {
		f.ended = true
		f.s.ended()
	}
}

// Whatever happens to a session, in whatever order: it is freed once and not touched afterwards, what was
// handed to it has one outcome, and what waits is written as soon as the socket takes it.
func TestTheLifeOfASession(tb *testing.T) {
	tb.Parallel()
	rapid.Check(tb, func(t *rapid.T) {
		drains := rapid.Bool().Draw(t, "drains")
		n := prepare(testingOf{tb, t}, func(c *Config, _ *fakeBroker) { c.SendBuffer = 100_000; c.MaxUnacked = 20 })
		if drains {
			n.state.Store(draining)
		}
		s, l := n.opened("mona", rapid.Bool().Draw(t, "auto"))
		f := &life{n: n, s: s, l: l, unsaid: map[int]bool{}}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			f.step(t)
		}
		l.during, l.room, l.away = nil, 1<<30, false
		for n.pumpAll(); l.polled && !f.ended; n.pumpAll() {
			l.polled = false
			s.writable()
		}
		if s.phase == open && (s.writer != idle || s.queued != 0 || s.stuck != nil) {
			t.Fatalf("%d bytes wait, the writer is at %d", s.queued, s.writer)
		}
		if s.phase == open {
			s.silent()
		}
		if l.closed == 0 && l.cuts == 0 && !f.ended { // the deadline sees to it
			for range 3 {
				n.clock.advance(n.cfg.WriteTimeout)
				n.timekeeper.tick(n.now())
				n.pumpAll()
			}
			if l.cuts == 0 {
				t.Fatal("a closed session is never cut")
			}
		}
		f.end()
		n.pumpAll()
		f.check(t)
	})
}

func (f *life) check(t *rapid.T) {
	if f.n.blocked.Load() != 0 || f.l.closed != 1 || f.n.connections.Load() != 0 || len(f.n.hub.shard("mona").users["mona"].sessions) > 0 {
		t.Fatalf("closed %d times, %d connections", f.l.closed, f.n.connections.Load())
	}
	f.n.wantNothingOpen()
	f.n.timekeeper.each(func(*session) { t.Fatal("it is still waited for") })
	failed := map[string]int{}
	told := map[string]int{}
	strangers := 0
	defer func() {
		passed := time.Duration(f.n.now() - f.n.began.UnixNano())
		if most := 2*maxIDs + int(passed/priceStranger) + 1; strangers > most {
			t.Fatalf("%d facts of strangers within %s", strangers, passed)
		}
	}()
	for _, ev := range f.n.broker.allFacts() {
		if ev.GetDeliveryRead() != nil {
			if told[ev.GetNotificationId()]++; told[ev.GetNotificationId()] > 1 && len(ev.GetNotificationId()) > 6 {
				t.Fatalf("%s was told twice", ev.GetNotificationId())
			}
			if len(ev.GetNotificationId()) > 6 {
				strangers++
			}
		}
		if ev.GetAttemptFailed() != nil {
			failed[ev.GetNotificationId()]++
		}
	}
	for i := range f.sent {
		if kinds := f.n.broker.kinds(fmt.Sprint(i)); len(kinds) == 0 || failed[fmt.Sprint(i)] > 1 {
			t.Fatalf("%d: %v", i, kinds)
		}
		if f.unsaid[i] && slices.Contains(f.n.broker.kinds(fmt.Sprint(i)), "delivery_delivered") {
			t.Fatalf("%d is delivered, and its client never said so", i)
		}
	}
	wholeFrames(t, f.l.wrote)
}

// wholeFrames: frame after frame, where only the last may be cut off, and nothing after a close.
func wholeFrames(t *rapid.T, b []byte) {
	for len(b) >= 4 {
		size, head := int(b[1]), 2
		if size == 126 {
			size, head = int(b[2])<<8|int(b[3]), 4
		}
		switch op := b[0]; {
		case op != finBit|opText && op != finBit|opPing && op != finBit|opClose && op != finBit|opPong:
			t.Fatalf("a frame begins with %x", op)
		case len(b) < head+size:
			return
		case op == finBit|opClose && len(b) > head+size:
			t.Fatalf("%d bytes after the close frame", len(b)-head-size)
		}
		b = b[head+size:]
	}
}

// testingOf lets helpers of tests run under rapid, which needs to know of failures.
type testingOf struct {
	testing.TB
	rapid *rapid.T
}

func (t testingOf) Helper()                       {}
func (t testingOf) Fatal(args ...any)             { t.rapid.Fatal(args...) }
func (t testingOf) Fatalf(form string, as ...any) { t.rapid.Fatalf(form, as...) }
