package dispatch

import (
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/decide"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// walks knows of the partition's broadcasts which slices are not let go, and so where their feedback begins: the
// committed offset of the events stays behind the oldest, as the ledger sees to for records.
type walks struct {
	open    map[domain.DeliveryID][]openSlice
	cursors map[domain.DeliveryID]decide.Advanced // to be written when this epoch is acknowledged
}

type openSlice struct{ number, events int64 }

func newWalks() *walks {
	return &walks{open: map[domain.DeliveryID][]openSlice{}, cursors: map[domain.DeliveryID]decide.Advanced{}}
}

func (w *walks) take(s decide.SliceTaken, events int64) {
	w.open[s.Broadcast] = append(w.open[s.Broadcast], openSlice{s.Slice, events})
}

func (w *walks) advance(a decide.Advanced) { w.cursors[a.Broadcast] = a }

// seal hands over the cursors that the epoch writes, and says where the feedback of what stays begins (-1:
// nothing stays). The epoch's offsets are committed only when its cursors are written, so what they let go counts
// as gone here.
func (w *walks) seal() (cursors map[domain.DeliveryID]decide.Advanced, events int64) {
	cursors, events = w.cursors, -1
	w.cursors = map[domain.DeliveryID]decide.Advanced{}
	for id, a := range cursors {
		open := w.open[id]
		for len(open) > 0 && open[0].number <= a.Slice {
			open = open[1:]
		}
		if w.open[id] = open; len(open) == 0 {
			delete(w.open, id)
		}
	}
	for _, open := range w.open {
		if events < 0 || open[0].events < events {
			events = open[0].events
		}
	}
	return cursors, events
}

// tell writes how far the broadcasts are that moved in this epoch. It is done at its end, so that the last word in
// the log is the latest.
func (p *partition) tell(cursors map[domain.DeliveryID]decide.Advanced) {
	for _, id := range sortedIDs(cursors) {
		if ev := p.state.Progress(id); ev != nil {
			p.publish(p.role.bulk, p.factRecord(ev, decide.Trace{}), ev)
		}
	}
}

// writeAfter writes what may be written only now that everything decided before it is acknowledged, as part of the
// same epoch: cursors and marks, then tombstones, and the window.
func (p *partition) writeAfter(e *epoch) {
	for _, id := range sortedIDs(e.cursors) {
		a := e.cursors[id]
		p.publishIn(e, p.role.bulk, p.timer(a.CursorID), a.Cursor)
		for _, id := range a.FirstIDs {
			p.publishIn(e, p.role.bulk, p.timer(id), nil)
		}
	}
	for _, mark := range e.marks {
		p.publishIn(e, p.role.bulk, p.timer(mark.ID), mark.Parked)
	}
	for _, id := range e.tombstones {
		p.publishIn(e, p.role.bulk, p.timer(id), nil)
	}
	for _, r := range e.releasing {
		p.write(nil, p.state.Released(r)) // into the epoch that is being filled: its restart releases again
	}
	e.cursors, e.marks, e.tombstones, e.releasing = nil, nil, nil, nil
	p.writeSeen(e)
}

func (p *partition) timer(id domain.DeliveryID) *kgo.Record {
	return &kgo.Record{Topic: consumers.TopicTimers, Partition: p.id, Key: id[:], Headers: p.owner}
}

func sortedIDs(m map[domain.DeliveryID]decide.Advanced) []domain.DeliveryID {
	return slices.SortedFunc(maps.Keys(m), domain.DeliveryID.Compare)
}

// maxOutstanding bounds what a walk may have written and Kafka not acknowledged: more would fill the publisher's
// buffer and keep alerts waiting for room in it.
const (
	maxOutstanding = 10 * decide.WalkSlice
	outstandingAgo = 2 * time.Millisecond
)

func (p *partition) outstanding() (n int64) {
	for _, e := range p.epochs {
		n += e.outstanding.Load()
	}
	return n
}

// sliceLasts is how long a slice keeps the partition's loop from its other work: about as long as what an alert waits for on
// its way anyhow. One user can cost twice as much, where a segment uses up its bound.
const sliceLasts = time.Millisecond

// walk does one slice of the lane's broadcasts, if there is something to do and room for what comes of it.
func (p *partition) walk(lane domain.Lane, now time.Time) bool {
	at, ok := p.state.WalkDue(lane)
	if !ok || at.After(now) || p.walkAt.After(now) {
		return false
	}
	if p.outstanding() > maxOutstanding {
		p.role.pace.waits(now)
		return false
	}
	if p.walkAt = p.role.pace.from(now); p.walkAt.After(now) {
		return false
	}
	began := time.Now()
	outputs := p.state.Decide(decide.WalkOn{
		Lane: lane, Over: func() bool { return time.Since(began) >= sliceLasts }, Wide: p.role.pace.noAlerts(now),
	}, now)
	records, users := costOf(outputs)
	p.walkAt = p.role.pace.spent(now, max(records, sliceCost), users)
	p.role.metrics.walked.Add(records)
	p.write(nil, outputs)
	return true
}

// routedCost is what one user who is handed to a gateway costs the machine, in records: a socket is written to, a client
// answers, two facts are written. It is a guess, and only weighs them against users who are away where those are walked
// beside them: how many of either the machine can do is for the pace to find, for each by itself.
const routedCost = 4

// sliceCost is what a slice costs at least, in records: one that looks at users of whom none is meant takes its time, too.
const sliceCost = 32

// costOf is how many records come of a slice, or what is worth as many, and how many connected users it is sent to.
func costOf(outputs []decide.Output) (records, users int) {
	for _, o := range outputs {
		if r, is := o.(decide.RouteTo); is {
			users += max(1, len(r.Route.GetUsers()))
		}
	}
	return len(outputs) + routedCost*users, users
}

// handsOver tells the pace of an alert that is on its way to a gateway.
func (p *partition) handsOver(node string, route *whisperv1.Route) {
	if len(route.GetUsers()) > 0 || route.GetSession() != "" {
		return
	}
	id, err := domain.DeliveryIDFromBytes(route.GetDeliveryId())
	if err != nil {
		return
	}
	if at, nodes := p.state.Handed(id, route.GetAttempt()); nodes > 0 {
		p.role.pace.handsOver(at, node, nodes == 1)
	}
}

// handed tells the pace how long an alert took to a socket, where this is the fact that says so.
func (p *partition) handed(in decide.Input, now time.Time) {
	told, is := in.(*decide.SocketFactArrived)
	if !is || told.Fact.Lane != domain.High || told.Fact.SentUS == 0 || p.replaying {
		return
	}
	attempt, node := told.Fact.Attempt(told.Value)
	if at, nodes := p.state.Handed(told.Fact.ID, attempt); nodes > 0 {
		p.role.pace.arrived(now, at, time.UnixMicro(told.Fact.SentUS), node)
	}
}

// walkIdle is how long the loop may sleep for its broadcasts.
func (p *partition) walkIdle(now time.Time) time.Duration {
	idle := time.Minute
	for _, lane := range domain.Lanes {
		if at, ok := p.state.WalkDue(lane); ok {
			idle = min(idle, max(at.Sub(now), p.walkAt.Sub(now), outstandingAgo))
		}
	}
	return idle
}
