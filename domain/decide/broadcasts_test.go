package decide

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/users"
	"github.com/klivvr/whisper/domain/whisperv1"
)

var noon = time.UnixMilli(1_700_000_000_000)

// broadcastOf is one that may begin at noon.
func broadcastOf(note string, source LaneOffset) *walk {
	id := domain.NewDeliveryID(noon, domain.HashDelivery(note, ""))
	return newWalk(users.NewTable(), &whisperv1.Event{
		DeliveryId: id[:], NotificationId: note, Lane: source.Lane.Proto(),
		Kind: &whisperv1.Event_BroadcastAccepted{BroadcastAccepted: &whisperv1.BroadcastAccepted{
			Accepted: &whisperv1.DeliveryAccepted{AcceptedAtMs: noon.UnixMilli(), ExpiresAtMs: noon.Add(time.Hour).UnixMilli()},
		}},
	}, Trace{}, source)
}

// TestBroadcastsTakeTurns: of those that have something to do, none gets two slices while another of its lane gets none.
func TestBroadcastsTakeTurns(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		b, now := newBroadcasts(), noon
		lanes := []domain.Lane{domain.High, domain.Normal}
		waited := map[*walk]int{}
		for offset := range int64(rapid.IntRange(1, 40).Draw(t, "steps")) {
			lane := rapid.SampledFrom(lanes).Draw(t, "lane")
			switch step := rapid.IntRange(0, 7).Draw(t, "step"); {
			case step == 0 || len(b.order) == 0:
				w := broadcastOf(fmt.Sprint(offset), LaneOffset{lane, offset})
				if rapid.Bool().Draw(t, "begins later") {
					w.acc.SendAtMs = now.Add(time.Duration(rapid.IntRange(0, 3).Draw(t, "minutes")) * time.Minute).UnixMilli()
				}
				b.add(w)
				if b.get(w.note()) != w || b.byID(w.id) != w || !b.has(w.id.Hash()) {
					t.Fatal("it is not there")
				}
			case step == 1:
				w := b.order[rapid.IntRange(0, len(b.order)-1).Draw(t, "which")]
				if b.remove(w); b.get(w.note()) != nil || b.byID(w.id) != nil || b.has(w.id.Hash()) {
					t.Fatal("it is still there")
				}
				delete(waited, w)
				clear(waited) // whose turn it is moved
			case step == 2:
				w := b.order[rapid.IntRange(0, len(b.order)-1).Draw(t, "which")]
				b.wake(w)
				w.done = !w.done // nothing to do before it expires
			case step == 3:
				w := b.order[rapid.IntRange(0, len(b.order)-1).Draw(t, "which")]
				if b.sleep(w, now) {
					clear(waited)
				}
			case step == 4:
				now = now.Add(time.Minute)
				clear(waited)
			default:
				at, due := b.due(lane)
				w := b.next(lane, now)
				if due = due && !at.After(now); due != (w != nil) {
					t.Fatalf("next is %v, due %v", w, due)
				}
				if w == nil {
					continue
				}
				if w.lane() != lane || w.done {
					t.Fatalf("%s of lane %v, done %v", w.note(), w.lane(), w.done)
				}
				waited[w] = 0
				for _, other := range b.order {
					if other != w && other.lane() == lane && !other.done && !other.starts().After(now) {
						if waited[other]++; waited[other] > 2*len(b.order) {
							t.Fatalf("%s waits for %d turns", other.note(), waited[other])
						}
					}
				}
			}
			if len(b.byNotification) != len(b.order) || !slices.IsSortedFunc(b.order,
				func(a, b *walk) int { return int(a.source.Lane) - int(b.source.Lane) }) {
				t.Fatalf("%d and %d", len(b.byNotification), len(b.order))
			}
			checkBroadcasts(t, &b)
		}
	})
}

// checkBroadcasts compares what is known of those that are asleep with a look at all.
func checkBroadcasts(t *rapid.T, b *broadcasts) {
	asleep := 0
	due, any := map[domain.Lane]time.Time{}, map[domain.Lane]bool{}
	for _, w := range b.order {
		at, ok := w.nextTurn()
		if ok && (!any[w.lane()] || at.Before(due[w.lane()])) {
			due[w.lane()], any[w.lane()] = at, true
		}
		awake := slices.Contains(b.awake, w)
		if w.slot > 0 {
			if asleep++; awake || !w.sleeps() || !ok || !w.due.Equal(at) {
				t.Fatalf("%s is asleep until %v; due %v %v, awake %v", w.note(), w.due, at, ok, awake)
			}
		} else if !awake {
			t.Fatalf("%s is neither awake nor asleep", w.note())
		}
	}
	if len(b.awake)+asleep != len(b.order) || !slices.IsSortedFunc(b.awake, (*walk).compare) {
		t.Fatalf("%d are awake and %d asleep, of %d", len(b.awake), asleep, len(b.order))
	}
	for _, lane := range domain.Lanes {
		if at, ok := b.due(lane); ok != any[lane] || !at.Equal(due[lane]) {
			t.Fatalf("the next of %v is due %v %v, want %v %v", lane, at, ok, due[lane], any[lane])
		}
	}
}

// TestPlannedBroadcastsAreNotLookedAt: however many are to begin tomorrow, those that a decision looks at are the others.
func TestPlannedBroadcastsAreNotLookedAt(t *testing.T) {
	t.Parallel()
	s := NewState(0, DefaultPolicy())
	s.ReplayDone()
	arrives := func(note string, starts time.Time) {
		w := broadcastOf(note, LaneOffset{domain.Low, int64(len(s.broadcasts.order))})
		w.ev.DeliveryId, w.acc.Content, w.acc.SendAtMs, w.acc.ExpiresAtMs = w.id[:], &whisperv1.Content{Body: "b"}, starts.UnixMilli(), starts.Add(time.Hour).UnixMilli()
		s.Decide(BroadcastArrived{Event: w.ev, Source: w.source}, noon)
	}
	tomorrow := noon.Add(24 * time.Hour)
	for i := range 100 {
		arrives(fmt.Sprint("planned", i), tomorrow.Add(time.Duration(i)*time.Second))
	}
	if len(s.broadcasts.awake) > 0 {
		t.Fatalf("%d are awake", len(s.broadcasts.awake))
	}
	arrives("now", noon)
	s.Decide(PresenceChanged{User: "mona", Node: "n1", Presence: &whisperv1.Presence{UserId: "mona", Node: "n1", Sessions: 1}}, noon)
	if due, ok := s.WalkDue(domain.Low); len(s.broadcasts.awake) != 1 || !ok || due.After(noon) {
		t.Fatalf("%d are awake, the next is due %v", len(s.broadcasts.awake), due)
	}
	s.Decide(WalkOn{Lane: domain.Low}, noon) // to its end: there is nobody
	if due, ok := s.WalkDue(domain.Low); !ok || !due.Equal(tomorrow) {
		t.Fatalf("the next is due %v", due)
	}
	at := tomorrow.Add(3 * time.Second)
	for begun := 0; ; begun++ {
		if due, ok := s.WalkDue(domain.Low); !ok || due.After(at) {
			if begun != 4 {
				t.Fatalf("%d began", begun)
			}
			break
		}
		s.Decide(WalkOn{Lane: domain.Low}, at)
	}
	steer := func(ev *whisperv1.Event) {
		ev.NotificationId = "planned50"
		s.Decide(SteeringArrived{Event: ev}, at)
	}
	steer(&whisperv1.Event{Kind: &whisperv1.Event_PauseRequested{PauseRequested: &whisperv1.PauseRequested{Request: &whisperv1.Position{Offset: 1}}}})
	if w := s.broadcasts.get("planned50"); len(s.broadcasts.awake) != 1 || !w.paused {
		t.Fatalf("%d are awake, paused %v", len(s.broadcasts.awake), w.paused)
	}
	steer(&whisperv1.Event{Kind: &whisperv1.Event_ResumeRequested{ResumeRequested: &whisperv1.ResumeRequested{Request: &whisperv1.Position{Offset: 2}}}})
	s.Decide(CancelArrived{Event: &whisperv1.Event{NotificationId: "planned60", Kind: &whisperv1.Event_CancelRequested{CancelRequested: &whisperv1.CancelRequested{}}}}, at)
	if len(s.broadcasts.awake) != 0 || len(s.broadcasts.order) != 95 {
		t.Fatalf("%d of %d are awake", len(s.broadcasts.awake), len(s.broadcasts.order))
	}
}
