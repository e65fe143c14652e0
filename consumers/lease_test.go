package consumers

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestALeaseLastsFromTheRequestThatWasConfirmed(t *testing.T) {
	t.Parallel()
	const session = 10 * time.Second
	now := time.Unix(1_000, 0)
	l := newLease(session)
	l.now = func() time.Time { return now }
	answered := func(key kmsg.Key, took time.Duration, err error) {
		l.OnBrokerE2E(kgo.BrokerMetadata{}, int16(key), kgo.BrokerE2E{ReadWait: took, ReadErr: err})
	}
	wrote := func(key kmsg.Key) { l.OnBrokerWrite(kgo.BrokerMetadata{}, int16(key), 1, 0, 0, nil) }
	// run lets time pass while the process runs, stop while it does not.
	run := func(d time.Duration) {
		for ; d > 0; d -= time.Second {
			now = now.Add(min(d, time.Second))
			l.held()
		}
	}
	stop := func(d time.Duration) { now = now.Add(d) }
	// asked is the answer to a question of our own.
	asked := func(err error) {
		ctx, cancel := context.WithCancel(t.Context())
		select {
		case l.unsure <- struct{}{}:
		default:
		}
		l.renew(ctx, func(context.Context) error { cancel(); return err })
	}
	for _, step := range []struct {
		what string
		do   func()
		held bool
	}{
		{"nothing was confirmed", func() {}, false},
		{"a fetch says nothing", func() { answered(kmsg.Fetch, 0, nil) }, false},
		{"the group is joined", func() { answered(kmsg.SyncGroup, 0, nil) }, true},
		{"nearly the session", func() { run(9 * time.Second) }, true},
		{"the session is over", func() { run(time.Second) }, false},
		{"an answer of which nobody knows what it says", func() { answered(kmsg.Heartbeat, 0, nil) }, false},
		{"a join of who may be no member", func() { wrote(kmsg.JoinGroup) }, false},
		{"which is answered", func() { answered(kmsg.JoinGroup, 0, nil) }, false},
		{"with a plan", func() { answered(kmsg.SyncGroup, 0, nil) }, false},
		{"the group does not know it", func() { asked(kerr.UnknownMemberID) }, false},
		{"the group confirms it", func() { asked(nil) }, true},
		{"a heartbeat that failed", func() { run(9 * time.Second); answered(kmsg.Heartbeat, 0, errors.New("broken")) }, true},
		{"is none", func() { run(time.Second) }, false},
		{"it is confirmed again", func() { asked(nil) }, true},
		{"a heartbeat while the lease is held", func() { run(9 * time.Second); answered(kmsg.Heartbeat, time.Second, nil) }, true},
		{"is good for the rest", func() { run(9 * time.Second) }, false},
		{"and again", func() { asked(nil) }, true},
		{"a join is under way", func() { wrote(kmsg.JoinGroup) }, true},
		{"for as long as a rebalance may take", func() { run(20 * time.Second) }, true},
		{"and is answered", func() { answered(kmsg.JoinGroup, time.Second, nil) }, true},
		{"stopped for longer than half the session", func() { stop(6 * time.Second) }, false},
		{"an answer that was sent before", func() { answered(kmsg.Heartbeat, 3*time.Second, nil) }, false},
		{"one that was sent after", func() { run(time.Second); answered(kmsg.Heartbeat, 0, nil) }, false},
		{"our own question", func() { asked(nil) }, true},
		{"stopped while it joined", func() { wrote(kmsg.JoinGroup); stop(time.Minute) }, false},
		{"the join is answered", func() { answered(kmsg.JoinGroup, 0, nil) }, false},
	} {
		step.do()
		if held := l.held(); held != step.held {
			t.Fatalf("%s: held is %t", step.what, held)
		}
	}
}

func TestWhoWaitsForALeaseHearsOfIt(t *testing.T) {
	t.Parallel()
	l := newLease(time.Hour)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan bool)
	go func() { done <- l.await(ctx) }()
	l.OnBrokerE2E(kgo.BrokerMetadata{}, int16(kmsg.Heartbeat), kgo.BrokerE2E{})
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
