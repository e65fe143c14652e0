package gateway

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/decide"
	"github.com/klivvr/whisper/domain/whisperv1"
)

const channelSocket = "socket"

// routed is what a record of the node's topic says, for all its deliveries.
type routed struct {
	g           *Gateway
	requested   time.Time           // of the delivery id
	facts       domain.AttemptFacts // and what all that is told of it shares
	incarnation uint64
	expiresMS   int64
	explicit    bool  // only the client's own acknowledgement counts
	takenUS     int64 // when it came off Kafka
	trace       []kgo.RecordHeader
	ticket      int64        // of the lane's progress
	open        atomic.Int32 // deliveries without an outcome; the last one settles the record
}

func (r *routed) settled() {
	if r.open.Add(-1) == 0 {
		r.g.lanes.settled(r.facts.Lane, r.ticket)
	}
}

// delivery is one attempt on this node: what its facts need, and how far it is. However many sessions
// it goes to, it has one outcome and at most one delivered and one read. 64 B, and some 400 B for its
// record, until every session that got it has acknowledged it or is closed.
type delivery struct {
	*routed
	id   domain.DeliveryID
	user string

	// mu is held while facts are handed to the publisher, so that they keep their order.
	mu        sync.Mutex
	pending   int32 // sessions that have it queued
	told      bool  // the outcome is published
	delivered bool
	read      bool
	returned  bool  // handed back
	sentUS    int64 // when the first socket took it
}

func (d *delivery) event(atUS int64) *whisperv1.Event {
	return &whisperv1.Event{
		DeliveryId:     d.id[:],
		NotificationId: d.facts.Notification,
		UserId:         d.user,
		AtUs:           atUS,
		Lane:           d.facts.Lane.Proto(),
		Cause:          d.facts.Cause,
	}
}

// outcome publishes the first fact about the attempt; when Kafka has it, the route is settled.
func (d *delivery) outcome(ev *whisperv1.Event) {
	d.told = true
	d.g.broker.Fact(ev, d.trace, d.written)
}

// written: Kafka has the outcome.
func (d *delivery) written(err error) {
	if err == nil {
		d.settled()
	}
}

// taken: a socket took it. auto: that counts as delivered, unless the route wants the client's own word.
func (d *delivery) taken(auto bool) {
	d.mu.Lock()
	d.pending--
	first := d.sentUS == 0 && !d.told
	if first {
		d.markSent()
	}
	if auto && !d.explicit {
		d.deliver(false)
	}
	hold := first && !d.told
	if hold && d.g.cfg.ReceiptHold <= 0 {
		d.tellSent()
		hold = false
	}
	d.mu.Unlock()
	if hold {
		d.g.receipts.hold(d)
	}
}

func (d *delivery) markSent() {
	d.sentUS = d.g.stamp.next()
	d.g.metrics.sent.Inc()
	d.observe(&d.g.metrics.taken[d.facts.Lane], d.sentUS)
}

// observe measures from the request, and from when the delivery was due. Of one that is only remembered nobody knows the latter.
func (d *delivery) observe(l *latencies, atUS int64) {
	since := func(fromUS int64) float64 { return max(0, float64(atUS-fromUS)/1e6) }
	l.request.Update(since(d.id.Time().UnixMicro()))
	if d.takenUS > 0 {
		l.due.Update(since(decide.Due(d.id, d.facts.DueMS)))
	}
}

// sentFact publishes delivery_sent unless something stronger was told already.
func (d *delivery) sentFact() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.told {
		d.tellSent()
	}
}

func (d *delivery) tellSent() {
	d.told = true
	d.g.broker.Attempt(&d.facts,
		domain.AttemptFact{ID: d.id, User: d.user, AtUS: d.sentUS, LatencyUS: d.sentUS - d.takenUS}, d.trace, d.written)
}

// acked: a client has it. That proves that a socket took it, even if the writer has not come to say so.
func (d *delivery) acked() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.deliver(true)
}

// deliver: said is that a client said so, whose time to answer the hold of receipts follows.
func (d *delivery) deliver(said bool) {
	if d.delivered {
		return
	}
	d.delivered = true
	if d.sentUS == 0 {
		d.markSent()
	}
	at := d.g.stamp.next()
	d.observe(&d.g.metrics.acknowledged[d.facts.Lane], at)
	if said {
		d.g.receipts.answered(time.Duration(at-d.sentUS)*time.Microsecond, d.told)
	}
	fact := domain.AttemptFact{ID: d.id, User: d.user, AtUS: at, Delivered: true}
	if d.told {
		d.g.broker.Attempt(&d.facts, fact, d.trace, nil)
		return
	}
	d.told = true
	fact.SentAtUS, fact.LatencyUS = d.sentUS, d.sentUS-d.takenUS
	d.g.broker.Attempt(&d.facts, fact, d.trace, d.written)
}

// seen: the person has read it, which also proves that the client has it.
func (d *delivery) seen() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.deliver(true)
	if d.read {
		return
	}
	d.read = true
	ev := d.event(d.g.stamp.next())
	ev.Kind = &whisperv1.Event_DeliveryRead{DeliveryRead: &whisperv1.DeliveryRead{Node: d.g.cfg.Node, Attempt: d.facts.Attempt}}
	d.g.broker.Fact(ev, d.trace, nil)
}

// lost: a session went away, or its time was over, before its socket took it. When that was the last
// session, the attempt has failed.
func (d *delivery) lost(class whisperv1.FailureClass, reason string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.pending--
	if d.pending > 0 || d.told || d.sentUS != 0 {
		return
	}
	d.fail(class, reason, d.g.hub.bounceUS(d.user))
}

func (d *delivery) fail(class whisperv1.FailureClass, reason string, atUS int64) {
	if class == whisperv1.FailureClass_FAILURE_CLASS_EXPIRED {
		d.g.metrics.expired.Inc()
	} else {
		d.g.metrics.unreachable.Inc()
	}
	ev := d.event(atUS)
	ev.Kind = &whisperv1.Event_AttemptFailed{AttemptFailed: &whisperv1.AttemptFailed{
		Attempt:     d.facts.Attempt,
		Channel:     channelSocket,
		Node:        d.g.cfg.Node,
		Class:       class,
		Reason:      reason,
		Incarnation: d.incarnation,
		LatencyUs:   max(0, atUS-d.takenUS),
	}}
	if d.told {
		d.g.broker.Fact(ev, d.trace, nil)
		return
	}
	d.outcome(ev)
}

// handedBack: the node is going, and a session that had it has left without acknowledging it, so that it is
// sent again where the user is next.
func (d *delivery) handedBack() {
	if d.g.superseded() {
		return // somebody else answers for the node
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.delivered || d.returned || d.pending > 0 || d.told && d.sentUS == 0 {
		return
	}
	d.returned = true
	d.fail(whisperv1.FailureClass_FAILURE_CLASS_UNREACHABLE, "the node drains and it was not acknowledged", d.g.hub.bounceUS(d.user))
}

// bounce: nobody here can take it.
func (d *delivery) bounce(reason string, atUS int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail(whisperv1.FailureClass_FAILURE_CLASS_UNREACHABLE, reason, atUS)
}

func (d *delivery) expire() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail(whisperv1.FailureClass_FAILURE_CLASS_EXPIRED, "expired before its turn came", d.g.stamp.next())
}
