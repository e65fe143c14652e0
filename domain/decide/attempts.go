package decide

import (
	"slices"
	"time"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/profile"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// A delivery can be out at its user's sockets and at their phones at once: the user connects while the answer of a push is
// due. `waiting` holds the attempts of both. Where the delivery stands (`step`) says which of them it decides by next: at
// the socket, when the time to acknowledge is over or no node holds the user; at a push channel, when the last push is
// answered.
//
// An acknowledgement ends a delivery, or a push that a provider took, or its expiry, a cancel, a check. That a socket
// took a frame never does: a kernel took some bytes, and nobody may have seen them.

// push says which of the two an attempt is.
func (w waiting) push() bool { return w.endpoint != "" }

func (d *delivery) openPushes() bool { return slices.ContainsFunc(d.waiting, waiting.push) }

func (d *delivery) openSockets() bool {
	return slices.ContainsFunc(d.waiting, func(w waiting) bool { return !w.push() })
}

func (d *delivery) dropSockets() {
	d.waiting = slices.DeleteFunc(d.waiting, func(w waiting) bool { return !w.push() })
}

// pushStep is where the first push channel stands; 0 where there is none.
func (d *delivery) pushStep() int32 {
	for i, c := range d.channels() {
		if c != domain.ChannelSocket && !d.denied.Has(c) {
			return int32(i)
		}
	}
	return 0
}

func (s *State) sent(d *delivery, k *whisperv1.DeliverySent) {
	if k.GetChannel() == domain.ChannelSocket {
		s.socketSent(d)
		return
	}
	i := slices.IndexFunc(d.waiting, func(w waiting) bool { return w.push() && w.attempt == k.GetAttempt() })
	if i >= 0 {
		d.waiting = slices.Delete(d.waiting, i, i+1)
	}
	d.pushTook = true
	if i >= 0 && d.openPushes() {
		s.parkAgain(d)
		return
	}
	// Also an answer to an attempt that was given up or made before a restart: it was taken all the same.
	s.settle(d)
}

// socketSent: the acknowledgement settles it, unless a push did.
func (s *State) socketSent(d *delivery) {
	if d.socketTook = true; d.pushTook && !d.openPushes() {
		s.settle(d)
	}
}

// parkAgain writes a parked delivery's answers so far: their facts are let go with this one, and after a
// restart nobody would tell of them again.
func (s *State) parkAgain(d *delivery) {
	if d.parked {
		s.park(d)
	}
}

func (s *State) attemptFailed(d *delivery, ev *whisperv1.Event, k *whisperv1.AttemptFailed) {
	i := slices.IndexFunc(d.waiting, func(w waiting) bool {
		return w.attempt == k.GetAttempt() && w.node == k.GetNode() && w.endpoint == k.GetEndpoint()
	})
	if k.GetClass() == whisperv1.FailureClass_FAILURE_CLASS_UNREACHABLE {
		s.presence.bounced(ev.GetUserId(), k, ev.GetAtUs())
	}
	if i < 0 {
		return
	}
	push := d.waiting[i].push()
	d.waiting = slices.Delete(d.waiting, i, i+1)
	if k.GetReason() != "" {
		d.lastReason = k.GetReason()
	}
	if k.GetClass() == whisperv1.FailureClass_FAILURE_CLASS_UNKNOWN {
		d.doubtful = true
	}
	if push && worthAnother(k.GetClass()) {
		d.retry = true
		if ms := k.GetRetryAfterMs(); ms > 0 {
			d.pushAfter = latest(d.pushAfter, s.now.Add(time.Duration(ms)*time.Millisecond))
		}
	}
	s.answered(d, push)
}

// worthAnother: an unknown outcome counts, since every channel that exists now can take the same attempt
// twice without harm (APNs replaces by collapse id, sockets by notification id).
func worthAnother(c whisperv1.FailureClass) bool {
	switch c {
	case whisperv1.FailureClass_FAILURE_CLASS_RETRY, whisperv1.FailureClass_FAILURE_CLASS_UNKNOWN:
		return true
	case whisperv1.FailureClass_FAILURE_CLASS_UNSPECIFIED, whisperv1.FailureClass_FAILURE_CLASS_UNREACHABLE,
		whisperv1.FailureClass_FAILURE_CLASS_DROP, whisperv1.FailureClass_FAILURE_CLASS_PRUNE,
		whisperv1.FailureClass_FAILURE_CLASS_STOP, whisperv1.FailureClass_FAILURE_CLASS_EXPIRED:
		return false
	default:
		return false
	}
}

// answered: an attempt failed, over the socket or as a push. What follows is decided when the last one of its kind has,
// if d stands there; the failure of a push disturbs no attempt over the socket.
func (s *State) answered(d *delivery, push bool) {
	reaction := d.reacts(socketsFailed)
	if push {
		reaction = d.reacts(pushesFailed)
	}
	switch {
	case push && d.openPushes(), !push && d.openSockets():
		s.parkAgain(d)
	case reaction == note:
		if push {
			d.pushesEnded()
		}
		s.parkAgain(d)
	case d.expired(s.now):
		s.expire(d)
	case reaction == retryOrLeave:
		s.pushAnswered(d)
	case reaction == bounced:
		s.bouncedOff(d)
	}
}

// pushesEnded notes, where d stands elsewhere, that no endpoint will take it: unless one failed in a way worth another
// try, or one was registered since.
func (d *delivery) pushesEnded() {
	switch {
	case d.outlook == pushNewEndpoint:
		d.outlook = pushPossible
	case !d.retry && !d.pushTook:
		d.outlook = pushRefused
	}
}

// bouncedOff: to where the user is now, or on to the next channel. A node that keeps on bouncing what its own presence
// claims must not be asked as fast as Kafka turns round.
func (s *State) bouncedOff(d *delivery) {
	if d.bounces++; d.bounces%maxBounces == 0 {
		s.backoff(d, s.now.Add(s.policy.Resend.Delay(d.id, d.tries)), domain.ReasonAway)
		return
	}
	s.advance(d)
}

const maxBounces = 8

// pushAnswered: no push is open, and d stands at its channel.
func (s *State) pushAnswered(d *delivery) {
	switch {
	case d.pushTook:
		s.settle(d) // one of several endpoints took it
	case d.outlook == pushNewEndpoint && s.replay != nil: // a fact that is still to be read may be the end
		d.outlook, d.tries = pushPossible, 0
		s.backoff(d, s.now.Add(templateWait), domain.ReasonRetry)
	case d.outlook == pushNewEndpoint:
		d.outlook, d.tries = pushPossible, 0
		s.advance(d)
	case d.retry && !s.policy.Retry.Exhausted(d.tries):
		s.backoff(d, latest(d.pushAfter, s.now.Add(s.policy.Retry.Delay(d.id, d.tries))), domain.ReasonRetry)
	default:
		d.outlook = pushRefused
		d.step++
		d.tries = 0
		s.advance(d)
	}
}

// awaitPushes parks d until its pushes are answered, or its user connects.
func (s *State) awaitPushes(d *delivery) {
	d.dropSockets()
	d.phase = whisperv1.Phase_PHASE_SENDING
	d.step = d.pushStep()
	s.deliveries.schedule(d, d.expires())
	s.park(d)
}

// owesPush: an endpoint can be tried that neither took d nor refused it for good.
func (s *State) owesPush(d *delivery) bool {
	return d.outlook != pushRefused && !d.pushTook && len(s.endpoints(d.user(), d.channels(), d.denied)) > 0
}

// endpoints are the user's that one of the channels reaches.
func (s *State) endpoints(user string, channels []string, denied profile.ChannelMask) []*whisperv1.Endpoint {
	if !hasEndpoint(s.users.ProfileOf(user), channels, denied) {
		return nil
	}
	var to []*whisperv1.Endpoint
	for _, e := range s.profile(user).GetEndpoints() {
		if slices.ContainsFunc(channels, func(channel string) bool { return pushes(channel, e, denied) }) {
			to = append(to, e)
		}
	}
	return to
}

// hasEndpoint: one of the channels reaches an endpoint of the user. Endpoints of channels that nothing serves are none. It
// does not decode the profile: a broadcast asks it of everybody.
func hasEndpoint(user profile.View, channels []string, denied profile.ChannelMask) bool {
	return user.Reachable() && slices.ContainsFunc(domain.PushChannels, func(serves string) bool {
		asked := func(channel string) bool {
			return (channel == domain.ChannelPush || channel == serves) && !denied.Has(channel)
		}
		return !denied.Has(serves) && slices.ContainsFunc(channels, asked) && user.HasChannel(serves)
	})
}

// pushes says whether a push over the channel goes to the endpoint.
func pushes(channel string, e *whisperv1.Endpoint, denied profile.ChannelMask) bool {
	return channel != domain.ChannelSocket && (channel == domain.ChannelPush || e.GetChannel() == channel) && !denied.Has(channel) &&
		slices.Contains(domain.PushChannels, e.GetChannel()) && !denied.Has(e.GetChannel())
}

func parkAttempts(p *whisperv1.Parked, d *delivery) {
	p.SocketTook, p.PushTook = d.socketTook, d.pushTook
	p.Sent = d.pushTook // as earlier versions read it: a socket's word must not end it there either
	p.PushFailed, p.PushAgain = d.outlook == pushRefused, d.outlook == pushNewEndpoint
	p.Retry, p.LastReason, p.Bounces = d.retry, d.lastReason, int32(d.bounces)
	if !d.pushAfter.IsZero() {
		p.PushAfterMs = d.pushAfter.UnixMilli()
	}
	for _, w := range d.waiting {
		p.Waiting = append(p.Waiting, &whisperv1.Waiting{Attempt: w.attempt, Node: w.node, Incarnation: w.incarnation, Endpoint: w.endpoint})
	}
}

func (s *State) restoreAttempts(d *delivery, p *whisperv1.Parked) {
	d.socketTook, d.pushTook = p.GetSocketTook(), p.GetPushTook()
	if p.GetSent() && !d.pushTook { // an earlier version's, which did not tell a socket from a provider
		d.socketTook = true
	}
	switch {
	case p.GetPushAgain():
		d.outlook = pushNewEndpoint
	case p.GetPushFailed():
		d.outlook = pushRefused
	}
	d.retry, d.lastReason, d.bounces = p.GetRetry(), p.GetLastReason(), int(p.GetBounces())
	if ms := p.GetPushAfterMs(); ms > 0 {
		d.pushAfter = time.UnixMilli(ms)
	}
	for _, w := range p.GetWaiting() {
		d.waiting = append(d.waiting, waiting{
			attempt: w.GetAttempt(), node: w.GetNode(), incarnation: w.GetIncarnation(),
			endpoint: w.GetEndpoint(),
		})
	}
}
