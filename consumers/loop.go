package consumers

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/twmb/franz-go/pkg/kgo"
)

// heartbeatInterval lets five heartbeats in a row go wrong before the session ends. It is also how soon the others hear
// that a member is gone.
func heartbeatInterval(session time.Duration) time.Duration { return min(session/6, 3*time.Second) }

// coordinatorPatience is how long a member looks for a coordinator before it gives up its partitions. The client's own is the
// session timeout, which a broker that was killed outlasts: nobody is elected in its place sooner. The next coordinator
// gives every member a new session, so who is patient keeps its state; the lease is what keeps it from acting meanwhile.
func coordinatorPatience(session time.Duration) time.Duration { return max(30*time.Second, session) }

// rebalanceTimeout is how long the group waits for its members to hand over.
const rebalanceTimeout = 30 * time.Second

// Loop consumes topics in a group: one goroutine and one bounded queue a partition, cooperative
// rebalancing, commits behind [Partition.Commit]. A slow partition holds up no other, nor does one that can't go on
// (stops.go).
type Loop struct {
	cfg   LoopConfig
	cl    *kgo.Client
	lease *lease
	// asker asks for the lease. Kafka answers the requests of one connection in order, so behind a commit that takes long a question
	// would come too late, and so do the client's own heartbeats.
	asker *kgo.Client

	end context.CancelFunc // of what the client does

	mu      sync.Mutex
	workers map[string]map[int32]*worker
	member  string        // the group's name for this process at its latest assignment
	joined  chan struct{} // closed by the first assignment, which may be of nothing
	err     error
	failed  chan struct{}
	renewed map[string]time.Time // topics to read from the start when they are assigned next, whatever was committed; since when
	// Of partitions that can't go on.
	stops     map[stopKey]*stop
	troubles  map[stopKey]*trouble
	resuming  []*stop            // to be begun anew by the poll loop
	interrupt context.CancelFunc // ends the poll that runs

	commits sync.Mutex // one commit at a time, none for a partition that is gone

	stalls *stalls
	topics *topicWatch
}

// NewLoop makes a loop; Run starts it.
//
//nolint:contextcheck // the client works until Run has ended, whoever made it
func NewLoop(cfg LoopConfig) (*Loop, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.setDefaults()
	l := &Loop{
		cfg: cfg, lease: newLease(cfg.Client.SessionTimeout), workers: map[string]map[int32]*worker{},
		joined: make(chan struct{}), failed: make(chan struct{}),
		renewed: map[string]time.Time{}, stops: map[stopKey]*stop{}, troubles: map[stopKey]*trouble{},
	}
	l.lease.lapsed = func() {
		cfg.Client.logger().Warn("the group has not confirmed this process for a session: it does nothing for its partitions until it is",
			"group", cfg.Group)
	}
	balancer := kgo.CooperativeStickyBalancer()
	if cfg.CoPartitioned {
		balancer = mirrorBalancer{inner: balancer, topics: cfg.Topics}
	}
	opts := cfg.Client.Options()
	if cfg.Client.Instance != "" {
		opts = append(opts, kgo.InstanceID(cfg.Client.Instance))
	}
	ctx, end := context.WithCancel(context.Background())
	l.end = end
	cl, err := kgo.NewClient(append(
		opts,
		kgo.WithContext(ctx),
		kgo.ConsumerGroup(cfg.Group),
		kgo.ConsumeTopics(cfg.Topics...),
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.Balancers(balancer),
		kgo.FetchMinBytes(cfg.FetchMinBytes),
		kgo.FetchMaxWait(cfg.FetchMaxWait),
		kgo.FetchMaxPartitionBytes(cfg.FetchMaxPartitionBytes),
		kgo.DisableAutoCommit(),
		kgo.KeepControlRecords(), // they move the position; no Feed sees them
		kgo.BlockRebalanceOnPoll(),
		kgo.SessionTimeout(cfg.Client.SessionTimeout),
		kgo.HeartbeatInterval(heartbeatInterval(cfg.Client.SessionTimeout)),
		kgo.RebalanceTimeout(rebalanceTimeout),
		kgo.RetryTimeoutFn(func(int16) time.Duration { return coordinatorPatience(cfg.Client.SessionTimeout) }),
		kgo.OnPartitionsAssigned(l.assigned),
		kgo.AdjustFetchOffsetsFn(l.start),
		kgo.OnPartitionsRevoked(l.revoked),
		kgo.OnPartitionsLost(l.lost),
	)...)
	if err != nil {
		end()
		return nil, fmt.Errorf("kafka consumer of group %s: %w", cfg.Group, err)
	}
	l.cl = cl
	if l.asker, err = kgo.NewClient(append(cfg.Client.Options(), kgo.WithContext(ctx))...); err != nil {
		end()
		cl.Close()
		return nil, fmt.Errorf("kafka client of group %s: %w", cfg.Group, err)
	}
	l.topics = newTopicWatch(cl, cfg.Client.logger(), func(string) { cl.ForceMetadataRefresh() }, l.madeAnew)
	l.stalls = newStalls(newSkipper(cl, cfg.Client, cfg.Group))
	PartitionsOwned(cfg.Group)
	for _, topic := range cfg.Topics {
		RecordsLost(cfg.Group, topic) // there from the start, so that the first loss is a rise
	}
	return l, nil
}

// Run consumes until ctx ends, then drains: no more records, Feeds closed, offsets committed, group
// left. It returns nil then, or the first error that reaches the process ([ReachOf]).
func (l *Loop) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var committer sync.WaitGroup
	committer.Go(func() { l.commitEvery(ctx) })
	committer.Go(func() { l.lease.watch(ctx) })
	committer.Go(func() { l.lease.renew(ctx, l.ask) })
	if l.cfg.Client.Instance != "" {
		committer.Go(func() { l.claimRest(ctx) })
	}
	committer.Go(func() { l.topics.watch(ctx, l.cfg.StallCheck, func() []string { return l.cfg.Topics }) })
	committer.Go(func() { l.stalls.watch(ctx, l.cfg.StallCheck, l.standing, l.skipTo) })
	go func() {
		select {
		case <-l.failed:
			cancel()
		case <-ctx.Done():
		}
	}()
	err := l.poll(ctx)
	cancel()
	committer.Wait()
	l.release(ctx, l.all(), true)
	l.leave(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(err, l.err)
}

// handover is a context for what is done at the end of a partition, or of the loop: it has a deadline of its own, since
// the context of the work has usually ended by then.
func (l *Loop) handover(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), l.cfg.HandoverTimeout)
}

// afterReturn is how long after a process with an instance has joined its group is rebalanced: its partitions are restored
// by then.
const afterReturn = 5 * time.Second

// claimRest rebalances the group once, some time after this process has joined. A process that died in the middle of a
// handover comes back to what it was to keep, and nobody has what it was giving up: the handover's second rebalance, which
// gives that away, never came. Where there is nothing of the kind, the rebalance moves nothing.
func (l *Loop) claimRest(ctx context.Context) {
	select {
	case <-l.joined:
	case <-ctx.Done():
		return
	}
	select {
	case <-time.After(afterReturn):
		l.cl.ForceRebalance()
	case <-ctx.Done():
	}
}

// leave takes its leave of the group, so that others need not wait for the session to end; one with an instance stays a
// member ([ClientConfig.Instance]). With Kafka away the client alone would try that for half a minute, dial by dial.
func (l *Loop) leave(ctx context.Context) {
	ctx, cancel := l.handover(ctx)
	defer cancel()
	l.cl.AllowRebalance()
	if err := l.cl.LeaveGroupContext(ctx); err != nil {
		l.cfg.Client.logger().Warn("leave the group", "group", l.cfg.Group, "error", err)
	}
	l.end() // a join that looks for its coordinator would keep Close waiting
	l.cl.Close()
	l.asker.Close()
}

// Ready is nil once the group was joined and every assigned partition is open and moves.
func (l *Loop) Ready() error {
	select {
	case <-l.joined:
	default:
		return fmt.Errorf("group %s: not joined yet", l.cfg.Group)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.stops {
		return s.told
	}
	if err := l.topics.reason(); err != nil {
		return fmt.Errorf("group %s: %w", l.cfg.Group, err)
	}
	for topic, parts := range l.workers {
		for id, w := range parts {
			if !w.opened.Load() {
				return fmt.Errorf("%s/%d: still restoring", topic, id)
			}
			if err := l.stalls.reason(topic, id); err != nil {
				return fmt.Errorf("%s/%d does not move: %w", topic, id, err)
			}
		}
	}
	return nil
}

func (l *Loop) poll(ctx context.Context) error {
	for {
		poll, cancel := l.nextPoll(ctx)
		fetches := l.cl.PollRecords(poll, 10_000)
		cancel()
		if ctx.Err() != nil || fetches.IsClientClosed() {
			return nil //nolint:nilerr // a stop is not an error
		}
		if err := l.fetchErrors(ctx, fetches); err != nil {
			return err
		}
		l.stalls.suspect(fetches)
		var pause map[string][]int32
		fetches.EachTopic(l.identify)
		fetches.EachPartition(func(f kgo.FetchTopicPartition) {
			w := l.worker(f.Topic, f.Partition)
			if w == nil || w.stopped.Load() || len(f.Records) == 0 || !l.complete(w, f) {
				return
			}
			if w.enqueue(f.Records) {
				if pause == nil {
					pause = map[string][]int32{}
				}
				pause[f.Topic] = append(pause[f.Topic], f.Partition)
			}
		})
		if pause != nil {
			l.pause(pause)
		}
		l.stalls.skip()
		l.resume()
		l.cl.AllowRebalance()
	}
}

// identify notes the id of a topic for its partitions: one that was deleted and made anew has another.
func (l *Loop) identify(t kgo.FetchTopic) {
	if t.TopicID == ([16]byte{}) {
		return
	}
	for i := range t.Partitions {
		if w := l.worker(t.Topic, t.Partitions[i].Partition); w != nil {
			w.part.topicID.Store(&t.TopicID)
		}
	}
}

// PartitionsOwned is how many partitions this process has of those that a group shares out.
func PartitionsOwned(group string) *metrics.Gauge {
	return metrics.GetOrCreateGauge(fmt.Sprintf(`whisper_partitions_owned{group=%q}`, group), nil)
}

// pause stops fetching what is over its bound. A worker may have emptied its queue meanwhile and have
// resumed before the pause: then it is resumed again.
func (l *Loop) pause(parts map[string][]int32) {
	l.cl.PauseFetchPartitions(parts)
	for topic, ids := range parts {
		for _, id := range ids {
			w := l.worker(topic, id)
			if w == nil {
				continue
			}
			w.mu.Lock()
			paused := w.paused
			w.mu.Unlock()
			if !paused && !w.stopped.Load() {
				l.cl.ResumeFetchPartitions(map[string][]int32{topic: {id}})
			}
		}
	}
}

func (l *Loop) worker(topic string, id int32) *worker {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.workers[topic][id]
}

// assigned makes the workers; they begin in start, when their offsets are known.
func (l *Loop) assigned(_ context.Context, cl *kgo.Client, parts map[string][]int32) {
	member, generation := cl.GroupMetadata() // l.cl may not be set yet
	l.mu.Lock()
	defer l.mu.Unlock()
	l.member = member
	select {
	case <-l.joined:
	default:
		close(l.joined)
	}
	l.lease.question()
	for topic, ids := range parts {
		for _, id := range ids {
			if l.workers[topic] == nil {
				l.workers[topic] = map[int32]*worker{}
			}
			if l.workers[topic][id] == nil {
				PartitionsOwned(l.cfg.Group).Inc()
			}
			l.workers[topic][id] = newWorker(l, topic, id)
			l.workers[topic][id].part.Generation = generation
		}
	}
}

// start is called by the client between assigning and fetching, with the committed offsets.
func (l *Loop) start(ctx context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	if l.cfg.Starts != nil {
		var err error
		if offsets, err = l.ownStarts(ctx, offsets); err != nil {
			return nil, err
		}
	}
	for topic, parts := range offsets {
		renewed := l.takeRenewed(topic)
		for id, offset := range parts {
			if renewed {
				offset = kgo.NewOffset().AtStart()
			}
			w := l.worker(topic, id)
			if w == nil {
				continue
			}
			if at := offset.EpochOffset().Offset; at >= 0 {
				w.begin(at)
			} else { // the client sets a partition past a bad batch only where it has an offset; too early a one finds the start
				parts[id] = kgo.NewOffset().At(0)
			}
			if w.started.CompareAndSwap(false, true) {
				go w.run()
			}
		}
	}
	return offsets, nil
}

func (l *Loop) ownStarts(ctx context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	assigned := map[string][]int32{}
	for topic, parts := range offsets {
		for id := range parts {
			assigned[topic] = append(assigned[topic], id)
		}
	}
	starts, err := l.cfg.Starts(ctx, assigned)
	if err != nil {
		if ctx.Err() == nil { // else the assignment is over before it began
			l.fail(&Partition{Topic: l.cfg.Topics[0]}, "find the start of", Reaching(ReachProcess, err))
		}
		return nil, err
	}
	for topic, parts := range offsets {
		for id := range parts {
			parts[id] = kgo.NewOffset().AtStart()
			if at, ok := starts[topic][id]; ok && at >= 0 {
				parts[id] = kgo.NewOffset().At(at)
			}
		}
	}
	return offsets, nil
}

// revoked hands partitions over: they are closed and committed before anybody else gets them.
func (l *Loop) revoked(ctx context.Context, _ *kgo.Client, parts map[string][]int32) {
	l.release(ctx, parts, true)
}

// lost partitions may already be somebody else's: nothing is committed.
func (l *Loop) lost(ctx context.Context, _ *kgo.Client, parts map[string][]int32) {
	l.release(ctx, parts, false)
}

func (l *Loop) all() map[string][]int32 {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := map[string][]int32{}
	for topic, parts := range l.workers {
		for id := range parts {
			all[topic] = append(all[topic], id)
		}
	}
	return all
}

// release closes feeds, and with commit keeps what they have settled.
func (l *Loop) release(ctx context.Context, parts map[string][]int32, commit bool) {
	var going []*worker
	l.mu.Lock()
	for topic, ids := range parts {
		for _, id := range ids {
			if w := l.workers[topic][id]; w != nil {
				going = append(going, w)
			}
		}
	}
	l.mu.Unlock()
	for _, w := range going {
		w.end()
	}
	for _, w := range going {
		<-w.done
	}
	l.commits.Lock()
	defer l.commits.Unlock()
	if commit {
		ctx, cancel := l.handover(ctx)
		defer cancel()
		l.commit(ctx, going)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	gone := map[string][]int32{}
	for _, w := range going {
		l.forgetStop(w)
		if l.workers[w.part.Topic][w.part.ID] != nil {
			PartitionsOwned(l.cfg.Group).Dec()
		}
		delete(l.workers[w.part.Topic], w.part.ID)
		gone[w.part.Topic] = append(gone[w.part.Topic], w.part.ID)
	}
	// The client keeps a pause across assignments: a partition that went while it was paused would never be
	// fetched again if it came back.
	if len(gone) > 0 {
		l.cl.ResumeFetchPartitions(gone)
	}
}
