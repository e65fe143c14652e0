package decide

import (
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/localtime"
	"github.com/klivvr/whisper/domain/request"
	"github.com/klivvr/whisper/domain/segment"
	"github.com/klivvr/whisper/domain/users"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// walk is one broadcast in this partition: its audience, how far it is, and its open deliveries. It
// costs nothing for users whose delivery is settled, some 8 bytes for one who waits to connect, and a
// [delivery] for one in flight.
//
// A slice is to a walk what a record is to a lane: its durable cursor moves past one only when each of its
// deliveries is settled or parked. A restart walks on from there, and what the facts tell (replay) keeps it
// from sending again what was dealt with.
type walk struct {
	id       domain.DeliveryID // of the notification and no user
	cursorID domain.DeliveryID
	ev       *whisperv1.Event // its BroadcastAccepted
	spec     *whisperv1.BroadcastAccepted
	acc      *whisperv1.DeliveryAccepted
	request  uint64
	trace    Trace
	source   LaneOffset

	paused bool
	// The request of the last pause or resume.
	steered *whisperv1.Position
	ended   whisperv1.BroadcastState // cancelled, expired, or unspecified
	ending  bool                     // what waits is ended now, slice by slice
	toEnd   []string                 // sorted
	toWake  []string                 // connected, after a pause

	begun     time.Time
	audience  int64
	changesAt int64
	connected bool     // it is for the first pass only
	first     []string // connected when it began, sorted: looked at before the others
	rest      bool     // they all were, `at` is one of the others
	at        string   // the last user of the pass who was looked at
	done      bool     // everyone was
	restored  bool     // some may have been dealt with beyond it
	again     bool     // replayed: it may have been walked before, since its offset had not been committed
	recounts  bool     // or counted against caps, and nothing sent
	counts    walkCounts
	unwalked  int64
	walkedAt  time.Time
	cursor    slice // everything up to here is settled or parked
	// How many records have the first pass, and how many there may be of it.
	firstRecords, firstWritten int

	slices    []*slice // open or behind an open one, in order
	flying    int      // deliveries of open slices
	serial    int64
	open      int    // deliveries that are held, in flight or parked
	held      linked // they
	users     *users.Table
	away      map[users.IDRef]struct{}
	scheduled map[users.IDRef]int64 // waits for its local time: Unix milliseconds
	times     map[int64][]users.IDRef
	replay    replay
	replayTo  string // the last user, in the walk's order, of whom replay tells

	texts   map[string]*sharedText
	wave    *wave // of the slice that is being walked
	flights int   // see flights
	bucket  bucket
	waits   time.Time // not to be walked on before
	segment *segment.Segment
	clock   localtime.Clock
	advance bool // the cursor moved, or progress is to be written

	due  time.Time // of one that is asleep: when its turn is
	slot slot
}

// walkCounts are a walk's numbers.
type walkCounts struct{ walked, matched, errors int64 }

// slice is a run of users that were walked together.
type slice struct {
	number int64
	open   int // deliveries neither settled nor parked
	at     string
	rest   bool
	done   bool
	counts walkCounts
}

// WalkSlice is how many users one step deals with at most. How long a broadcast keeps others waiting is bounded by the
// caller's clock ([WalkOn]). maxFlying and maxSlices bound what is in flight of it in a partition, and what a restart may
// have to walk again.
const (
	WalkSlice = 128
	maxFlying = 8_192
	maxSlices = 4_096
)

func (w *walk) note() string            { return w.ev.GetNotificationId() }
func (w *walk) lane() domain.Lane       { return domain.LaneOf(w.ev.GetLane()) }
func (w *walk) expires() time.Time      { return time.UnixMilli(w.acc.GetExpiresAtMs()) }
func (w *walk) over(now time.Time) bool { return !now.Before(w.expires()) }

// starts is when the walk may begin.
func (w *walk) starts() time.Time {
	if ms := w.acc.GetSendAtMs(); ms > 0 {
		return time.UnixMilli(ms)
	}
	return time.UnixMilli(w.acc.GetAcceptedAtMs())
}

func (s *State) rememberedWalk(w *walk) SeenDelivery {
	return SeenDelivery{
		Hash: w.id.Hash(), Request: w.request, AcceptedMs: w.id.Time().UnixMilli(), TakenMs: s.now.UnixMilli(), KeepMs: w.acc.GetExpiresAtMs(),
	}
}

// newWalk: the event was checked by [request.CheckBroadcast].
func newWalk(table *users.Table, ev *whisperv1.Event, trace Trace, source LaneOffset) *walk {
	spec := ev.GetBroadcastAccepted()
	id := domain.DeliveryID(ev.GetDeliveryId())
	w := &walk{
		id: id, ev: ev, spec: spec, acc: spec.GetAccepted(), trace: trace, source: source,
		cursorID: domain.NewDeliveryID(id.Time(), domain.HashDelivery(ev.GetNotificationId(), cursorMark)),
		request:  FingerprintRequest(spec.GetAccepted().GetRequest()),
		users:    table, away: map[users.IDRef]struct{}{}, scheduled: map[users.IDRef]int64{}, times: map[int64][]users.IDRef{},
		texts: map[string]*sharedText{},
	}
	w.bucket.rate = spec.GetRate() / float64(max(spec.GetPartitions(), 1))
	// Intake has compiled both; a later version's, which this one can't, means nobody.
	w.segment, _ = segment.Compile(request.SegmentOf(spec))
	w.connected = spec.GetConnected()
	w.clock, _ = localtime.ParseClock(spec.GetSendAtLocal())
	return w
}

// No user id has a control character, so these hash to what no delivery can be.
const (
	cursorMark = "\x01cursor"
	cancelMark = "\x01cancel"
	firstMark  = "\x01first"
)

// broadcast takes the partition's share of a broadcast. It is parked at once, so that its offset is let go.
func (s *State) broadcast(in BroadcastArrived) {
	w := newWalk(s.users, in.Event, in.Trace, in.Source)
	first, ours := s.dedupe.lookup(w.id.Hash(), w.request, w.id.Time())
	if held := s.broadcasts.get(w.note()); held != nil { // also for longer than the window
		first, ours = s.rememberedWalk(held), true
	}
	if ours {
		if first.Request != w.request {
			s.emitWalk(w, &whisperv1.Event{Kind: &whisperv1.Event_BroadcastDropped{BroadcastDropped: &whisperv1.BroadcastDropped{
				Request: w.acc.GetRequest(), Reason: domain.ReasonDuplicate,
			}}})
			s.put(Settle{Source: in.Source})
			return
		}
		s.put(Settle{Source: in.Source, Seen: &first})
		return
	}
	seen := s.rememberedWalk(w)
	s.dedupe.add(seen)
	w.paused = s.aside.has(w.id, w.note())
	if r, told := s.replay[w.id.Hash()]; told {
		w.again = r.at.Equal(w.id.Time())
	}
	s.broadcasts.add(w)
	s.parkWalk(w)
	s.announce(w)
	if s.wasCancelled(w.note(), w.id.Time()) {
		s.endWalk(w, whisperv1.BroadcastState_BROADCAST_STATE_CANCELLED)
	}
	s.put(Settle{Source: in.Source, Seen: &seen})
}

// parkWalk writes the walk as it was asked for and steered; how far it is has a record of its own.
func (s *State) parkWalk(w *walk) {
	p := &whisperv1.Parked{
		Traceparent: w.trace.Parent, Tracestate: w.trace.State, Offset: w.source.Offset,
		Walk: &whisperv1.Walk{
			Accepted: w.ev, Paused: w.paused, Audience: w.audience, ChangesOffset: w.changesAt,
			FirstRecords: int32(w.firstRecords), Steered: w.steered,
		},
	}
	if !w.begun.IsZero() {
		p.Walk.StartedMs = w.begun.UnixMilli()
	}
	s.put(Park{ID: w.id, Parked: p})
}

// cursorOf is what is to be parked when Kafka has everything up to the walk's cursor.
func (w *walk) cursorOf() *whisperv1.Parked {
	c := &whisperv1.Cursor{
		Broadcast: w.id[:], User: w.cursor.at, Rest: w.cursor.rest, Done: w.cursor.done,
		Walked: w.cursor.counts.walked, Matched: w.cursor.counts.matched, SegmentErrors: w.cursor.counts.errors,
	}
	c.Ended = w.ended
	if w.cursor.done {
		c.Unwalked = w.unwalked
		if !w.walkedAt.IsZero() {
			c.WalkedMs = w.walkedAt.UnixMilli()
		}
	}
	return &whisperv1.Parked{Cursor: c}
}

func (w *walk) state(now time.Time) whisperv1.BroadcastState {
	switch {
	case w.ended != whisperv1.BroadcastState_BROADCAST_STATE_UNSPECIFIED:
		return w.ended
	case w.paused:
		return whisperv1.BroadcastState_BROADCAST_STATE_PAUSED
	case w.done:
		return whisperv1.BroadcastState_BROADCAST_STATE_WALKED
	case w.begun.IsZero() && now.Before(w.starts()):
		return whisperv1.BroadcastState_BROADCAST_STATE_SCHEDULED
	default:
		return whisperv1.BroadcastState_BROADCAST_STATE_RUNNING
	}
}

// progressed says how far the walk is.
func (s *State) progressed(w *walk, settled bool) *whisperv1.Event {
	p := &whisperv1.BroadcastProgressed{
		State: w.state(s.now), Settled: settled, Audience: w.audience, Unwalked: w.unwalked,
		Walked: w.counts.walked, Matched: w.counts.matched, SegmentErrors: w.counts.errors,
	}
	if !w.begun.IsZero() {
		p.StartedMs = w.begun.UnixMilli()
	}
	if !w.walkedAt.IsZero() {
		p.WalkedMs = w.walkedAt.UnixMilli()
	}
	return s.walkEvent(w, &whisperv1.Event{Kind: &whisperv1.Event_BroadcastProgressed{BroadcastProgressed: p}})
}

// announce tells, before anything else, what the broadcast is: its deliveries have no accepted fact of their own.
func (s *State) announce(w *walk) {
	ev := s.progressed(w, false)
	spec := proto.CloneOf(w.spec)
	spec.Accepted.Content, spec.Accepted.Variables = nil, nil
	ev.GetBroadcastProgressed().Broadcast = spec
	s.put(Emit{Event: ev, Trace: w.trace})
}

// Progress is how far a broadcast is now, for people: nil where it came to its end, of which a fact tells.
func (s *State) Progress(broadcast domain.DeliveryID) *whisperv1.Event {
	w := s.broadcasts.byID(broadcast)
	if w == nil {
		return nil
	}
	s.cause = w.acc.GetRequest()
	return s.progressed(w, false)
}

func (s *State) progress(w *walk) { s.put(Emit{Event: s.progressed(w, false), Trace: w.trace}) }

func (s *State) walkEvent(w *walk, ev *whisperv1.Event) *whisperv1.Event {
	ev.DeliveryId, ev.NotificationId, ev.Lane = w.id[:], w.note(), w.ev.GetLane()
	ev.AtUs, ev.Cause = s.now.UnixMicro(), s.causedBy()
	return ev
}

func (s *State) emitWalk(w *walk, ev *whisperv1.Event) {
	s.put(Emit{Event: s.walkEvent(w, ev), Trace: w.trace})
}

// tidyWalks lets go of slices that nothing depends on any more, and of walks. It ends every decision.
func (s *State) tidyWalks() {
	for i := 0; i < len(s.broadcasts.awake); i++ {
		w := s.broadcasts.awake[i]
		for len(w.slices) > 0 && w.slices[0].open == 0 {
			w.cursor, w.advance = *w.slices[0], true
			w.slices = w.slices[1:]
		}
		if w.advance {
			w.advance = false
			a := Advanced{Broadcast: w.id, Slice: w.cursor.number, CursorID: w.cursorID, Cursor: w.cursorOf()}
			if w.cursor.done {
				a.FirstIDs = w.firstIDs()
			}
			s.put(a)
		}
		if w.done && len(w.slices) == 0 && w.open == 0 && len(w.away) == 0 && len(w.scheduled) == 0 {
			s.put(Emit{Event: s.progressed(w, true), Trace: w.trace})
			s.keepAudience(w)
			s.put(Finished{Broadcast: w.id, CursorID: w.cursorID, FirstIDs: w.firstIDs()})
			if seen, late := s.dedupe.end(s.rememberedWalk(w), s.now); late {
				s.put(Remember{Seen: seen})
			}
			s.broadcasts.remove(w)
			i--
		} else if s.broadcasts.sleep(w, s.now) {
			i--
		}
	}
}
