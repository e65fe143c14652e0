package decide

import (
	"slices"
	"time"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// advance makes the next attempt, unless a check has something against it now.
func (s *State) advance(d *delivery) {
	s.busy = busy{delivery: d}
	s.noteReady(d)
	if !s.permit(d) {
		return
	}
	if waits, went := s.behind(d); waits || went && !s.permit(d) {
		return
	}
	if d.all && d.legs == nil {
		s.advanceLegs(s.split(d))
	} else {
		s.try(d)
	}
}

// try tries the channels from where d stands; the first that can be tried is.
func (s *State) try(d *delivery) {
	d.waiting = slices.DeleteFunc(d.waiting, func(w waiting) bool { return w.unmade })
	for ; int(d.step) < len(d.channels()); d.step++ {
		switch channel := d.channel(); {
		case d.denied.Has(channel):
		case channel == domain.ChannelSocket:
			if ready := s.render(d, channel); !ready {
				return
			}
			if live := s.presence.live(d.user()); len(live) > 0 {
				s.sendSocket(d, live, "")
				return
			}
		case d.openPushes():
			s.awaitPushes(d)
			return
		case d.pushTook:
		default:
			ready, sent := s.sendPush(d, channel)
			if !ready || sent {
				return
			}
		}
		d.tries = 0
	}
	s.exhausted(d)
}

// exhausted: no channel is left to try now. What may still reach the user is waited for: the answer of a push, its next
// try, a connection. Otherwise it ends.
func (s *State) exhausted(d *delivery) {
	switch {
	case d.openPushes():
		s.awaitPushes(d)
		return
	case d.pushTook:
		s.settle(d)
		return
	case s.owesPush(d): // its turn was given to a socket that nobody answers at
		d.dropSockets()
		d.step = d.pushStep()
		s.backoff(d, latest(d.pushAfter, s.now.Add(s.policy.Retry.Delay(d.id, d.tries))), domain.ReasonRetry)
		return
	case d.usesSocket():
		s.await(d)
		return
	}
	if d.attempt == 0 && !d.lacking && d.walk == nil { // a broadcast is for the users that there are
		d.lacking, d.phase = true, whisperv1.Phase_PHASE_BACKOFF
		d.step = d.pushStep()
		s.deliveries.schedule(d, s.now.Add(s.policy.EndpointWait))
		return
	}
	if d.legs.active(d) {
		s.idle(d)
		return
	}
	if d.attempt > 0 {
		s.failed(d, d.lastReason)
		return
	}
	reason := domain.ReasonNoEndpoint
	if _, known := s.users.Profile(d.user()); !known {
		reason = domain.ReasonUnknownUser
	}
	s.end(d, &whisperv1.Event{Kind: &whisperv1.Event_DeliverySuppressed{DeliverySuppressed: &whisperv1.DeliverySuppressed{Reason: reason}}})
}

func (s *State) failed(d *delivery, reason string) {
	s.end(d, &whisperv1.Event{Kind: &whisperv1.Event_DeliveryFailed{DeliveryFailed: &whisperv1.DeliveryFailed{Reason: reason}}})
}

// await parks d until the user connects; who is connected and does not acknowledge is sent it again
// after a while.
func (s *State) await(d *delivery) {
	d.waiting = d.waiting[:0]
	if len(s.presence.live(d.user())) > 0 {
		// Back to the socket: its acknowledgement may have been lost with the frame. The attempts say how
		// often that was; the tries are those of one channel and begin anew with each.
		d.step = d.socketStep()
		s.backoff(d, s.now.Add(s.policy.Resend.Delay(d.id, d.resends())), domain.ReasonUnacknowledged)
		return
	}
	d.phase, d.step = whisperv1.Phase_PHASE_AWAY, d.socketStep()
	why := &whisperv1.DeliveryDeferred{Reason: domain.ReasonAway}
	s.emit(d, &whisperv1.Event{Kind: &whisperv1.Event_DeliveryDeferred{DeliveryDeferred: why}})
	s.deliveries.schedule(d, d.expires())
	s.park(d)
}

// backoff waits to try d's channel again; longer waits are parked, shorter ones hold the offset.
func (s *State) backoff(d *delivery, until time.Time, reason string) {
	d.phase = whisperv1.Phase_PHASE_BACKOFF
	d.tries++
	d.retry = false
	s.emit(d, &whisperv1.Event{Kind: &whisperv1.Event_DeliveryDeferred{DeliveryDeferred: &whisperv1.DeliveryDeferred{
		Reason:  reason,
		UntilMs: until.UnixMilli(),
	}}})
	s.deliveries.schedule(d, until)
	if d.parked || until.Sub(s.now) > s.policy.HoldBack/2 {
		s.park(d)
	}
}

// resends is how often d was sent again over a socket. A leg does not count the attempts of other legs, whose numbering it
// shares.
func (d *delivery) resends() int32 {
	if d.legs != nil {
		return d.tries
	}
	return d.attempt - 1
}

func (d *delivery) socketStep() int32 {
	for i, c := range d.channels() {
		if c == domain.ChannelSocket {
			return int32(i)
		}
	}
	return 0
}

// sendSocket routes one attempt to every node that holds the user, or only to one session.
func (s *State) sendSocket(d *delivery, to []place, session string) {
	frame, err := s.frame(d)
	if err != nil {
		s.failed(d, err.Error())
		return
	}
	s.count(d)
	if d.phase != whisperv1.Phase_PHASE_SENDING || d.sending.IsZero() {
		d.sending = s.now
	}
	d.nextAttempt()
	d.phase = whisperv1.Phase_PHASE_SENDING
	d.dropSockets()
	for _, p := range to {
		d.waiting = append(d.waiting, waiting{attempt: d.attempt, node: p.node, incarnation: p.incarnation})
		s.put(RouteTo{Node: p.node, User: d.user(), Trace: d.trace, Route: &whisperv1.Route{
			DeliveryId:     d.id[:],
			NotificationId: d.ev.GetNotificationId(),
			Lane:           d.ev.GetLane(),
			Attempt:        d.attempt,
			Incarnation:    p.incarnation,
			Session:        session,
			ExpiresAtMs:    d.acc.GetExpiresAtMs(),
			Frame:          frame,
			ExplicitAck:    s.explicitAck(d.acc.GetCategory()),
			DueMs:          d.dueMs(),
		}})
	}
	// A new session has its time to acknowledge, but who connects again and again is on a bad network: that
	// must neither keep the next channel from its turn nor the offset from being let go.
	timeout := s.ackTimeout(d)
	last := d.sending.Add(timeout + s.policy.HoldBack)
	if at := s.now.Add(timeout); at.Before(last) {
		last = at
	}
	s.deliveries.schedule(d, last)
}

// frame is what a socket is sent of d. All deliveries of a broadcast without a template share one.
func (s *State) frame(d *delivery) ([]byte, error) {
	if d.walk != nil && d.acc.GetTemplate() == "" {
		if text := s.sharedText(d.walk, ""); text != nil {
			return text.frame, nil
		}
	}
	return domain.NotificationFrame(d.ev.GetNotificationId(), d.lane(), d.acc, d.content)
}

// sendFromSocket sends to all the user's sessions, whatever d waited for.
func (s *State) sendFromSocket(d *delivery) {
	s.busy = busy{delivery: d}
	s.settleChannels(d)
	d.step = d.socketStep()
	s.advance(d)
}

// sendPush makes one attempt for each of the user's endpoints of the channel; sent is false if there is none. Every
// text is rendered before the first is handed out: ready is false where one of them can't be, or not yet.
func (s *State) sendPush(d *delivery, channel string) (ready, sent bool) {
	if ready := s.render(d, channel); !ready {
		return false, false
	}
	if d.outlook == pushRefused {
		return true, false
	}
	var to []*whisperv1.Endpoint
	profile := s.profile(d.user())
	for _, e := range profile.GetEndpoints() {
		if !pushes(channel, e, d.denied) || sameDevice(to, e) {
			continue
		}
		if ready := s.render(d, e.GetChannel()); !ready {
			return false, false
		}
		to = append(to, e)
	}
	if len(to) > 0 && d.pushAfter.After(s.now) {
		s.backoff(d, d.pushAfter, domain.ReasonRetry)
		return true, true
	}
	d.dropSockets()
	if len(to) > 0 {
		s.claimNow(d.user(), profile)
	}
	for _, e := range to {
		if ready := s.render(d, e.GetChannel()); !ready {
			return false, false
		}
		s.count(d)
		d.nextAttempt()
		d.waiting = append(d.waiting, waiting{attempt: d.attempt, endpoint: e.GetName()})
		s.put(PushTo{Trace: d.trace, Push: &whisperv1.Push{
			DeliveryId:     d.id[:],
			NotificationId: d.ev.GetNotificationId(),
			UserId:         d.user(),
			Lane:           d.ev.GetLane(),
			Attempt:        d.attempt,
			Channel:        e.GetChannel(),
			Endpoint:       e.GetName(),
			Token:          e.GetToken(),
			App:            e.GetApp(),
			Content:        d.content,
			CollapseKey:    d.acc.GetCollapseKey(),
			Category:       d.acc.GetCategory(),
			ExpiresAtMs:    d.acc.GetExpiresAtMs(),
			DueMs:          d.dueMs(),
		}})
	}
	if len(to) == 0 {
		return true, false
	}
	d.phase = whisperv1.Phase_PHASE_SENDING
	d.retry = false
	s.deliveries.schedule(d, s.now.Add(s.policy.HoldBack))
	return true, true
}

// sameDevice: an app that changes the name of its endpoint leaves the old one behind, and one phone is pushed to once.
func sameDevice(to []*whisperv1.Endpoint, e *whisperv1.Endpoint) bool {
	return slices.ContainsFunc(to, func(o *whisperv1.Endpoint) bool {
		return sameToken(o, e) && o.GetApp() == e.GetApp()
	})
}
