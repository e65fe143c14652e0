package dispatch

import (
	"encoding/binary"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/decide"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// write turns what was decided about rec (nil: no record) into records. What a person waits for goes
// out at once, the rest is gathered.
func (p *partition) write(rec *kgo.Record, outputs []decide.Output) {
	for _, o := range outputs {
		switch o := o.(type) {
		case decide.Reject:
			p.reject(rec, o.Reason)
		case decide.Settle:
			p.ledgers[o.Source.Lane].settle(o.Source.Offset, o.Seen)
		case decide.Remember:
			p.epoch().seen = append(p.epoch().seen, o.Seen)
		case decide.RouteTo:
			lane := domain.LaneOf(o.Route.GetLane())
			p.send(lane, o.User, o.Route.GetUsers(), &kgo.Record{
				Topic: consumers.TopicNode(o.Node), Partition: int32(lane),
				Key: []byte(o.User), Headers: traceHeaders(o.Trace),
			}, o.Route, p.routed(p.epoch(), o))
			if lane == domain.High {
				p.handsOver(o.Node, o.Route)
			}
			p.role.metrics.routed.Add(max(1, len(o.Route.GetUsers())))
		case decide.PushTo:
			lane := domain.LaneOf(o.Push.GetLane())
			p.send(lane, o.Push.GetUserId(), nil, &kgo.Record{
				Topic: consumers.TopicPush(o.Push.GetChannel(), lane), Partition: p.id,
				Key: []byte(o.Push.GetUserId()), Headers: traceHeaders(o.Trace),
			}, o.Push, p.pushed(p.epoch(), o))
			if o.Push.GetRetract() {
				p.role.metrics.takenBack.Inc()
			} else {
				p.role.metrics.pushed.Inc()
			}
		case decide.Emit:
			p.publish(p.role.bulk, p.factRecord(o.Event, o.Trace), o.Event)
			p.role.metrics.emitted(domain.KindOf(o.Event)).Inc()
			p.role.metrics.policy(o.Event)
		case decide.Count:
			p.gate.count(o)
		case decide.Uncount:
			p.gate.uncount(o.User)
		case decide.Deliver:
			p.publish(p.role.bulk, &kgo.Record{
				Topic: consumers.TopicDeliveries(domain.LaneOf(o.Event.GetLane())), Partition: p.id, Key: []byte(o.Event.GetUserId()),
				Headers: []kgo.RecordHeader{{Key: consumers.HeaderEvent, Value: []byte(domain.KindOf(o.Event))}},
			}, o.Event)
		case decide.Notice:
			p.role.notices.tell(o)
		case decide.Park:
			p.publish(p.role.bulk, p.timer(o.ID), o.Parked)
		case decide.Unpark:
			p.epoch().tombstones = append(p.epoch().tombstones, o.ID)
		case decide.ParkAfter:
			p.epoch().marks = append(p.epoch().marks, o)
		case decide.Recall:
			p.role.recalls.ask(p, o, p.eventsNext)
		case decide.SliceTaken:
			from := p.eventsNext
			if o.Replays {
				from = p.eventsStart
			}
			p.walks.take(o, from)
		case decide.Advanced:
			p.walks.advance(o)
		case decide.Finished:
			delete(p.walks.cursors, o.Broadcast)
			delete(p.walks.open, o.Broadcast)
			// The broadcast's own first: a walk without a cursor would begin anew.
			p.epoch().tombstones = append(append(p.epoch().tombstones, o.Broadcast, o.CursorID), o.FirstIDs...)
		case decide.Steered:
			p.role.metrics.steered(o.Command, o.Known).Inc()
			if !o.Known {
				p.role.log.Debug("a command found nothing of its notification here", "partition", p.id, "command", o.Command, "notification_id", o.Notification)
			}
		case decide.PutPresence:
			p.putPresence(o)
		case decide.PutUser:
			rec := &kgo.Record{Topic: consumers.TopicUsers, Partition: p.id, Key: []byte(o.User), Headers: p.owner}
			if o.Profile == nil {
				p.publish(p.role.bulk, rec, nil)
			} else {
				p.publish(p.role.bulk, rec, o.Profile)
			}
			for _, claim := range o.Claims {
				p.putClaim(claim)
			}
		case decide.Releasing:
			p.epoch().releasing = append(p.epoch().releasing, o)
		case decide.PutClaim:
			p.putClaim(o)
		case decide.TokenMoved:
			p.role.metrics.moved.Inc()
			p.publish(p.role.bulk, &kgo.Record{
				Topic: consumers.TopicChanges, Partition: consumers.PartitionOf(o.User, p.role.cfg.Partitions), Key: []byte(o.User), Value: o.Patch,
				Headers: []kgo.RecordHeader{{Key: headerMoved, Value: []byte(o.Moved.String())}},
			}, nil)
		}
	}
}

func (p *partition) reject(rec *kgo.Record, reason error) {
	e := p.epoch()
	e.outstanding.Add(1)
	p.role.dead.Put(p.ctx, rec, reason, e.acked)
}

// publish writes a record whose value is m, or a tombstone, as part of the open epoch.
func (p *partition) publish(to *consumers.Publisher, rec *kgo.Record, m proto.Message) {
	p.publishIn(p.epoch(), to, rec, m)
}

func (p *partition) factRecord(ev *whisperv1.Event, trace decide.Trace) *kgo.Record {
	kind := domain.KindOf(ev)
	headers := append([]kgo.RecordHeader{{Key: consumers.HeaderEvent, Value: []byte(kind)}}, traceHeaders(trace)...)
	if ownWord(kind) {
		headers = append(headers, p.owner...)
	}
	return &kgo.Record{Topic: consumers.TopicEvents, Partition: p.id, Key: []byte(ev.GetUserId()), Headers: headers}
}

func (p *partition) publishIn(e *epoch, to *consumers.Publisher, rec *kgo.Record, m proto.Message) {
	if rec.Topic == consumers.TopicTimers && len(p.repairs.open) > 0 {
		delete(p.repairs.open, string(rec.Key)) // what is written now is later than what is searched for
	}
	p.publishTo(e, to, rec, m, e.acked)
}

// publishTo is publishIn where done decides what a failed write means; it calls e.acked once.
func (p *partition) publishTo(e *epoch, to *consumers.Publisher, rec *kgo.Record, m proto.Message, done func(error)) {
	e.outstanding.Add(1)
	if m != nil {
		if err := p.encode(rec, m); err != nil {
			e.acked(err)
			return
		}
	}
	to.Publish(p.ctx, rec, done)
}

// encode puts m into rec. An error means that the epoch can't be completed: text that is not UTF-8, which intake
// refuses.
func (p *partition) encode(rec *kgo.Record, m proto.Message) error {
	value, err := proto.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode a record of %s: %w", rec.Topic, err)
	}
	rec.Value = value
	return nil
}

// seenPerRecord keeps a record of the window far below the record limit: 27 bytes each.
const seenPerRecord = 20_000

// writeSeen appends to the window's log. It is written before the offsets are committed, so an id is
// never forgotten, and after everything that was decided, so that no restart calls a duplicate what nothing was said
// about; a part that is written twice is the same part.
func (p *partition) writeSeen(e *epoch) {
	seen, patches := e.seen, e.patches
	e.seen, e.patches = nil, nil
	long := false // one is to be remembered for longer than the window
	for len(seen) > 0 || len(patches) > 0 {
		n := min(len(seen), seenPerRecord)
		m := &whisperv1.Seen{Hashes: make([]byte, 0, n*len(domain.DeliveryHash{})), PatchSources: patches}
		patches, long = nil, false
		for _, d := range seen[:n] {
			m.Hashes = append(m.Hashes, d.Hash[:]...)
			m.Requests = append(m.Requests, d.Request)
			m.AcceptedMs = append(m.AcceptedMs, uint64(d.AcceptedMs))
			m.LaterMs = append(m.LaterMs, uint64(max(d.EndedMs-d.AcceptedMs, 0)))
			if m.KeepMs = append(m.KeepMs, uint64(max(d.KeepMs-d.AcceptedMs, 0))); d.KeepMs > d.TakenMs+p.role.cfg.Policy.Window.Milliseconds() {
				long = true
			}
		}
		if !long {
			m.KeepMs = nil
		}
		p.publishIn(e, p.role.bulk, &kgo.Record{
			Topic: consumers.TopicSeen, Partition: p.id,
			Key: binary.BigEndian.AppendUint32(nil, uint32(p.id)), Headers: p.owner,
		}, m)
		seen = seen[n:]
	}
}
