package gateway

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

const lanesN = len(domain.Lanes)

// maxLaneBytes bounds what waits of one lane between Kafka and the sessions. Reading stops for all lanes
// while one is full; emptying it takes some 0.1 s.
const maxLaneBytes = 16 << 20

// laneSlice is how many records of a lane are handled before a higher one is looked at again.
const laneSlice = 32

// lanes takes the records of the node's topic, a partition a lane, hands them to sessions in the order
// of lanes, and commits behind what is settled.
type lanes struct {
	g *Gateway

	mu      sync.Mutex
	arrived *sync.Cond
	room    *sync.Cond
	waiting [lanesN][]*kgo.Record
	bytes   [lanesN]int
	stopped bool
	renewed bool // what comes next is of a new topic

	progress [lanesN]progress
}

func newLanes(g *Gateway) *lanes {
	l := &lanes{g: g}
	l.arrived, l.room = sync.NewCond(&l.mu), sync.NewCond(&l.mu)
	return l
}

// follow starts reading where the last incarnation got to, or at the start.
func (l *lanes) follow(ctx context.Context) error {
	from, err := l.g.broker.Committed(ctx)
	if err != nil {
		return err
	}
	var sinks []func([]*kgo.Record)
	for _, lane := range domain.Lanes {
		sinks = append(sinks, l.sink(lane))
		next, ok := from[int32(lane)]
		if !ok {
			next = consumers.FromStart
		}
		if _, err := l.g.broker.Follow(ctx, consumers.TopicNode(l.g.cfg.Node), int32(lane), next, l.sink(lane)); err != nil {
			return err
		}
	}
	l.g.broker.Remade(l.renew, func(err error) {
		l.g.deaf.Store(&err)
		if err == nil {
			l.g.nodes.again()
		}
	}, sinks...)
	return nil
}

func (l *lanes) sink(lane domain.Lane) func([]*kgo.Record) {
	return func(records []*kgo.Record) { l.put(lane, records) }
}

// renew: somebody deleted the node's topic, and its new one is read from its start. What waited of the old one is
// dropped: it comes again, see nodes.again.
func (l *lanes) renew() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting, l.bytes, l.renewed = [lanesN][]*kgo.Record{}, [lanesN]int{}, true
	l.room.Broadcast()
	l.arrived.Broadcast()
}

// put waits while the lane is full.
func (l *lanes) put(lane domain.Lane, records []*kgo.Record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.bytes[lane] > maxLaneBytes && !l.stopped {
		l.room.Wait()
	}
	if l.stopped {
		return // not settled, so the next incarnation gets them
	}
	l.waiting[lane] = append(l.waiting[lane], records...)
	for _, rec := range records {
		l.bytes[lane] += len(rec.Value)
	}
	l.arrived.Signal()
}

func (l *lanes) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopped = true
	l.arrived.Broadcast()
	l.room.Broadcast()
}

// run hands records over until stop or ctx's end.
func (l *lanes) run(ctx context.Context) error {
	defer context.AfterFunc(ctx, l.stop)()
	targets := make([]*session, 0, 32)
	for {
		lane, records := l.next()
		if records == nil {
			return nil
		}
		l.awaitReceipts()
		for _, rec := range records {
			if err := l.take(lane, rec, &targets); err != nil {
				return err
			}
		}
	}
}

// awaitReceipts waits while Kafka does not take what became of the deliveries before: they would fill the
// memory. Bounces and refusals wait by themselves, in the publisher.
func (l *lanes) awaitReceipts() {
	for l.g.receipts.overdue() {
		l.mu.Lock()
		stopped := l.stopped
		l.mu.Unlock()
		if stopped {
			return
		}
		<-time.After(receiptGrain)
	}
}

// next is a slice of the highest lane that has something; nil: stopped.
func (l *lanes) next() (domain.Lane, []*kgo.Record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for !l.stopped {
		if l.renewed { // here nothing of the old topic is between what waits and its ticket
			for lane := range l.progress {
				l.progress[lane].renew()
			}
			l.renewed = false
		}
		for _, lane := range domain.Lanes {
			waiting := l.waiting[lane]
			if len(waiting) == 0 {
				continue
			}
			n := min(len(waiting), laneSlice)
			if l.waiting[lane] = waiting[n:]; n == len(waiting) {
				l.waiting[lane] = nil
			}
			for _, rec := range waiting[:n] {
				l.bytes[lane] -= len(rec.Value)
			}
			l.room.Signal()
			return lane, waiting[:n]
		}
		l.arrived.Wait()
	}
	return 0, nil
}

// take handles one record. An error means that this process must not go on.
func (l *lanes) take(lane domain.Lane, rec *kgo.Record, targets *[]*session) error {
	ticket := l.progress[lane].take(rec.Offset)
	r, route, err := l.decode(lane, rec)
	if err != nil {
		l.g.broker.DeadLetter(rec, err, func(err error) {
			if err == nil {
				l.settled(lane, ticket)
			}
		})
		return nil
	}
	r.ticket = ticket
	if route.GetIncarnation() > l.g.incarnation.Load() {
		return l.g.nodes.lostTo(route.GetIncarnation())
	}
	frame := encodeFrame(opText, route.GetFrame()) // once for all sessions
	if route.GetRetract() {
		l.retract(r, route, frame, targets)
		return nil
	}
	if users := route.GetUsers(); len(users) > 0 {
		r.open.Store(int32(len(users)))
		for _, user := range users {
			l.hand(&delivery{routed: r, user: user, id: r.idOf(user)}, frame, "", targets)
		}
		return nil
	}
	r.open.Store(1)
	l.hand(&delivery{routed: r, user: string(rec.Key), id: domain.DeliveryID(route.GetDeliveryId())}, frame, route.GetSession(), targets)
	return nil
}

// retract tells sessions that a notification is taken back. It goes before the lanes, so that what waits behind it
// is not shown later; nobody acknowledges it, and who has no session here is passed over: dispatch tells whoever
// connects. Each user who was told has a fact; the record is settled when they are written.
func (l *lanes) retract(r *routed, route *whisperv1.Route, frame wireFrame, targets *[]*session) {
	r.open.Store(int32(len(route.GetUsers())) + 1)
	for _, user := range route.GetUsers() {
		found, _ := l.g.hub.find((*targets)[:0], user, route.GetSession())
		*targets = found
		if r.incarnation != l.g.incarnation.Load() || len(found) == 0 {
			r.settled()
			continue
		}
		for _, s := range found {
			s.control(frame)
		}
		clear(*targets)
		d := &delivery{routed: r, user: user, id: r.idOf(user)}
		ev := d.event(l.g.stamp.next())
		ev.Kind = &whisperv1.Event_DeliveryRetracted{DeliveryRetracted: &whisperv1.DeliveryRetracted{Channel: channelSocket, Node: l.g.cfg.Node}}
		l.g.broker.Fact(ev, r.trace, func(err error) {
			if err == nil {
				r.settled()
			}
		})
	}
	r.settled()
}

func (r *routed) idOf(user string) domain.DeliveryID {
	return domain.NewDeliveryID(r.requested, domain.HashDelivery(r.facts.Notification, user))
}

// hand gives a delivery to the user's sessions, or says at once why not.
func (l *lanes) hand(d *delivery, frame wireFrame, only string, targets *[]*session) {
	found, bounceUS := l.g.hub.find((*targets)[:0], d.user, only)
	*targets = found
	switch {
	case d.incarnation != l.g.incarnation.Load():
		d.bounce("addressed to an earlier incarnation of the node", l.g.hub.bounceUS(d.user))
	case d.expiresMS > 0 && d.expiresMS <= d.takenUS/1000:
		d.expire()
	case len(found) == 0:
		d.bounce("no such session on the node", bounceUS)
	default:
		d.pending = int32(len(found))
		for _, s := range found {
			if !s.send(frame, d) {
				d.lost(whisperv1.FailureClass_FAILURE_CLASS_UNREACHABLE, "the session closed before it was sent")
			}
		}
	}
	clear(*targets)
}

func (l *lanes) decode(lane domain.Lane, rec *kgo.Record) (*routed, *whisperv1.Route, error) {
	var route whisperv1.Route
	if err := proto.Unmarshal(rec.Value, &route); err != nil {
		return nil, nil, &consumers.Reason{Word: "undecodable", Err: fmt.Errorf("not a route: %w", err)}
	}
	id, err := domain.DeliveryIDFromBytes(route.GetDeliveryId())
	if err != nil {
		return nil, nil, err
	}
	if err := domain.CheckKnownID(string(rec.Key)); err != nil && len(route.GetUsers()) == 0 {
		return nil, nil, fmt.Errorf("the record's key (the user id) %w", err)
	}
	for i, user := range route.GetUsers() {
		if err := domain.CheckKnownID(user); err != nil {
			return nil, nil, fmt.Errorf("users[%d] %w", i, err)
		}
	}
	if err := domain.CheckKnownID(route.GetNotificationId()); err != nil {
		return nil, nil, fmt.Errorf("notification_id %w", err)
	}
	if len(route.GetFrame()) == 0 {
		return nil, nil, errors.New("the route has no frame")
	}
	r := &routed{
		g:         l.g,
		requested: id.Time(),
		facts: domain.AttemptFacts{
			Notification: route.GetNotificationId(),
			Lane:         lane, // the partition's, which is what it is committed by
			Cause:        consumers.PositionOf(rec),
			Attempt:      route.GetAttempt(),
			Node:         l.g.cfg.Node,
			DueMS:        route.GetDueMs(),
		},
		incarnation: route.GetIncarnation(),
		expiresMS:   route.GetExpiresAtMs(),
		explicit:    route.GetExplicitAck(),
		takenUS:     l.g.cfg.Now().UnixMicro(),
		trace:       traceOf(rec),
	}
	r.facts.Prepare()
	return r, &route, nil
}

// traceOf copies the trace headers: the record's are slices of a whole fetch, which a delivery that waits
// for its acknowledgement must not keep in memory.
func traceOf(rec *kgo.Record) []kgo.RecordHeader {
	trace := consumers.TraceHeaders(rec)
	for i := range trace {
		trace[i].Value = append([]byte(nil), trace[i].Value...)
	}
	return trace
}

func (l *lanes) settled(lane domain.Lane, ticket int64) { l.progress[lane].done(ticket) }

// unsettled is how many records were taken that may not be committed yet.
func (l *lanes) unsettled() (n int) {
	for lane := range l.progress {
		n += l.progress[lane].unsettled()
	}
	return n
}

// commitEvery is how much is handed out again after a crash, and answered `unreachable` once more.
const commitEvery = time.Second

func (l *lanes) commitLoop(ctx context.Context) error {
	ticker := time.NewTicker(commitEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			if err := l.commit(ctx); err != nil && ctx.Err() == nil {
				if consumers.IsFatal(err) {
					return err
				}
				l.g.cfg.Logger.Warn("commit failed", "error", err) // the next one covers it
			}
		}
	}
}

// commit writes the positions that changed since the last time.
func (l *lanes) commit(ctx context.Context) error {
	changed := map[int32]int64{}
	for lane := range l.progress {
		if next, ok := l.progress[lane].advanced(); ok {
			changed[int32(lane)] = next
		}
	}
	if len(changed) == 0 {
		return nil
	}
	if err := l.g.broker.Commit(ctx, changed); err != nil {
		return err
	}
	for lane, next := range changed {
		l.progress[lane].committed(next)
	}
	return nil
}
