package consumers

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// lease says whether this process may still act for the partitions that its group gave it. It may while the
// coordinator has confirmed its membership within the session timeout: after that, the group may have given them to
// another process. Time in which this process was stopped (SIGSTOP, a paused machine) counts: whoever wakes up
// waits for the next confirmation before anything is done.
//
// It asks the coordinator by itself (renew), and only an answer that was read and says yes confirms. The client's own
// heartbeats would cost nothing, but it tells only that an answer came: one that refuses the member, or comes from a broker that
// coordinates no longer, would count as well; and it waits behind commits ([Loop.asker]). To the coordinator a question is a heartbeat, so
// the session lasts as long as the lease. A member of a group that is being rebalanced is confirmed, too.
//
// With [ClientConfig.Instance] another process may have the partitions at once, and the lease of this one lasts on: see
// dispatch/takeover.go for what keeps them apart.
//
// It narrows the time in which two processes act for one partition to what is on its way to a broker; what such
// a record can still do to a partition's state is the business of [Owners].
type lease struct {
	session time.Duration
	now     func() time.Time
	lapsed  func() // is told when it is no longer held

	mu        sync.Mutex
	confirmed time.Time // when the last question that the coordinator answered with yes was asked
	looked    time.Time
	doubted   time.Time     // the process stood still until then; a confirmation must be younger
	renewed   chan struct{} // closed by the next confirmation
	wake      chan struct{} // one token: ask now
}

func newLease(session time.Duration) *lease {
	return &lease{session: session, now: time.Now, lapsed: func() {}, renewed: make(chan struct{}), wake: make(chan struct{}, 1)}
}

// question has renew ask at once.
func (l *lease) question() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// renew asks the group whether this process is its member, three times in a session, and more often while the lease is
// not held, until ctx ends.
func (l *lease) renew(ctx context.Context, ask func(context.Context) error) {
	tick := time.NewTicker(max(l.session/16, 10*time.Millisecond))
	defer tick.Stop()
	for was := false; ; {
		woken := false
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-l.wake:
			woken = true
		}
		l.mu.Lock()
		sent := l.now()
		held := l.holds(sent)
		due := woken || !held || elapsed(l.confirmed, sent) >= l.session/3
		l.mu.Unlock()
		if was && !held {
			l.lapsed()
		}
		was = held
		if !due {
			continue
		}
		attempt, cancel := context.WithTimeout(ctx, l.session/2) // an answer to an older one would be worth little
		err := ask(attempt)
		cancel()
		l.answered(sent, err)
	}
}

// answered takes the answer to a question. One that refuses the member ends the lease at once; any other error is no answer.
func (l *lease) answered(sent time.Time, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case errors.Is(err, kerr.UnknownMemberID), errors.Is(err, kerr.FencedInstanceID):
		l.confirmed = time.Time{}
	case err == nil:
		if sent.After(l.confirmed) {
			l.confirmed = sent
		}
		close(l.renewed)
		l.renewed = make(chan struct{})
	}
}

// elapsed is by whichever clock ran longer: the monotonic one stands still while a machine is suspended, and the
// wall's may be set back.
func elapsed(from, to time.Time) time.Duration {
	return max(to.Sub(from), to.Round(0).Sub(from.Round(0)))
}

// look notes that the process ran now, and whether it stood still before. The caller holds mu.
func (l *lease) look(now time.Time) {
	if !l.looked.IsZero() && elapsed(l.looked, now) > l.session/2 {
		l.doubted = now
	}
	l.looked = now
}

// held says whether the member may act now.
func (l *lease) held() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.holds(l.now())
}

// holds is held at a time. The caller holds mu.
func (l *lease) holds(now time.Time) bool {
	l.look(now)
	doubtful := l.confirmed.Before(l.doubted)
	return !doubtful && elapsed(l.confirmed, now) < l.session
}

// await blocks until the member may act, or ctx ends; then it says false.
func (l *lease) await(ctx context.Context) bool {
	for {
		l.mu.Lock()
		held, renewed := l.holds(l.now()), l.renewed // at once: a confirmation between the two would be missed
		l.mu.Unlock()
		if held {
			return ctx.Err() == nil
		}
		select {
		case <-renewed:
		case <-ctx.Done():
			return false
		}
	}
}

// watch looks at the clock often enough to notice when the process stood still, until ctx ends.
func (l *lease) watch(ctx context.Context) {
	tick := time.NewTicker(max(l.session/16, 10*time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			l.held()
		}
	}
}

// Leads says whether this process may act for its partitions now: the group has confirmed it within the session
// timeout. Handlers are not called while it does not; who acts by a clock of its own asks before.
func (l *Loop) Leads() bool { return l.lease.held() }

// Confirm asks the group whether this process is still its member, and so p, while its context lives, its own. It
// asks again until the coordinator answers or ctx ends; an error before that says that it is not.
func (l *Loop) Confirm(ctx context.Context, p *Partition) error {
	for {
		err := l.ask(ctx)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, kerr.IllegalGeneration) && ctx.Err() == nil: // a rebalance has ended: the client hears of it next, or loses p
		case errors.Is(err, kerr.UnknownMemberID), errors.Is(err, kerr.FencedInstanceID),
			ctx.Err() != nil, IsFatal(err):
			return fmt.Errorf("the group %s has not confirmed %s/%d: %w", l.cfg.Group, p.Topic, p.ID, err)
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

var errNoMember = errors.New("the group is not joined yet")

// ask is one question to the coordinator: is this process a member of the group's present generation? Only as the member
// that has its partitions: a client that was thrown out joins as another one by itself, and what it had is
// revoked only with its next assignment.
func (l *Loop) ask(ctx context.Context) error {
	req := kmsg.NewPtrHeartbeatRequest()
	req.Group = l.cfg.Group
	req.MemberID, req.Generation = l.cl.GroupMetadata()
	l.mu.Lock()
	assigned := l.member
	l.mu.Unlock()
	if req.MemberID == "" || req.MemberID != assigned {
		return errNoMember
	}
	if l.cfg.Client.Instance != "" {
		req.InstanceID = &l.cfg.Client.Instance
	}
	resp, err := req.RequestWith(ctx, l.asker)
	if err != nil {
		return err
	}
	if err = kerr.ErrorForCode(resp.ErrorCode); errors.Is(err, kerr.RebalanceInProgress) { // a member until it ends
		return nil
	}
	return err
}
