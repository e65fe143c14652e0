package client

import (
	"context"
	"testing"
	"time"
)

// TestARetractionDoesNotOvertakeWhatIsOffered on the channel, also when something more urgent sends that back to its lane.
func TestARetractionDoesNotOvertakeWhatIsOffered(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	got := make(chan string, 1)
	opts := Options{AutoAck: true, Retracted: func(id string) { got <- "retracted " + id }}
	c := &Client{ctx: ctx, opts: opts.withDefaults()}
	in := &c.inbox
	in.init(c)
	waits := func(ok func() bool) {
		t.Helper()
		deadline := time.After(3 * time.Minute)
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			in.mu.Lock()
			done := ok()
			in.mu.Unlock()
			if done {
				return
			}
			select {
			case <-deadline:
				t.Fatal("waited in vain")
			case <-tick.C:
			}
		}
	}
	in.take(1, Notification{ID: "a", Lane: "low"})
	waits(func() bool { return len(in.lanes[2]) == 0 }) // it is offered
	in.takeBack("a")
	in.take(1, Notification{ID: "alert", Lane: "high"})
	waits(func() bool { return len(in.lanes[0]) == 0 && len(in.lanes[2]) > 0 }) // the alert is offered instead
	if len(got) > 0 {
		t.Error("the retraction came first")
	}
	first, second := <-in.channel, <-in.channel
	waits(func() bool { return !in.working })
	if first.ID != "alert" || second.ID != "a" || <-got != "retracted a" {
		t.Errorf("%s, %s", first.ID, second.ID)
	}
}

// TestReadMeansTheNewestUseOfAnID: by the delivery's own time, in whatever order the deliveries come and come again.
func TestReadMeansTheNewestUseOfAnID(t *testing.T) {
	t.Parallel()
	week := time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)
	last := Notification{ID: "weekly", Receipt: "w1", At: week.Add(-7 * 24 * time.Hour)}
	this := Notification{ID: "weekly", Receipt: "w2", At: week}
	for name, came := range map[string][]Notification{
		"in order":                 {last, this},
		"the older one last":       {this, last},
		"the older one comes anew": {last, this, last},
		"the newest comes anew":    {last, this, this},
		"between others":           {this, {ID: "other", Receipt: "o", At: week}, last},
	} {
		c := &Client{ctx: t.Context(), opts: Options{AutoAck: true}.withDefaults()}
		in := &c.inbox
		in.init(c)
		for _, n := range came {
			in.receipts.note(n)
		}
		if got := in.receipt("weekly"); got != "w2" {
			t.Errorf("%s: a read means %s", name, got)
		}
	}
}

// TestTheNewestUsesAreKeptForAWindow: of more ids than that the first are forgotten, not the newest uses.
func TestTheNewestUsesAreKeptForAWindow(t *testing.T) {
	t.Parallel()
	l := latest{of: map[string]dated{}, size: 3}
	for i, id := range []string{"a", "b", "c", "b", "d"} {
		l.note(Notification{ID: id, Receipt: "r", At: time.Unix(int64(100-i), 0)})
	}
	l.note(Notification{ID: "none", At: time.Unix(1, 0)})
	if len(l.of) != 3 || l.of["a"].receipt != "" || l.of["b"].at != time.Unix(99, 0) || l.of["d"].receipt != "r" {
		t.Errorf("left: %v", l.of)
	}
}
