package dispatch

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/decide"
)

// partition is one owned user partition: its state, its mailbox, and the single goroutine that decides.
type partition struct {
	role *Role
	id   int32
	mail *mailbox

	ctx     context.Context
	cancel  context.CancelFunc
	started sync.Once
	ended   chan struct{} // the loop has returned and committed what it may

	// Set while the topics are opened; the loop starts when all are there.
	mu      sync.Mutex
	sources [queues]*consumers.Partition
	missing int

	// Everything below belongs to the loop's goroutine.
	ownedAs     consumers.Epoch
	owner       []kgo.RecordHeader // what every record of a changelog carries
	repairs     *repairs
	patches     *patches
	deciding    *kgo.Record // what is being decided about
	state       *decide.State
	ledgers     [3]*ledger
	walks       *walks
	walkAt      time.Time // no slice before
	laneStarts  [3]int64
	laneEnds    [3]int64 // what was there at the restore is replayed up to here
	eventsStart int64
	eventsEnd   int64
	eventsNext  int64
	changesNext int64
	replaying   bool
	live        atomic.Bool // the replay is over; feeds read it
	resumed     bool
	epochs      []*epoch // in order; the last one is being filled
	gate        gate
	crowded     bool                // a lane waits for room on the way to Kafka
	recalled    chan []decide.Input // what was read back, from its reader's goroutine
	restored    chan struct{}
}

func newPartition(r *Role, id int32) *partition {
	p := &partition{
		role: r, id: id, mail: newMailbox(), ended: make(chan struct{}), missing: queues,
		state: decide.NewState(id, r.cfg.Policy), replaying: true, changesNext: -1, restored: make(chan struct{}),
		walks: newWalks(), repairs: newRepairs(), patches: newPatches(), recalled: make(chan []decide.Input, 1),
	}
	for i := range p.ledgers {
		p.ledgers[i] = newLedger()
	}
	p.epochs = []*epoch{newEpoch(p.fail)}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p
}

// fail stops the partition, or the process where the error reaches it. From any goroutine; the loop ends when the
// feeds are closed.
func (p *partition) fail(err error) {
	p.mu.Lock()
	source := p.sources[queueEvents]
	p.mu.Unlock()
	if source != nil && p.ctx.Err() == nil {
		source.Fail(err)
	}
}

// attach adds one topic; with the last one the loop starts.
func (p *partition) attach(q int, source *consumers.Partition) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sources[q] == nil {
		p.missing--
	}
	p.sources[q] = source
	if p.missing == 0 {
		p.started.Do(func() { go p.run() })
	}
}

// stop ends the loop and waits until it has committed what it may.
func (p *partition) stop(ctx context.Context) error {
	p.cancel()
	p.started.Do(func() { close(p.ended) }) // it never ran
	defer p.role.forget(p)
	select {
	case <-p.ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("partition %d: the handover took too long: %w", p.id, ctx.Err())
	}
}

// run is the loop: restore, decide, commit, hand over. A bug that it meets stops the partition: its state may be half
// changed, so it is restored anew, and nothing of it is handed over.
func (p *partition) run() {
	defer close(p.ended)
	if err := consumers.Contain(func() error { p.loop(); return nil }); err != nil {
		p.fail(p.poisoned(err))
	}
}

func (p *partition) loop() {
	if err := p.restore(p.ctx); err != nil {
		if p.ctx.Err() == nil {
			p.fail(fmt.Errorf("restore partition %d: %w", p.id, err))
		}
		return
	}
	defer p.role.reader.Unfollow(consumers.TopicPresence, p.id)
	defer p.role.reader.Unfollow(consumers.TopicTokens, p.id)
	defer p.stopTails()
	defer p.repairs.searching.Wait()
	close(p.restored)
	go p.passEmpty(p.sources,
		[queues]int64{queueEvents: p.eventsEnd, queueHigh: p.laneEnds[0], queueNormal: p.laneEnds[1], queueLow: p.laneEnds[2]})
	seal := time.NewTicker(p.role.cfg.CommitInterval)
	defer seal.Stop()
	var held decide.Sizes
	tell := func(now decide.Sizes) {
		p.role.metrics.holds(held, now)
		held = now
	}
	defer func() { tell(decide.Sizes{}) }()
	due := time.NewTimer(0)
	defer due.Stop()
	for p.ctx.Err() == nil {
		if !p.leads() {
			select {
			case <-time.After(leadsIn):
			case <-p.ctx.Done():
			}
			continue
		}
		if p.work() {
			select { // a busy partition commits too
			case <-seal.C:
				p.seal()
				p.commit()
				tell(p.state.Sizes())
			default:
			}
			continue
		}
		due.Reset(p.idle())
		select {
		case <-seal.C:
			p.seal()
			p.commit()
			tell(p.state.Sizes())
		case <-p.mail.arrived:
		case <-due.C:
		case <-p.ctx.Done():
		}
	}
	p.handover()
}

// idle is how long the loop may sleep if nothing arrives.
func (p *partition) idle() time.Duration {
	if p.eventsNext < p.eventsEnd { // nothing is done about what is due before the feedback is read
		return time.Minute
	}
	now := p.role.cfg.Now()
	idle := p.walkIdle(now)
	if len(p.recalled) > 0 {
		idle = min(idle, outstandingAgo)
	}
	if p.crowded {
		idle = min(idle, roomIn)
	}
	if at, ok := p.state.NextDue(); ok {
		idle = min(idle, max(at.Sub(now), 0))
	}
	return idle
}

// How much of each lane is taken before the lanes above it are looked at again.
var laneBatch = [3]int{512, 128, 64}

// How much of the buffer of what is on the way to a channel must be free for a lane to go on: while Kafka is
// slower than we are, what is less urgent waits in its topic, and an alert finds room. roomIn is how soon a lane
// that waits for it looks again.
var laneRoom = [3]float64{0, 0.25, 0.5}

const roomIn = 5 * time.Millisecond

// leadsIn is how soon a loop that may not decide for now looks again.
const leadsIn = 50 * time.Millisecond

// work does one round and says whether there may be more to do at once.
func (p *partition) work() (more bool) {
	p.release()
	p.repair()
	defer p.count()
	now := p.role.cfg.Now()
	for _, it := range p.mail.take(queueEvents, 1024) {
		p.eventsNext = it.after()
		if it.input != nil && !p.stale(it.rec) && !p.setAside(it.rec) {
			p.handed(it.input, now)
			p.decide(it.rec, it.input, now)
		}
		more = true
	}
	if p.eventsNext < p.eventsEnd {
		return more // the feedback of what was in flight comes before anything is done about it
	}
	for _, in := range p.mail.takeControl() {
		p.write(nil, p.state.Decide(in, now))
	}
	if !p.resumed {
		p.resumed = true
		p.write(nil, p.state.Resume(now))
	}
	for _, it := range p.mail.take(queueChanges, 256) {
		p.changesNext = it.after()
		switch {
		case it.rec == nil || p.patches.again(it.rec) || p.setAside(it.rec):
		case it.bad != nil:
			p.reject(it.rec, it.bad)
		default:
			p.decide(it.rec, it.input, now)
		}
		more = true
	}
	p.write(nil, p.state.Decide(decide.TimePassed{}, now))
	more = p.takeBack(now) || more
	p.crowded = false
	for lane := range p.ledgers {
		if p.role.free() < laneRoom[lane] {
			p.crowded = true
			break
		}
		items := p.mail.take(queueHigh+lane, laneBatch[lane])
		for _, it := range items {
			p.take(lane, it, now)
		}
		if len(items) > 0 {
			p.replayed()
		}
		if p.walk(domain.Lane(lane), now) || len(items) > 0 {
			return true
		}
	}
	return more
}

// take decides about one record of a lane.
func (p *partition) take(lane int, it item, now time.Time) {
	if it.rec == nil {
		p.ledgers[lane].pass(it.next)
		return
	}
	from := p.eventsNext
	if it.rec.Offset < p.laneEnds[lane] {
		from = p.eventsStart // it may have been in flight before: its feedback may be older than we are
	}
	p.ledgers[lane].take(it.rec.Offset, from)
	if it.bad != nil {
		p.reject(it.rec, it.bad)
		p.ledgers[lane].settle(it.rec.Offset, nil)
		return
	}
	if p.setAside(it.rec) {
		p.ledgers[lane].settle(it.rec.Offset, nil)
		return
	}
	p.role.metrics.arrived[lane].Inc()
	if domain.Lane(lane) == domain.High && !p.replaying && it.rec.Offset >= p.laneEnds[lane] {
		p.role.pace.taken(now, it.rec.Timestamp) // not of what waited for an owner
	}
	p.tellAside(it.rec, asideID(it.input))
	p.decide(it.rec, it.input, now)
}

// replayed ends the replay when every lane has passed what was there at the restore.
func (p *partition) replayed() {
	if !p.replaying {
		return
	}
	for lane, l := range p.ledgers {
		if l.next < p.laneEnds[lane] && p.laneStarts[lane] < p.laneEnds[lane] {
			return
		}
	}
	p.replaying = false
	p.live.Store(true)
	p.state.ReplayDone()
}

func (p *partition) epoch() *epoch { return p.epochs[len(p.epochs)-1] }

// seal ends the epoch with the offsets that its outputs let go, and what the window must remember before that.
func (p *partition) seal() {
	var o offsets
	e := p.epoch()
	o.events = p.eventsNext
	for lane, l := range p.ledgers {
		var from int64
		e.seen, o.lanes[lane], from = l.advance(e.seen)
		if from >= 0 {
			o.events = min(o.events, from)
		}
	}
	cursors, from := p.walks.seal()
	if from >= 0 {
		o.events = min(o.events, from)
	}
	if p.replaying || p.state.ReplayHeld() {
		o.events = p.eventsStart
	}
	o.changes = p.changesNext
	p.tell(cursors)
	e.offsets, e.cursors, e.patches = o, cursors, p.patches.seal()
	p.epochs = append(p.epochs, newEpoch(p.fail))
}

// commit lets go what is acknowledged, in order.
func (p *partition) commit() {
	for len(p.epochs) > 1 && p.epochs[0].complete() {
		if e := p.epochs[0]; !e.followed {
			e.followed = true
			p.writeAfter(e)
			continue
		}
		o := p.epochs[0].offsets
		for lane, next := range o.lanes {
			p.sources[queueHigh+lane].Commit(next)
		}
		p.sources[queueEvents].Commit(o.events)
		p.sources[queueChanges].Commit(o.changes)
		p.epochs = p.epochs[1:]
	}
}

// handover writes what was decided and commits as far as it goes; what is in flight is the next owner's.
func (p *partition) handover() {
	p.seal()
	give := time.NewTimer(p.role.cfg.HandoverTimeout)
	defer give.Stop()
	look := time.NewTicker(2 * time.Millisecond)
	defer look.Stop()
	for p.commit(); len(p.epochs) > 1; p.commit() {
		if p.epochs[0].broken.Load() { // it is decided again
			return
		}
		select {
		case <-look.C:
			p.release()
		case <-give.C:
			p.role.log.Warn("handover could not write everything, it is decided again", "partition", p.id)
			return
		}
	}
}
