package gateway

import (
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/klivvr/whisper/domain"
)

func TestAlertsGoBeforeTheOthersTurns(t *testing.T) {
	t.Parallel()
	n, _, _ := onFakeLink(t)
	var order []string
	names := []string{"a", "b", "c"}
	for _, name := range names {
		_, l := n.opened(name, false)
		l.during = func() { order = append(order, name) }
	}
	for _, name := range names {
		n.take(domain.Low, name, "low-"+name)
	}
	n.take(domain.High, "c", "high") // it waits its turn already, and moves to the front
	n.pumpAll()
	if !slices.Equal(order, []string{"c", "a", "b"}) {
		t.Errorf("written in the order %v", order)
	}
}

// Alerts that overtake a session's own turn, again and again, leave no heap of turns behind.
func TestOvertakenTurnsDoNotPileUp(t *testing.T) {
	t.Parallel()
	n, s, _ := onFakeLink(t)
	for i := range 100 {
		n.take(domain.Low, "mona", fmt.Sprint("low-", i))
		n.take(domain.High, "mona", fmt.Sprint("high-", i))
		n.flusher.mu.Lock()
		urgent := n.flusher.urgent.take(nil, 1)
		n.flusher.mu.Unlock()
		if len(urgent) != 1 {
			t.Fatalf("%d are urgent", len(urgent))
		}
		s.flush(newOutbox())
	}
	if got := len(n.flusher.other.in) + len(n.flusher.other.out); got != 1 {
		t.Errorf("%d turns of one session", got)
	}
	n.take(domain.Low, "mona", "last")
	n.pumpAll()
	if s.writer != idle || s.queued != 0 {
		t.Error("the last waits")
	}
}

// Whoever is made ready is written, however many do so at once while workers fall asleep.
func TestNoWakeUpIsLost(t *testing.T) {
	t.Parallel()
	f := newFlusher()
	ended := make(chan struct{})
	go func() { defer close(ended); f.run() }()
	n := prepare(t)
	const rounds, many = 300, 8
	var wg sync.WaitGroup
	for i := range many {
		wg.Go(func() {
			s := newSession(n.Gateway, grant{user: "u", until: time.Now().Add(time.Hour)}, false)
			wrote := make(chan struct{}, 1)
			s.link = &fakeLink{room: 1 << 30}
			for range rounds {
				s.mu.Lock()
				s.push(queueControl, pingFrame, nil)
				s.link.(*fakeLink).during = func() { wrote <- struct{}{} }
				s.writer = waiting
				s.mu.Unlock()
				f.ready(s, i%2 == 0)
				select {
				case <-wrote:
				case <-time.After(3 * time.Minute):
					t.Error("never written")
					return
				}
				for rests := false; !rests; runtime.Gosched() {
					s.mu.Lock()
					rests = s.writer == idle
					s.mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	f.stop()
	<-ended
}
