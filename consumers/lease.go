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
// another process. Time in which this process was stopped (SIGSTOP, a paused machine) counts: whoever wakes up
// waits for the next confirmation before anything is done.
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
}

func newLease(session time.Duration) *lease {
	return &lease{session: session, now: time.Now, renewed: make(chan struct{})}
}

// The requests by whose answers a coordinator confirms a member.
var memberships = map[int16]bool{
	int16(kmsg.JoinGroup): true, int16(kmsg.SyncGroup): true, int16(kmsg.Heartbeat): true, int16(kmsg.ConsumerGroupHeartbeat): true,
}

// OnBrokerWrite implements kgo.HookBrokerWrite.
func (l *lease) OnBrokerWrite(_ kgo.BrokerMetadata, key int16, _ int, _, _ time.Duration, err error) {
	if key != int16(kmsg.JoinGroup) || err != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.joining = l.now()
}

// OnBrokerE2E implements kgo.HookBrokerE2E. An answer that ends the membership counts for a moment, too: the client
// reads it next and revokes the partitions.
func (l *lease) OnBrokerE2E(_ kgo.BrokerMetadata, key int16, e2e kgo.BrokerE2E) {
	if !memberships[key] {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	l.look(now)
	if key == int16(kmsg.JoinGroup) {
		l.joining = time.Time{}
	}
	if e2e.WriteErr != nil || e2e.ReadErr != nil {
		return
	}
	if sent := now.Add(-e2e.DurationE2E()); sent.After(l.confirmed) {
		l.confirmed = sent
	}
	close(l.renewed)
	l.renewed = make(chan struct{})
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
	now := l.now()
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
		req := kmsg.NewPtrHeartbeatRequest()
		req.Group = l.cfg.Group
		req.MemberID, req.Generation = l.cl.GroupMetadata()
		if l.cfg.Client.Instance != "" {
			req.InstanceID = &l.cfg.Client.Instance
		}
		resp, err := req.RequestWith(ctx, l.cl)
		if err == nil {
			err = kerr.ErrorForCode(resp.ErrorCode)
		}
		switch {
		case err == nil, errors.Is(err, kerr.RebalanceInProgress): // a member until it ends
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
