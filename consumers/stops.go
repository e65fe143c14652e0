package consumers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A partition that can't go on stops alone. Who owns what:
//
//	running ──fail──► stopping ──feed closed, offsets committed──► waiting ──backoff or Retry──► resuming ──► running
//
// fail, on any goroutine, ends the workers of the partition (of all topics where they are co-partitioned) and pauses
// its fetches. A goroutine of the stop waits until the feeds are closed, commits what they let go with the reason as
// the commit's metadata, and waits. The poll loop alone resumes, between two polls and with rebalances held back: new
// workers, the client's position set back to what was let go, fetches resumed. So no record of before can reach the
// new feed, and nothing that was not let go is passed over.
//
// Nothing of it must survive a crash: what is durable is the committed offset, and whoever owns the partition next
// starts there and meets the cause itself. A partition that is revoked while it is stopped is released as any other.

// Stopped tells of a partition that does not move.
type Stopped struct {
	Group     string    `json:"group"`
	Topic     string    `json:"topic"`
	Partition int32     `json:"partition"`
	Reason    string    `json:"reason"`
	Help      string    `json:"help,omitempty"`
	Since     time.Time `json:"since"`
	// Tries is how often it was tried again in vain.
	Tries int `json:"tries"`
	// NextTry is when it is tried again by itself; zero while it is being closed.
	NextTry time.Time `json:"next_try,omitzero"`
}

func (s Stopped) Error() string {
	text := fmt.Sprintf("group %s: partition %s/%d is stopped since %s: %s",
		s.Group, s.Topic, s.Partition, s.Since.UTC().Format(time.RFC3339), s.Reason)
	if s.Help != "" {
		text += " (" + s.Help + ")"
	}
	return text
}

// The wait before a stopped partition is tried again; see [LoopConfig.RetryFirst].
const (
	retryFirst = time.Second
	retryMost  = time.Minute
)

type stopKey struct {
	topic string // "" where the topics are co-partitioned
	id    int32
}

// stop is one partition that is stopped; the loop's mu guards it.
type stop struct {
	key     stopKey
	told    Stopped
	workers []*worker
	starts  map[string]map[int32]int64 // of LoopConfig.Starts
	retry   chan struct{}              // one token: try now
	gone    chan struct{}              // closed when the partition is released
	gauge   *metrics.Gauge
}

// trouble is what is remembered of a partition that was stopped, until it has run well for a while.
type trouble struct {
	tries   int
	since   time.Time
	resumed time.Time
}

// PartitionStopped is 1 while a partition is stopped.
func PartitionStopped(group, topic string, partition int32) *metrics.Gauge {
	return metrics.GetOrCreateGauge(fmt.Sprintf(`whisper_partition_stopped{group=%q,topic=%q,partition="%d"}`, group, topic, partition), nil)
}

// Stopped are the partitions that do not move, ordered.
func (l *Loop) Stopped() []Stopped {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make([]Stopped, 0, len(l.stops))
	for _, s := range l.stops {
		all = append(all, s.told)
	}
	slices.SortFunc(all, func(a, b Stopped) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	return all
}

// Retry tries all stopped partitions again now and says how many there are.
func (l *Loop) Retry() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.stops {
		select {
		case s.retry <- struct{}{}:
		default:
		}
	}
	return len(l.stops)
}

// fail stops what the error reaches: the partition, or with the first error of [ReachProcess] the loop. A handler
// deals with records and deliveries itself; an error of theirs that comes here stops the partition.
func (l *Loop) fail(p *Partition, doing string, err error) {
	err = fmt.Errorf("%s %s/%d: %w", doing, p.Topic, p.ID, err)
	reach, help, contained := classify(err)
	l.mu.Lock()
	defer l.mu.Unlock()
	if reach == ReachProcess {
		if l.err == nil {
			l.err = err
			close(l.failed)
		}
		return
	}
	w := l.workers[p.Topic][p.ID]
	if w == nil || w.part != p || w.ctx.Err() != nil {
		return // it went, or is stopped already: the first error counts
	}
	key := l.keyOf(p)
	t := l.troubles[key]
	now := time.Now()
	if t == nil || now.Sub(t.resumed) > l.cfg.RetryMost {
		t = &trouble{since: now}
		l.troubles[key] = t
	}
	wait := min(l.cfg.RetryFirst<<min(t.tries, 16), l.cfg.RetryMost)
	if contained {
		wait = l.cfg.RetryFirst
	} else {
		t.tries++
	}
	s := &stop{
		key: key, retry: make(chan struct{}, 1), gone: make(chan struct{}), gauge: PartitionStopped(l.cfg.Group, p.Topic, p.ID),
		told: Stopped{
			Group: l.cfg.Group, Topic: p.Topic, Partition: p.ID, Reason: err.Error(), Help: help, Since: t.since, Tries: max(t.tries-1, 0),
		},
	}
	l.stops[key] = s
	pause := map[string][]int32{}
	for _, w := range l.siblings(p) {
		s.workers = append(s.workers, w)
		w.stopped.Store(true)
		w.end()
		pause[w.part.Topic] = append(pause[w.part.Topic], w.part.ID)
	}
	s.gauge.Set(1)
	metrics.GetOrCreateCounter(fmt.Sprintf(`whisper_partition_stops_total{group=%q,topic=%q}`, l.cfg.Group, p.Topic)).Inc()
	l.cl.PauseFetchPartitions(pause)
	l.cfg.Client.logger().Error("partition stopped, the others go on", "group", l.cfg.Group, "topic", p.Topic, "partition", p.ID,
		"reason", err, "next_try", wait, "mend", cmp.Or(help, "see the reason"),
		"then", "wait, or POST /v1/partitions/retry on the operations port")
	go l.wait(s, wait)
}

func (l *Loop) keyOf(p *Partition) stopKey {
	if l.cfg.CoPartitioned {
		return stopKey{id: p.ID}
	}
	return stopKey{p.Topic, p.ID}
}

// siblings are the workers that stop with p, itself among them; the caller holds mu.
func (l *Loop) siblings(p *Partition) []*worker {
	if !l.cfg.CoPartitioned {
		return []*worker{l.workers[p.Topic][p.ID]}
	}
	var all []*worker
	for _, topic := range l.cfg.Topics {
		if w := l.workers[topic][p.ID]; w != nil {
			all = append(all, w)
		}
	}
	return all
}

// wait closes the feeds, lets go what they have settled, and hands the stop to the poll loop when it is time.
//
//nolint:contextcheck // a stop outlives the poll, or whatever else met the error: it ends when the partition goes
func (l *Loop) wait(s *stop, pause time.Duration) {
	for _, w := range s.workers {
		<-w.done
	}
	l.commits.Lock()
	ctx, cancel := l.handover(context.Background())
	l.commitStopped(ctx, s)
	cancel()
	l.commits.Unlock()
	for {
		if !l.sleep(s, pause) {
			return
		}
		starts, err := l.startsOf(s)
		if err == nil {
			l.mend(s, starts)
			return
		}
		pause = min(2*max(pause, l.cfg.RetryFirst), l.cfg.RetryMost)
		l.cfg.Client.logger().Error("a stopped partition's start can't be found", "group", l.cfg.Group, "topic", s.told.Topic,
			"partition", s.told.Partition, "error", err, "next_try", pause)
	}
}

// sleep waits until s is to be tried again; false: it is released.
func (l *Loop) sleep(s *stop, pause time.Duration) bool {
	l.mu.Lock()
	s.told.NextTry = time.Now().Add(pause)
	l.mu.Unlock()
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-s.retry:
		return true
	case <-s.gone:
		return false
	}
}

// mend hands s to the poll loop.
func (l *Loop) mend(s *stop, starts map[string]map[int32]int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stops[s.key] != s {
		return
	}
	s.starts = starts
	l.resuming = append(l.resuming, s)
	if l.interrupt != nil {
		l.interrupt()
	}
}

// forgetStop ends the stop of a worker that is released; the caller holds mu.
func (l *Loop) forgetStop(w *worker) {
	key := l.keyOf(w.part)
	if s := l.stops[key]; s != nil {
		delete(l.stops, key)
		s.gauge.Set(0)
		close(s.gone)
	}
	delete(l.troubles, key)
}

// nextPoll is the context of the next poll, which a stop that is over or something to skip cuts short.
func (l *Loop) nextPoll(ctx context.Context) (context.Context, context.CancelFunc) {
	poll, cancel := l.stalls.nextPoll(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.interrupt = cancel
	if len(l.resuming) > 0 {
		cancel()
	}
	return poll, cancel
}

// resume begins the partitions anew whose wait is over. The poll loop calls it while rebalances are held back, so
// none of them is released meanwhile.
func (l *Loop) resume() {
	l.mu.Lock()
	due := slices.DeleteFunc(l.resuming, func(s *stop) bool { return l.stops[s.key] != s })
	l.resuming = nil
	l.mu.Unlock()
	for _, s := range due {
		l.resumeOne(s)
	}
}

func (l *Loop) resumeOne(s *stop) {
	offsets := map[string]map[int32]kgo.EpochOffset{}
	resumed := map[string][]int32{}
	fresh := make([]*worker, 0, len(s.workers))
	l.commits.Lock() // a commit changes the client's own offsets, too
	for _, old := range s.workers {
		w := newWorker(l, old.part.Topic, old.part.ID)
		w.part.Generation = old.part.Generation
		at := old.from()
		if start, ok := s.starts[w.part.Topic][w.part.ID]; ok {
			at = start
		}
		if at >= 0 {
			w.begin(at)
			w.part.next.Store(at) // committed once more: that it is stopped is no longer so
			offsets[w.part.Topic] = map[int32]kgo.EpochOffset{w.part.ID: {Epoch: -1, Offset: at}}
		}
		resumed[w.part.Topic] = []int32{w.part.ID}
		fresh = append(fresh, w)
	}
	l.cl.SetOffsets(offsets)
	l.commits.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.stops, s.key)
	s.gauge.Set(0)
	if t := l.troubles[s.key]; t != nil {
		t.resumed = time.Now()
	}
	for _, w := range fresh {
		l.workers[w.part.Topic][w.part.ID] = w
		w.started.Store(true)
		go w.run()
	}
	l.cl.ResumeFetchPartitions(resumed)
	l.cfg.Client.logger().Warn("partition is tried again", "group", l.cfg.Group,
		"topic", s.told.Topic, "partition", s.told.Partition, "stopped_since", s.told.Since)
}

// startsOf asks where to start again, where the loop keeps no commits of its own.
//
//nolint:contextcheck // see wait
func (l *Loop) startsOf(s *stop) (map[string]map[int32]int64, error) {
	if l.cfg.Starts == nil {
		return nil, nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-s.gone:
			cancel()
		case <-ctx.Done():
		}
	}()
	assigned := map[string][]int32{}
	for _, w := range s.workers {
		assigned[w.part.Topic] = append(assigned[w.part.Topic], w.part.ID)
	}
	return l.cfg.Starts(ctx, assigned)
}

// StopMetadata begins the metadata of the commit of a partition that is stopped; the reason follows. Whoever reads
// the group's offsets sees it, in whatever process the partition is. The next commit has none.
const StopMetadata = "stopped: "

// maxStopMetadata is far below the broker's bound (offset.metadata.max.bytes, 4,096).
const maxStopMetadata = 1_000

// commitStopped commits what the feeds let go, and says of the partition that failed that it is stopped.
func (l *Loop) commitStopped(ctx context.Context, s *stop) {
	if l.cfg.Starts != nil {
		return
	}
	reason := []byte(StopMetadata + s.told.Reason)
	text := string(reason[:min(len(reason), maxStopMetadata)])
	offsets := map[string]map[int32]kgo.EpochOffset{}
	for _, w := range s.workers {
		at := w.from()
		if at < 0 {
			continue
		}
		offsets[w.part.Topic] = map[int32]kgo.EpochOffset{w.part.ID: {Epoch: -1, Offset: at}}
	}
	if len(offsets) == 0 {
		return
	}
	ctx = kgo.PreCommitFnContext(ctx, func(req *kmsg.OffsetCommitRequest) error {
		for i := range req.Topics {
			for j := range req.Topics[i].Partitions {
				if req.Topics[i].Topic == s.told.Topic && req.Topics[i].Partitions[j].Partition == s.told.Partition {
					req.Topics[i].Partitions[j].Metadata = &text
				}
			}
		}
		return nil
	})
	if err := l.commitSync(ctx, offsets); err != nil {
		l.cfg.Client.logger().Warn("commit offsets of a stopped partition", "group", l.cfg.Group,
			"topic", s.told.Topic, "partition", s.told.Partition, "error", err)
		return
	}
	for _, w := range s.workers {
		if at := w.from(); at >= 0 {
			w.part.committed = at
		}
	}
}

// fetchErrors stops the partitions whose fetches fail for good; what passes is logged. Its error ends the loop: one
// that is no partition's, the group's or the client's.
func (l *Loop) fetchErrors(ctx context.Context, fetches kgo.Fetches) error {
	var fatal error
	fetches.EachError(func(topic string, partition int32, err error) {
		if errors.Is(err, errLater) || errors.Is(err, context.Canceled) {
			return // the rest comes with the next fetch; the poll was cut short
		}
		if errors.Is(err, kerr.FencedInstanceID) { // to join again would end the other one's membership
			fatal = fmt.Errorf("group %s: another process has joined as the instance %q: give each its own name", l.cfg.Group, l.cfg.Client.Instance)
			return
		}
		if errors.Is(err, kerr.InvalidSessionTimeout) {
			fatal = fmt.Errorf("group %s: the broker does not take a session-timeout of %s: see its group.min.session.timeout.ms and group.max.session.timeout.ms",
				l.cfg.Group, l.cfg.Client.SessionTimeout)
			return
		}
		loss := (*kgo.ErrDataLoss)(nil)
		if !IsFatal(err) && !errors.As(err, &loss) {
			l.cfg.Client.logger().Log(ctx, fetchLevel(err), "consume", "group", l.cfg.Group, "topic", topic, "partition", partition, "error", err)
			return
		}
		if w := l.worker(topic, partition); w != nil && ReachOf(err) < ReachProcess {
			l.fail(w.part, "consume", err)
			return
		}
		fatal = fmt.Errorf("consume %s/%d: %w", topic, partition, err)
	})
	return fatal
}

// fetchLevel is that of a failed fetch, which the client does again at once. What becomes of the topic is told by
// topicWatch, once.
func fetchLevel(err error) slog.Level {
	if errors.Is(err, kerr.UnknownTopicOrPartition) || errors.Is(err, kerr.UnknownTopicID) || errors.Is(err, kerr.InconsistentTopicID) {
		return slog.LevelDebug
	}
	return slog.LevelWarn
}
