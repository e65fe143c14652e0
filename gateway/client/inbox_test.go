package client

import (
	"context"
	"testing"
	"time"
)

// TestARetractionDoesNotPassWhatIsOffered on the channel, also when something more urgent sends that back to its lane.
func TestARetractionDoesNotPassWhatIsOffered(t *testing.T) {
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
