package decide_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/decide"
)

// TestABouncingNodeIsNotAskedInCircles: a node that keeps claiming a user and keeps handing deliveries
// back is asked a few times at once, then after a while.
func TestABouncingNodeIsNotAskedInCircles(t *testing.T) {
	t.Parallel()
	s := decide.NewState(0, decide.DefaultPolicy())
	s.Decide(decide.NodeChanged{Node: "n1", Incarnation: 1}, t0)
	later := here("mona", "n1", "s1", 1)
	later.Presence.AtUs = t0.Add(time.Hour).UnixMicro() // always newer than any bounce
	s.Decide(later, t0)
	s.Decide(arrived("pay", "mona", 7, given{}), t0)
	for attempt := int32(1); attempt < 100; attempt++ {
		out := s.Decide(bounce("pay", "mona", attempt, 1), t0)
		if len(out) > 0 && said(out[0]) == "deferred away" {
			return
		}
	}
	t.Fatal("asked a hundred times without a pause")
}

func TestBackoffGrowsIsJitteredAndBounded(t *testing.T) {
	t.Parallel()
	b := domain.Backoff{Base: time.Second, Cap: time.Minute, Tries: 3}
	id := domain.NewDeliveryID(t0, domain.HashDelivery("a", "b"))
	other := domain.NewDeliveryID(t0, domain.HashDelivery("a", "c"))
	for try, full := range map[int32]time.Duration{0: time.Second, 1: 2 * time.Second, 5: 32 * time.Second, 6: time.Minute, 60: time.Minute} {
		d := b.Delay(id, try)
		if d < full/2 || d > full {
			t.Errorf("try %d: %s is not between half and all of %s", try, d, full)
		}
		if d != b.Delay(id, try) {
			t.Errorf("try %d: not the same twice", try)
		}
		if d == b.Delay(other, try) {
			t.Errorf("try %d: two deliveries wait equally long", try)
		}
	}
	if b.Exhausted(2) || !b.Exhausted(3) {
		t.Error("three tries are three")
	}
}

// TestResendingSlowsDown: who is connected and never acknowledges is not sent it every half minute for a
// day, whichever channels could be tried in between.
func TestResendingSlowsDown(t *testing.T) {
	t.Parallel()
	for _, channels := range [][]string{{"socket"}, {"socket", "push"}} {
		s := decide.NewState(0, decide.DefaultPolicy())
		s.Decide(decide.NodeChanged{Node: "n1", Incarnation: 1}, t0)
		s.Decide(here("mona", "n1", "s1", 1), t0)
		s.Decide(arrived("pay", "mona", 7, given{channels: channels, ttl: 24 * time.Hour}), t0)
		routes := 1
		for now := t0; now.Before(t0.Add(24 * time.Hour)); now = now.Add(time.Second) {
			for _, o := range s.Decide(decide.TimePassed{}, now) {
				if _, ok := o.(decide.RouteTo); ok {
					routes++
				}
			}
		}
		if routes > 200 { // 15 minutes apart it is 96 to 192
			t.Errorf("%v: sent %d times in a day", channels, routes)
		}
	}
}

// TestReconnectingDoesNotDelayThePush: who connects again and again and never acknowledges is on a bad
// network; the time to acknowledge does not begin anew each time for ever.
func TestReconnectingDoesNotDelayThePush(t *testing.T) {
	t.Parallel()
	s := decide.NewState(0, decide.DefaultPolicy())
	s.Decide(decide.NodeChanged{Node: "n1", Incarnation: 1}, t0)
	s.Decide(endpoint("mona", "phone"), t0)
	s.Decide(here("mona", "n1", "s", 1), t0)
	s.Decide(arrived("pay", "mona", 7, given{}), t0)
	for i := 5; i <= 60; i += 5 {
		for _, o := range s.Decide(decide.TimePassed{}, at(i)) {
			if _, ok := o.(decide.PushTo); ok {
				return
			}
		}
		s.Decide(here("mona", "n1", fmt.Sprint("s", i), 1), at(i))
	}
	t.Error("the phone was not tried in a minute")
}
