package consumers

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// lease says whether this process may still act for the partitions that its group gave it. It may while the
// broker has confirmed its membership within the session timeout: after that, the group may have given them to
// another process. Time in which this process was stopped (SIGSTOP, a paused machine) counts.
//
// The client asks the coordinator all the time, and tells this only that an answer came, not what it says. So an answer
// prolongs a lease that is held, and no other: one that has run out, or is in doubt because the process stood still, is
// renewed by a question whose answer is read (renew). An answer that refuses the member prolongs its lease by the moment in
// which the client reads it and revokes the partitions.
//
// With [ClientConfig.Instance] another process may have the partitions at once, and the lease of this one lasts on: see
// dispatch/takeover.go for what keeps them apart.
//
// It narrows the time in which two processes act for one partition to what is on its way to a broker; what such
// a record can still do to a partition's state is the business of [Owners].
type lease struct {
	session time.Duration
	now     func() time.Time

	mu        sync.Mutex
	confirmed time.Time // when the last request that the coordinator answered was sent
	joining   time.Time // a join is under way since: the coordinator keeps the member meanwhile
	looked    time.Time
	doubted   time.Time     // the process stood still until then; a confirmation must be younger
	renewed   chan struct{} // closed by the next confirmation
	unsure    chan struct{} // one token: the coordinator answers, and the lease is not held
}

func newLease(session time.Duration) *lease {
	return &lease{session: session, now: time.Now, renewed: make(chan struct{}), unsure: make(chan struct{}, 1)}
}

// The requests by whose answers a coordinator confirms a member.
var memberships = map[int16]bool{
	int16(kmsg.JoinGroup): true, int16(kmsg.SyncGroup): true, int16(kmsg.Heartbeat): true, int16(kmsg.ConsumerGroupHeartbeat): true,
}

// OnBrokerWrite implements kgo.HookBrokerWrite. A join keeps a member that the group has; it makes none of another.
func (l *lease) OnBrokerWrite(_ kgo.BrokerMetadata, key int16, _ int, _, _ time.Duration, err error) {
	if key != int16(kmsg.JoinGroup) || err != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := l.now(); l.holds(now) {
		l.joining = now
	}
}

// OnBrokerE2E implements kgo.HookBrokerE2E.
func (l *lease) OnBrokerE2E(_ kgo.BrokerMetadata, key int16, e2e kgo.BrokerE2E) {
	if !memberships[key] {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	held := l.holds(now)
	if key == int16(kmsg.JoinGroup) {
		l.joining = time.Time{}
	}
	if e2e.WriteErr != nil || e2e.ReadErr != nil {
		return
	}
	if held || l.confirmed.IsZero() { // before its first one a process has no partitions
		l.confirm(now.Add(-e2e.DurationE2E()))
		return
	}
	select {
	case l.unsure <- struct{}{}:
	default:
	}
}

// confirm notes that the group has confirmed what was sent then. The caller holds mu.
func (l *lease) confirm(sent time.Time) {
	if sent.After(l.confirmed) {
		l.confirmed = sent
	}
	close(l.renewed)
	l.renewed = make(chan struct{})
}

// renew asks the group whether this process is its member while the lease is not held, until ctx ends: often, and at once
// when the coordinator has answered something else.
func (l *lease) renew(ctx context.Context, ask func(context.Context) error) {
	tick := time.NewTicker(max(l.session/16, 10*time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-l.unsure:
		}
		l.mu.Lock()
		sent, first := l.now(), l.confirmed.IsZero()
		held := l.holds(sent)
		l.mu.Unlock()
		if held || first { // the first confirmation is a join's
			continue
		}
		attempt, cancel := context.WithTimeout(ctx, l.session/2) // an answer to one that is older is worth little
		err := ask(attempt)
		cancel()
		if err == nil {
			l.mu.Lock()
			l.confirm(sent)
			l.mu.Unlock()
		}
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
		l.doubted, l.joining = now, time.Time{}
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
	switch {
	case !l.doubted.IsZero() && !l.confirmed.After(l.doubted):
		return false
	case elapsed(l.confirmed, now) < l.session:
		return true
	default:
		return !l.joining.IsZero() && elapsed(l.joining, now) < rebalanceTimeout+l.session
	}
}

// await blocks until the member may act, or ctx ends; then it says false.
func (l *lease) await(ctx context.Context) bool {
	for !l.held() {
		l.mu.Lock()
		renewed := l.renewed
		l.mu.Unlock()
		select {
		case <-renewed:
		case <-time.After(l.session / 8): // a join may have begun
		case <-ctx.Done():
			return false
		}
	}
	return ctx.Err() == nil
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

// ask is one question to the coordinator: is this process a member of the group's present generation?
func (l *Loop) ask(ctx context.Context) error {
	req := kmsg.NewPtrHeartbeatRequest()
	req.Group = l.cfg.Group
	req.MemberID, req.Generation = l.cl.GroupMetadata()
	if l.cfg.Client.Instance != "" {
		req.InstanceID = &l.cfg.Client.Instance
	}
	resp, err := req.RequestWith(ctx, l.cl)
	if err != nil {
		return err
	}
	if err = kerr.ErrorForCode(resp.ErrorCode); errors.Is(err, kerr.RebalanceInProgress) { // a member until it ends
		return nil
	}
	return err
}
