package consumers

import (
	"context"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

func TestALeaseLastsFromTheQuestionThatWasAnswered(t *testing.T) {
	t.Parallel()
	const session = 10 * time.Second
	now := time.Unix(1_000, 0)
	l := newLease(session)
	l.now = func() time.Time { return now }
	// asked is a question whose answer takes so long.
	asked := func(took time.Duration, err error) {
		ctx, cancel := context.WithCancel(t.Context())
		l.question()
		l.renew(ctx, func(context.Context) error {
			for ; took > 0; took -= time.Second {
				now = now.Add(min(took, time.Second))
				l.held()
			}
			cancel()
			return err
		})
	}
	// run lets time pass while the process runs, stop while it does not.
	run := func(d time.Duration) {
		for ; d > 0; d -= time.Second {
			now = now.Add(min(d, time.Second))
			l.held()
		}
	}
	stop := func(d time.Duration) { now = now.Add(d) }
	for _, step := range []struct {
		what string
		do   func()
		held bool
	}{
		{"nothing was confirmed", func() {}, false},
		{"the group is not joined", func() { asked(0, errNoMember) }, false},
		{"it is", func() { asked(0, nil) }, true},
		{"nearly the session", func() { run(9 * time.Second) }, true},
		{"no coordinator", func() { asked(0, kerr.NotCoordinator) }, true},
		{"the session is over", func() { run(time.Second) }, false},
		{"the group does not know it", func() { asked(0, kerr.UnknownMemberID) }, false},
		{"another one has its name", func() { asked(0, kerr.FencedInstanceID) }, false},
		{"the generation is over", func() { asked(0, kerr.IllegalGeneration) }, false},
		{"an answer that took as long as the session", func() { asked(session, nil) }, false},
		{"one that took a second", func() { asked(time.Second, nil) }, true},
		{"is good for the rest", func() { run(9 * time.Second) }, false},
		{"and again", func() { asked(0, nil) }, true},
		{"stopped for longer than half the session", func() { stop(6 * time.Second) }, false},
		{"the group confirms it", func() { run(time.Second); asked(0, nil) }, true},
		{"the group does not know it any more", func() { asked(0, kerr.UnknownMemberID) }, false},
		{"it joined again", func() { asked(0, nil) }, true},
		{"stopped, and the question is the first to notice", func() { stop(6 * time.Second); asked(0, nil); run(time.Second) }, true},
		{"stopped while it asked", func() { asked(0, kerr.NotCoordinator); stop(time.Minute) }, false},
	} {
		step.do()
		if held := l.held(); held != step.held {
			t.Fatalf("%s: held is %t", step.what, held)
		}
	}
}

func TestAnAnswerToWhatWasAskedBeforeAStandstillConfirmsNothing(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_000, 0)
	l := newLease(10 * time.Second)
	l.now = func() time.Time { return now }
	ctx, cancel := context.WithCancel(t.Context())
	l.held()
	l.question()
	l.renew(ctx, func(context.Context) error {
		now = now.Add(6 * time.Second)
		l.held()
		cancel()
		return nil
	})
	if l.held() {
		t.Error("it is held")
	}
}

func TestALeaseIsRenewedInTime(t *testing.T) {
	t.Parallel()
	l := newLease(time.Second)
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	l.renew(ctx, func(context.Context) error {
		if n++; n == 3 { // the first since it is not held, the others by the clock
			cancel()
		}
		return nil
	})
}

func TestWhoWaitsForALeaseHearsOfIt(t *testing.T) {
	t.Parallel()
	l := newLease(time.Hour)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan bool)
	go func() { done <- l.await(ctx) }()
	l.question()
	go l.renew(ctx, func(context.Context) error { return nil })
	if !<-done {
		t.Error("it was confirmed")
	}
	l = newLease(time.Hour)
	go func() { done <- l.await(ctx) }()
	cancel()
	if <-done {
		t.Error("nothing was confirmed")
	}
}

// TestNoConfirmationIsMissed: one that comes while a worker looks whether there is one must not let it wait for the next.
func TestNoConfirmationIsMissed(t *testing.T) {
	t.Parallel()
	for range 50 {
		l := newLease(time.Hour) // the next would come in 20 minutes
		l.now = func() time.Time { runtime.Gosched(); return time.Now() }
		var workers sync.WaitGroup
		for range 100 {
			workers.Go(func() {
				if !l.await(t.Context()) {
					t.Error("it was confirmed")
				}
			})
		}
		l.answered(time.Now(), nil)
		workers.Wait()
	}
}
