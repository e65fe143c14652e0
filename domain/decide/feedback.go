package decide

import (
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// fact takes feedback from whisper.events. Facts come at least once and in any order between writers;
// one about a delivery that is not held any more changes nothing.
func (s *State) fact(ev *whisperv1.Event) {
	id, err := domain.DeliveryIDFromBytes(ev.GetDeliveryId())
	if err != nil {
		return // not ours to judge; projections dead-letter it
	}
	switch k := ev.GetKind().(type) {
	case *whisperv1.Event_DeliveryRetracted:
		s.pushRetracted(ev, k.DeliveryRetracted)
		return
	case *whisperv1.Event_RetractFailed:
		s.silentPushFailed(ev, k.RetractFailed)
		return
	}
	s.retractPush(ev)
	d := s.deliveries.get(id.Hash())
	if d != nil && !d.about(id) {
		d = nil // of an earlier delivery under the same notification id
	}
	if failed := ev.GetAttemptFailed(); failed.GetClass() == whisperv1.FailureClass_FAILURE_CLASS_PRUNE {
		s.prune(ev, failed)
	}
	if ev.GetDeliveryRead() != nil && s.smart {
		s.countRead(ev)
	}
	if d == nil {
		if !s.walkFact(id, ev) {
			s.replay.keep(id.Hash(), ev)
		}
		return
	}
	s.busy = busy{delivery: d}
	if d.all {
		if d = s.legOf(d, ev); d == nil {
			return // of a channel that was dealt with
		}
	}
	switch k := ev.GetKind().(type) {
	case *whisperv1.Event_DeliverySent:
		s.sent(d, k.DeliverySent)
	case *whisperv1.Event_DeliveryRead:
		s.readBy(d, ev)
	case *whisperv1.Event_DeliveryDelivered:
		s.settle(d)
	case // Our own word, from before a restart that came between the fact and its settling.
		*whisperv1.Event_DeliveryFailed, *whisperv1.Event_DeliverySuppressed, *whisperv1.Event_DeliveryExpired,
		*whisperv1.Event_DeliveryCancelled:
		s.settleAll(d)
	case *whisperv1.Event_AttemptFailed:
		s.attemptFailed(d, ev, k.AttemptFailed)
	case *whisperv1.Event_DeliveryAccepted, *whisperv1.Event_DeliveryScheduled, *whisperv1.Event_DeliveryDeferred,
		*whisperv1.Event_DuplicateDropped, *whisperv1.Event_EndpointPruned, *whisperv1.Event_CancelRequested,
		*whisperv1.Event_BroadcastAccepted, *whisperv1.Event_BroadcastProgressed, *whisperv1.Event_BroadcastDropped,
		*whisperv1.Event_PauseRequested, *whisperv1.Event_ResumeRequested, *whisperv1.Event_RetractRequested,
		*whisperv1.Event_DeliveryRetracted, *whisperv1.Event_RetractFailed,
		*whisperv1.Event_UserErased:
	default: // a later version's
	}
}

// socketFact is fact of what it decides the same about by the id alone; the others are decoded.
func (s *State) socketFact(in *SocketFactArrived) {
	if s.flightFact(in.Fact) {
		return
	}
	d := s.deliveries.get(in.Fact.ID.Hash())
	if d == nil || d.all || !d.about(in.Fact.ID) {
		ev := &whisperv1.Event{}
		if err := proto.Unmarshal(in.Value, ev); err == nil { // always: it was read
			s.fact(ev)
		}
		return
	}
	s.busy = busy{delivery: d}
	if in.Fact.Delivered {
		s.settle(d)
	} else {
		s.socketSent(d)
	}
}

// prune removes a dead endpoint, unless it was registered again since.
func (s *State) prune(ev *whisperv1.Event, k *whisperv1.AttemptFailed) {
	profile := s.profile(ev.GetUserId())
	since := k.GetInvalidSinceMs()
	if since == 0 {
		since = ev.GetAtUs() / 1000
	}
	i := slices.IndexFunc(profile.GetEndpoints(), func(e *whisperv1.Endpoint) bool {
		return e.GetName() == k.GetEndpoint() && e.GetChannel() == k.GetChannel() && e.GetRegisteredAtMs() <= since
	})
	if i < 0 {
		return
	}
	pruned := proto.CloneOf(profile)
	pruned.Endpoints = slices.Delete(pruned.Endpoints, i, i+1)
	s.putUser(ev.GetUserId(), pruned, s.claims(ev.GetUserId(), profile, pruned)...)
	s.put(Emit{Event: &whisperv1.Event{
		DeliveryId: ev.GetDeliveryId(), NotificationId: ev.GetNotificationId(), UserId: ev.GetUserId(),
		Lane: ev.GetLane(), AtUs: s.now.UnixMicro(), Cause: s.causedBy(),
		Kind: &whisperv1.Event_EndpointPruned{EndpointPruned: &whisperv1.EndpointPruned{
			Endpoint: k.GetEndpoint(), Channel: k.GetChannel(), Reason: k.GetReason(),
		}},
	}})
}

// presenceChanged follows who is connected where, and wakes what waited.
func (s *State) presenceChanged(in PresenceChanged) {
	m := s.presence.change(in)
	switch {
	case m.rewrite:
		s.put(m.now.record(in.User))
	case m.left:
		s.left(in.User, m.over.node, m.over.incarnation)
	case m.replaced:
		s.unreachable(s.deliveries.of(in.User), m.over.node, m.over.incarnation)
	}
	if m.opened {
		s.wake(in.User, m.now)
		s.tellOpened(in.User, m.now)
	}
}

// wake sends what waits for the user, oldest first, and again what was not acknowledged.
func (s *State) wake(user string, opened place) {
	s.wakeWalks(user)
	for _, lane := range domain.Lanes {
		if !s.deliveries.ready.waits(userLane{user, lane}) {
			continue
		}
		var of []*delivery
		for _, d := range s.deliveries.of(user) {
			if d.source.Lane == lane && s.wakeable(d) {
				of = append(of, d)
			}
		}
		if len(of) > 0 {
			s.deliveries.ready.addFirst(of)
		}
	}
	for _, d := range slices.Clone(s.deliveries.of(user)) {
		s.busy = busy{delivery: d}
		switch reaction := d.reacts(connected); {
		case !s.deliveries.holds(d): // another one of them came in its place
		case reaction == toSocket && s.wakeable(d):
			if s.mayWake(d) {
				s.wakeUp(d)
			}
		case reaction == alsoThere && !d.pushTook:
			// It is on its way to other sessions; this one gets it too, and the first to acknowledge counts.
			if s.judge(s.ask(d)).action != send {
				continue
			}
			if !s.render(d, domain.ChannelSocket) { // after a restart it may not be rendered yet
				continue
			}
			others := slices.DeleteFunc(slices.Clone(d.waiting), func(w waiting) bool { return w.push() || w.node == opened.node })
			s.sendSocket(d, []place{opened}, opened.latest)
			d.waiting = append(d.waiting, others...)
		}
	}
}

// wakeable: it waits, for a push's answer as well, and a socket may take it. Nobody knows when that answer comes: a push
// role may be behind, or down.
func (s *State) wakeable(d *delivery) bool {
	return d.reacts(connected) == toSocket && d.usesSocket() && !d.pushTook && !d.expired(s.now)
}

// nodeChanged follows which nodes live. Users of a node that died or started again are routed anew.
func (s *State) nodeChanged(in NodeChanged) {
	before := s.presence.changeNode(in)
	if before == in.Incarnation {
		return
	}
	if before != 0 {
		s.unreachable(s.deliveries.onNode(in.Node, before), in.Node, before)
	}
	if in.Incarnation == 0 {
		return
	}
	// Presence may have been read before the heartbeat that makes it count.
	here := s.presence.usersOn(in.Node, in.Incarnation)
	for _, w := range s.broadcasts.awake {
		if w.reacts(userConnects) == sends {
			w.addToWake(w.awayOf(here))
		}
	}
	for _, d := range s.firstWakeable(here) {
		if at, on := s.presence.on(d.user(), in.Node, in.Incarnation); on {
			s.wake(d.user(), at)
		}
	}
}

// firstWakeable is the first delivery of each of the users that waits for its user, in order.
func (s *State) firstWakeable(users []string) (first []*delivery) {
	for _, user := range users {
		of := s.deliveries.of(user)
		if i := slices.IndexFunc(of, s.wakeable); i >= 0 {
			first = append(first, of[i])
		}
	}
	slices.SortFunc(first, compareArrival)
	return first
}

// left: the user closed the last session on a node. An acknowledgement may be on its way, since it goes
// over another topic than presence; only when it does not come soon is the next channel tried.
func (s *State) left(user, node string, incarnation uint64) {
	for _, d := range s.deliveries.of(user) {
		if d.reacts(disconnected) != hurry {
			continue
		}
		others := slices.ContainsFunc(d.waiting, func(w waiting) bool {
			return !w.push() && (w.node != node || w.incarnation != incarnation)
		})
		if soon := s.now.Add(s.policy.AckGrace); !others && d.due.After(soon) {
			s.deliveries.schedule(d, soon)
		}
	}
}

// unreachable gives up the attempts that wait on a node's incarnation.
func (s *State) unreachable(deliveries []*delivery, node string, incarnation uint64) {
	for _, d := range slices.Clone(deliveries) {
		if d.reacts(nodeDied) != giveUp {
			continue
		}
		s.busy = busy{delivery: d}
		before := len(d.waiting)
		d.waiting = slices.DeleteFunc(d.waiting, func(w waiting) bool { return w.node == node && w.incarnation == incarnation })
		if len(d.waiting) < before && !d.openSockets() {
			s.answered(d, false)
		}
	}
}

// readBy takes a read of d: it settles d if the node held the attempt, or if an attempt may have reached the user. Any
// other read is of something else (a guess, or an earlier delivery of the same id), and changes nothing. One that is quicker
// than the attempt's fact, which a node holds for up to a second, costs one more send.
//
// While facts from before a restart are read again, a restored delivery was handed out already, whatever came first: a
// read that was made up before its attempt would count now. So only proven ones do; that, too, costs one more send.
func (s *State) readBy(d *delivery, ev *whisperv1.Event) {
	handedOut := s.replay == nil && (d.handedOut() || d.legs.handedOut())
	if domain.ProvenRead(ev) || handedOut {
		s.settleAll(d)
	}
}

// handedOut: an attempt may have reached the user.
func (d *delivery) handedOut() bool { return d.socketTook || d.pushTook || d.doubtful }

// about says whether a fact with this id is about d. A fact without a time is about whatever has the same hash.
func (d *delivery) about(id domain.DeliveryID) bool { return id == d.id || id.Timeless() }
