package consumers

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Partition is one assigned partition, from Open until its Feed is closed.
type Partition struct {
	Topic string
	ID    int32
	// Start is the offset of the first record that will be handed out: the committed one, or what
	// LoopConfig.Starts said. [FromStart] where nothing was committed yet.
	Start int64
	// Generation of the group in which it was assigned: a later owner's is greater, as long as the group lives.
	Generation int32

	topicID   atomic.Pointer[[16]byte]
	next      atomic.Int64 // may be committed; -1: nothing yet
	committed int64        // was committed; only the loop's committer touches it
	gaps      gaps
	fail      func(error)
	await     func(context.Context) bool
	pass      func(ctx context.Context, r *Reader, end int64) (bool, error)
}

// Await blocks while this process may not act for its partitions ([Loop.Leads]). It says false when ctx ends first. Handle is
// called only while it may, but may have many records: who acts on each of them asks before each.
func (p *Partition) Await(ctx context.Context) bool { return p.await == nil || p.await(ctx) }

// Fail says that the partition can't go on: its Feed, or something that works for it, has failed. It stops as if
// Handle had returned the error ([ReachOf]). From any goroutine; it does not block, and after the first time, or
// when the partition is going, it does nothing.
func (p *Partition) Fail(err error) {
	if p.fail != nil {
		p.fail(err)
	}
}

// PassEmpty says whether everything before end was handed out or does not exist any more. Retention removes records
// that a Feed waits for, and a consumer is told nothing where no record comes after them; so a [Passer] that waits for
// an offset calls this now and then, and is told that it is passed. What nobody has read counts as lost: without
// ClientConfig.AcceptLoss the loop ends. From one goroutine.
func (p *Partition) PassEmpty(ctx context.Context, r *Reader, end int64) (passed bool, err error) {
	if p.pass == nil {
		return false, nil
	}
	return p.pass(ctx, r, end)
}

// TopicID is the id of the topic that the latest records came from, or zeros while a broker has told none.
func (p *Partition) TopicID() (id [16]byte) {
	if known := p.topicID.Load(); known != nil {
		id = *known
	}
	return id
}

// Commit says that everything before next is settled. The loop commits it within its interval, and at
// the latest when the partition is handed over. Lower values than before are ignored. From any goroutine.
func (p *Partition) Commit(next int64) {
	for {
		old := p.next.Load()
		if next <= old || p.next.CompareAndSwap(old, next) {
			return
		}
	}
}

// A Handler makes the Feed of a partition.
type Handler interface {
	// Open is called once when a partition is assigned, on the partition's own goroutine, before its
	// first record; it may block, to restore state. ctx ends when the partition is lost meanwhile. An
	// error stops the partition, as one of Handle does; it is opened anew later.
	Open(ctx context.Context, p *Partition) (Feed, error)
}

// A Feed takes the records of one partition.
type Feed interface {
	// Handle takes records in order, from one goroutine. It may keep them. ctx ends when the partition
	// is about to go; Handle should return then. An error means "we could not find out", never "this record
	// is bad". It stops what it reaches ([ReachOf]): the partition, which is closed and opened anew later, or
	// the process. A panic is such an error.
	Handle(ctx context.Context, records []*kgo.Record) error
	// Close finishes or hands over within ctx. What was told to Partition.Commit until it returns is
	// committed; everything else is handed out again, here or elsewhere.
	Close(ctx context.Context) error
}

// worker runs one partition: a bounded queue between the poll loop and the Feed.
type worker struct {
	loop *Loop
	part *Partition

	ctx    context.Context
	cancel context.CancelFunc
	done   chan struct{} // the goroutine has ended, the feed is closed
	opened atomic.Bool
	// stopped: it failed. The loop has a [stop] of it.
	stopped atomic.Bool
	// started is set once, by who runs the worker or by who gives it up before that.
	started atomic.Bool

	mu       sync.Mutex
	position int64 // one past what was polled, markers and all; -1: not known before the first poll
	first    int64 // the first record that came; -1: none
	queue    []*kgo.Record
	bytes    int
	moved    bool // the position moved since the last take
	paused   bool
	stood    int64         // the position when passEmpty looked last
	arrived  chan struct{} // one token: the queue is not empty, or the position moved
}

func newWorker(l *Loop, topic string, id int32) *worker {
	w := &worker{
		loop: l, part: &Partition{Topic: topic, ID: id, Start: FromStart, committed: -1},
		done: make(chan struct{}), arrived: make(chan struct{}, 1),
	}
	w.part.next.Store(-1)
	w.position, w.first, w.stood = -1, -1, -2
	w.part.await = l.lease.await
	w.part.fail = func(err error) { l.fail(w.part, "go on with", err) }
	w.part.pass = w.passEmpty
	w.ctx, w.cancel = context.WithCancel(context.Background())
	return w
}

// begin notes where the group has got to.
func (w *worker) begin(at int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.part.Start, w.position = at, at
	w.part.gaps.startAt(at)
}

// end has the worker close its feed.
func (w *worker) end() {
	w.cancel()
	if w.started.CompareAndSwap(false, true) { // its start was never found: there is nothing to wait for
		close(w.done)
	}
}

// from is where the partition goes on after its feed is closed; -1: not known, since nothing was committed and no
// record came. The caller holds the loop's commits.
func (w *worker) from() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	if at := max(w.part.next.Load(), w.part.committed, w.part.Start); at >= 0 {
		return at
	}
	return w.first
}

// overtaken says how many offsets the cluster has removed that nobody has read: its log now begins after the
// position. Gaps within the log are none: markers and aborted transactions have offsets as well. Nor is a marker
// that retention removed after it was polled: the position, and with it the commit, is behind it by then. What is
// left unknown is what was removed while no member of the group was reading: that may have been records, so it is told.
func (w *worker) overtaken(f kgo.FetchTopicPartition) (lost int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.position < 0 {
		return 0
	}
	return max(0, min(f.LogStartOffset, f.Records[0].Offset)-w.position)
}

// enqueue takes what was polled and says whether the partition is to be paused now.
func (w *worker) enqueue(records []*kgo.Record) (pause bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.first < 0 {
		w.first = records[0].Offset
	}
	for _, rec := range records {
		if isControl(rec) {
			continue
		}
		w.passTo(rec.Offset)
		w.position = rec.Offset + 1
		w.queue = append(w.queue, rec)
		w.bytes += len(rec.Key) + len(rec.Value)
	}
	w.passTo(records[len(records)-1].Offset + 1)
	w.signal()
	if !w.paused && (len(w.queue) > w.loop.cfg.MaxBufferedRecords || w.bytes > w.loop.cfg.MaxBufferedBytes) {
		w.paused = true
		return true
	}
	return false
}

// passTo moves the position over offsets that hold nothing for the Feed; the caller holds mu.
func (w *worker) passTo(next int64) {
	if from := max(w.position, 0); next > from {
		w.part.gaps.add(from, next)
		w.position, w.moved = next, true
	}
}

func (w *worker) signal() {
	select {
	case w.arrived <- struct{}{}:
	default:
	}
}

// take empties the queue; it blocks until there is something, the position moved or the partition goes. next is
// the position behind the records.
func (w *worker) take() (records []*kgo.Record, next int64, ok bool) {
	for {
		w.mu.Lock()
		if len(w.queue) > 0 || w.moved {
			records, next, resume := w.queue, w.position, w.paused
			w.queue, w.bytes, w.moved, w.paused = nil, 0, false, false
			w.mu.Unlock()
			if resume && !w.stopped.Load() {
				w.loop.cl.ResumeFetchPartitions(map[string][]int32{w.part.Topic: {w.part.ID}})
			}
			return records, next, true
		}
		w.mu.Unlock()
		select {
		case <-w.arrived:
		case <-w.ctx.Done():
			return nil, 0, false
		}
	}
}

// hand gives the Feed what was taken.
func (w *worker) hand(feed Feed, records []*kgo.Record, next int64) error {
	last := int64(-1)
	if len(records) > 0 {
		last = records[len(records)-1].Offset
		if err := feed.Handle(w.ctx, records); err != nil {
			return err
		}
	}
	if p, ok := feed.(Passer); ok && next > last+1 && w.ctx.Err() == nil {
		return p.Passed(w.ctx, next)
	}
	return nil
}

// run opens, feeds and closes; an error stops what it reaches.
//
//nolint:contextcheck // a worker outlives the call that assigned its partition
func (w *worker) run() {
	defer close(w.done)
	var feed Feed
	err := Contain(func() (err error) {
		feed, err = w.loop.cfg.Handler.Open(w.ctx, w.part)
		return err
	})
	if err != nil {
		if w.ctx.Err() == nil {
			w.loop.fail(w.part, "open", err)
		}
		return
	}
	w.opened.Store(true)
	for {
		records, next, ok := w.take()
		if !ok || !w.loop.lease.await(w.ctx) {
			break
		}
		err := Contain(func() error { return w.hand(feed, records, next) })
		if err != nil && w.ctx.Err() == nil {
			w.loop.fail(w.part, "handle", err)
			break
		}
		if w.ctx.Err() != nil {
			break
		}
	}
	<-w.ctx.Done()
	ctx, cancel := w.loop.handover(w.ctx)
	defer cancel()
	if err := Contain(func() error { return feed.Close(ctx) }); err != nil {
		w.loop.cfg.Client.logger().Warn("partition handed over unfinished", "topic", w.part.Topic, "partition", w.part.ID, "error", err)
	}
}
