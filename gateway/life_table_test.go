package gateway

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/klivvr/whisper/domain"
)

// reach brings a session to a phase. In open and closing its writer is blocked, so that nothing moves by itself.
func (n *node) reach(s *session, l *fakeLink, p phase) {
	n.t.Helper()
	l.room = 0
	n.take(domain.Normal, "mona", "a")
	n.pumpAll()
	if p >= closing {
		s.close(closeRestarting, "the node is restarting", true)
	}
	if p >= parted {
		l.room = 1 << 30
		s.writable()
		n.pumpAll()
	}
	if p == freed {
		s.ended()
	}
	if s.phase != p {
		n.t.Fatalf("phase %d, want %d", s.phase, p)
	}
}

// Every cell of the table happens to a session, those that never come too: they change nothing.
func TestEveryCellOfASessionsLife(t *testing.T) {
	t.Parallel()
	failing := func(n *node, s *session, l *fakeLink) {
		l.err = errors.New("reset")
		s.writable()
		n.pumpAll()
	}
	for in, happens := range map[input]map[string]func(n *node, s *session, l *fakeLink){
		closed: {
			"closed":   func(_ *node, s *session, _ *fakeLink) { s.close(closeTooMany, "too many", false) },
			"token":    func(_ *node, s *session, _ *fakeLink) { s.fail(refused(errTokenExpired)) },
			"by peer":  func(_ *node, s *session, _ *fakeLink) { s.peerClosed(closeNormal) },
			"too slow": func(n *node, s *session, _ *fakeLink) { s.control(encodeFrame(opPong, make([]byte, n.cfg.SendBuffer))) },
		},
		dropped: {"silent": func(_ *node, s *session, _ *fakeLink) { s.silent() }},
		goodbyeTaken: {"written": func(n *node, s *session, l *fakeLink) {
			l.room = 1 << 30
			s.writable()
			n.pumpAll()
		}},
		gaveUp: {
			"overdue":      func(_ *node, s *session, _ *fakeLink) { s.overdue() },
			"write failed": failing,
		},
		released: {"can it be freed?": func(_ *node, s *session, _ *fakeLink) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.readDone = s.phase == parted // as ended does
			s.canFree()
		}},
	} {
		for name, happen := range happens {
			for from := range phases {
				t.Run(fmt.Sprint(name, " in ", from), func(t *testing.T) {
					t.Parallel()
					n, s, l := onFakeLink(t)
					n.reach(s, l, from)
					want := lives[from][in]
					if want == never {
						want = from
					}
					if name == "write failed" && from > closing { // nothing is written any more, so nothing fails
						want = from
					}
					happen(n, s, l)
					if s.phase != want {
						t.Errorf("phase %d, want %d", s.phase, want)
					}
					if inHub := len(n.hub.shard("mona").users["mona"].sessions) == 1; inHub != (s.phase == open) {
						t.Errorf("in phase %d, in the hub %t", s.phase, inHub)
					}
				})
			}
		}
	}
}

// The reader's end leads from every phase to the end of the life, whatever the writer does.
func TestTheReadersEndEndsEveryLife(t *testing.T) {
	t.Parallel()
	for from := range freed {
		n, s, l := onFakeLink(t)
		n.reach(s, l, from)
		s.ended()
		if s.phase != freed || l.closed != 1 {
			t.Errorf("from %d to %d, closed %d times", from, s.phase, l.closed)
		}
	}
}

// A life only goes forward, and every phase is reached.
func TestALifeGoesForward(t *testing.T) {
	t.Parallel()
	reached := []phase{open}
	for from, row := range lives {
		for in, to := range row {
			if to != never && to < phase(from) {
				t.Errorf("input %d leads back from %d to %d", in, from, to)
			}
			if to != never {
				reached = append(reached, to)
			}
		}
	}
	slices.Sort(reached)
	if !slices.Equal(slices.Compact(reached), []phase{open, closing, parted, freed}) {
		t.Errorf("reached: %v", reached)
	}
}
