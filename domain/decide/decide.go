package decide

import (
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/profile"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// Decide folds one input into the state and says what is to be written because of it. It is
// deterministic in (state, input, now). The outputs are valid until the next call.
func (s *State) Decide(in Input, now time.Time) []Output {
	s.begin(now)
	switch in := in.(type) {
	case DeliveryArrived:
		s.cause = in.Cause
		s.arrive(in)
	case CancelArrived:
		s.cause = in.Cause
		s.cancel(in)
	case BroadcastArrived:
		s.cause = in.Cause
		s.broadcast(in)
	case SteeringArrived:
		s.cause = in.Cause
		s.steer(in)
	case WalkOn:
		s.timeBox.over, s.timeBox.wide = in.Over, in.Wide
		s.walkOn(in.Lane)
	case FactArrived:
		s.cause = in.Cause
		s.fact(in.Event)
	case *SocketFactArrived:
		s.seen = in
		s.socketFact(in)
	case FactRecalled:
		s.cause = in.Cause
		if _, err := domain.DeliveryIDFromBytes(in.Event.GetDeliveryId()); err == nil {
			s.retractPush(in.Event)
		}
	case RecallRead:
		s.recalled(in.Notification)
	case PresenceChanged:
		s.presenceChanged(in)
	case NodesSwept:
		for _, ended := range s.presence.sweep(in) {
			s.put(ended)
		}
	case NodeChanged:
		s.nodeChanged(in)
	case ProfilePatched:
		s.profilePatched(in)
	case ClaimArrived:
		s.claimArrived(in)
	case TemplateChanged:
		s.templates.change(in)
	case CategoryChanged:
		s.categoryChanged(in)
	case TemplatesRead:
		s.templates.read(in.Next)
	case TimePassed:
		s.timePassed()
	}
	s.tidyWalks()
	s.busy = busy{} // what comes of the outputs is nobody's
	return s.out
}

// begin begins a decision, or what a restore does at a time.
func (s *State) begin(now time.Time) {
	s.decision.begin(now)
	if s.broadcasts.restoring != nil || s.broadcasts.restoringAway != nil {
		s.users.Sort()
		s.restoreWalks()
		s.busy = busy{}
	}
}

// arrive takes a delivery: the list of checks, in their order.
func (s *State) arrive(in DeliveryArrived) {
	ev, acc := in.Event, in.Event.GetDeliveryAccepted()
	id := domain.DeliveryID(ev.GetDeliveryId())
	request := FingerprintRequest(acc.GetRequest())
	s.endDigested(in.Event) // also of a digest that comes twice

	// 1. Is it ours already? Redelivered by Kafka or by intake: nothing. Asked for again: say so.
	first, ours := s.dedupe.lookup(id.Hash(), request, id.Time())
	if held := s.deliveries.get(id.Hash()); held != nil { // also for longer than the window
		first, ours = s.remembered(held), true
	}
	if ours {
		if first.Request != request {
			s.duplicate(in, first.ID())
			s.put(Settle{Source: in.Source})
			return
		}
		s.put(Settle{Source: in.Source, Seen: &first})
		return
	}
	// Is the id a broadcast's? One that was asked for later can only be known here already because we are being
	// restored, and then this delivery was in flight.
	if all, taken := s.dedupe.lookup(domain.HashDelivery(ev.GetNotificationId(), ""), request, id.Time()); taken &&
		(s.replay == nil || acc.GetAcceptedAtMs() >= all.AcceptedMs) {
		s.duplicate(in, domain.NewDeliveryID(time.UnixMilli(all.AcceptedMs), id.Hash()))
		s.put(Settle{Source: in.Source})
		return
	}
	d := &delivery{id: id, request: request, ev: ev, acc: acc, trace: in.Trace, source: in.Source}
	s.busy = busy{delivery: d}
	d.recount = s.counts.before(d.user(), id.Hash())
	s.dedupe.add(s.remembered(d))
	s.deliveries.add(d)

	if s.aside.has(id, ev.GetNotificationId()) {
		s.emit(d, internalFailure())
		s.settle(d)
		return
	}
	// 2. Was it in flight when the partition was let go? Then go on from what the events tell.
	r, begun := s.replay[id.Hash()]
	if begun = begun && r.at.Equal(id.Time()); begun {
		s.settleChannels(d)
		if r.settled && (!d.all || r.ended) {
			s.settle(d)
			return
		}
		d.attempt, d.socketTook = r.attempt, r.socketSent
		if !d.all && r.socketSent && !d.expired(s.now) && d.usesSocket() {
			d.phase, d.step = whisperv1.Phase_PHASE_SENDING, d.socketStep()
			s.deliveries.schedule(d, time.UnixMicro(r.sentUS).Add(s.ackTimeout(d)))
			return
		}
	}
	if s.wasCancelled(ev.GetNotificationId(), id.Time()) {
		s.emit(d, &whisperv1.Event{Kind: &whisperv1.Event_DeliveryCancelled{DeliveryCancelled: &whisperv1.DeliveryCancelled{}}})
		s.settle(d)
		return
	}
	if begun && d.all && !r.waits() {
		s.takeUpLegs(d, r)
		return
	}
	s.advance(d) // the rest of the checks, see [Checks]
}

func (s *State) duplicate(in DeliveryArrived, id domain.DeliveryID) {
	acc := in.Event.GetDeliveryAccepted()
	s.put(Emit{Trace: in.Trace, Event: &whisperv1.Event{
		DeliveryId:     id[:],
		NotificationId: in.Event.GetNotificationId(),
		UserId:         in.Event.GetUserId(),
		Lane:           in.Event.GetLane(),
		AtUs:           s.now.UnixMicro(),
		Cause:          s.causedBy(),
		Kind: &whisperv1.Event_DuplicateDropped{DuplicateDropped: &whisperv1.DuplicateDropped{
			Request: acc.GetRequest(), Recipients: acc.GetRecipients(), RequestedAtMs: acc.GetAcceptedAtMs(),
		}},
	}})
}

func (s *State) expire(d *delivery) {
	if d.pushTook {
		s.settle(d)
		return
	}
	reason := domain.ReasonTTL
	if held := heldReason(d.phase); held != "" {
		reason = held
	}
	if d.socketTook || d.legs.unacknowledged() {
		reason = domain.ReasonUnacknowledged
	}
	s.end(d, &whisperv1.Event{Kind: &whisperv1.Event_DeliveryExpired{DeliveryExpired: &whisperv1.DeliveryExpired{Reason: reason}}})
}

// DueSlice is how many deliveries one TimePassed looks at. More may be due at once (a campaign, the end of
// an outage): [State.NextDue] is then still in the past, and what is more urgent gets its turn between.
const DueSlice = 256

// timePassed looks at what is due, a slice at a time.
func (s *State) timePassed() {
	for range s.policy.dueSlice() {
		d, passed := s.deliveries.passed(s.now)
		if !passed {
			break
		}
		s.busy = busy{delivery: d}
		if d.expired(s.now) {
			s.expire(d)
			continue
		}
		if d.readyTo != notReady { // which comes
			s.deliveries.ready.add(d, readyToGo)
			s.deliveries.schedule(d, d.expires())
			continue
		}
		if d.rulesChanged && s.early(d) {
			continue
		}
		s.due(d)
	}
	s.serveReady()
	s.retractionsDue()
	s.forgetRetractions()
	s.forgetCounts()
	s.forgetReleases()
	s.dedupe.forget(s.now)
	s.forgetAudiences()
	for _, seen := range s.dedupe.rewrite(s.now) {
		if !s.heldHash(seen.Hash) { // what is held is known by its own record, and written again at its end
			s.put(Remember{Seen: seen})
		}
	}
}

func (s *State) profilePatched(in ProfilePatched) {
	s.changesAt = max(s.changesAt, in.Offset)
	if in.Patch == nil {
		s.erase(in.User, in.Offset)
		return
	}
	if in.Moved != nil {
		s.tokenMoved(in)
		return
	}
	old := s.profile(in.User)
	patch, err := profile.ParsePatch(in.Patch)
	if err != nil {
		s.put(Reject{Reason: err})
		return
	}
	merged, err := profile.Apply(old, patch, in.At, in.Offset)
	if err != nil {
		s.put(Reject{Reason: err})
	}
	if merged == old {
		// A redelivery. The process before may have come to its end between the profile and what followed from it.
		s.claimAgain(in.User, old, in.At)
		s.reconsider(in.User, true)
		return
	}
	s.putUser(in.User, merged, s.claims(in.User, old, merged)...)
	s.reconsider(in.User, gainsEndpoint(old, merged))
}

// putUser takes over p.
func (s *State) putUser(user string, p *whisperv1.Profile, claims ...PutClaim) {
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(p)
	if err != nil {
		return // intake lets only UTF-8 through
	}
	s.users.PutProfile(user, encoded)
	s.putReleasing(user, p, claims)
}

// putReleasing writes a user (p nil: an erased one) with its claims, and what it is releasing.
func (s *State) putReleasing(user string, p *whisperv1.Profile, claims []PutClaim) {
	told := s.release(user, claims)
	if due := s.tokens.releasing[user]; p != nil || len(due) > 0 {
		if p == nil {
			p = &whisperv1.Profile{Erased: true, ChangesOffset: s.changesAt}
		}
		p.Releases = slices.Clone(due)
	}
	s.put(PutUser{User: user, Profile: p, Claims: claims})
	if told != nil {
		s.put(*told)
	}
}

// emit completes a fact about d.
func (s *State) emit(d *delivery, ev *whisperv1.Event) {
	ev.DeliveryId = d.id[:]
	ev.NotificationId = d.ev.GetNotificationId()
	ev.UserId = d.user()
	ev.Lane = d.ev.GetLane()
	ev.AtUs = s.now.UnixMicro()
	ev.Cause = s.causedBy()
	s.put(Emit{Event: ev, Trace: d.trace})
}

// park writes d as it is now to the timers and lets its offset go.
func (s *State) park(d *delivery) {
	p := d.legs.parked()
	if d.legs == nil {
		p = d.parkedForm()
	}
	p.Accepted, p.Traceparent, p.Tracestate, p.Offset = d.ev, d.trace.Parent, d.trace.State, d.source.Offset
	if d.walk != nil {
		p.Accepted, p.Traceparent, p.Tracestate, p.Offset = nil, "", "", 0
		p.Broadcast, p.UserId = d.walk.id[:], d.user()
	}
	s.put(Park{ID: d.id, Parked: p})
	if !d.parked {
		s.deliveries.park(d)
		for _, leg := range d.legs.others(d) {
			s.deliveries.park(leg)
			leg.leaveSlice()
		}
		if d.walk != nil {
			d.leaveSlice()
			return
		}
		seen := s.remembered(d)
		s.put(Settle{Source: d.source, Seen: &seen})
	}
}

// parkedForm is where d stands.
func (d *delivery) parkedForm() *whisperv1.Parked {
	p := &whisperv1.Parked{
		Phase: d.phase, DueMs: d.due.UnixMilli(), Attempt: d.attempt, Step: d.step, Tries: d.tries, AllChannels: d.all,
	}
	parkAttempts(p, d)
	parkPolicy(p, d)
	return p
}

// end tells how d ended without reaching anybody, and forgets it. Of several legs the last one tells, if none did reach.
func (s *State) end(d *delivery, fact *whisperv1.Event) {
	if !s.othersContinue(d) {
		s.emit(d, fact)
	}
	s.forget(d)
}

// settle forgets d, which was taken, or acknowledged, or whose end was told.
func (s *State) settle(d *delivery) {
	if d.legs != nil {
		s.legReached(d)
	}
	s.forget(d)
}

// forget: nothing more will be done about d.
func (s *State) forget(d *delivery) {
	if len(d.legs.others(d)) > 0 {
		s.leaveLegs(d)
		s.parkAgain(d.legs.held[0])
		return
	}
	s.deliveries.drop(d, d.id.Hash())
	if d.walk != nil {
		d.walk.open--
		d.walk.skip(d.user(), d.id.Hash())
		d.leaveSlice()
	}
	if d.parked {
		s.put(Unpark{ID: d.id})
	}
	if d.walk != nil { // the window knows its broadcast
		return
	}
	seen, late := s.dedupe.end(s.remembered(d), s.now)
	switch {
	case !d.parked:
		s.put(Settle{Source: d.source, Seen: &seen})
	case late:
		s.put(Remember{Seen: seen})
	}
}
