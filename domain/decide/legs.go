package decide

import (
	"cmp"
	"slices"
	"time"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// A delivery in a category with all_channels goes out over each of its channels at once. Once the checks let it go, it is
// split into legs: a [delivery] for each channel, which tries and retries by itself, as if its channel was the only one.
// Together they are one delivery to everybody else: one id, one numbering of attempts, one count against caps, one record
// in whisper.timers, and one end. That a leg came to its end without reaching anybody is told only by the last one, and
// only if no other did reach; so the status is that of the channel that came furthest.
//
// A push leg that no endpoint takes (there is none, or they refused) is idle: it waits for an endpoint as long as another
// leg is at work, and ends with the last of those.

// legs are those of one delivery that have not ended, in the category's order; at least one while any is held.
type legs struct {
	// held[0] is found by the delivery's own hash, the others by legKey.
	held    []*delivery
	attempt int32 // the last one that any leg made
	reached bool  // the client acknowledged, or a provider took it, over a leg that is gone
	took    bool  // an attempt of a leg that is gone may have reached the user
	// A socket took an attempt of a leg that is gone. Not parked: the legs of what nobody acknowledged expire together.
	socketTook bool
}

const legMark = "\x01leg"

// legKey is where the leg of a channel is held. It is no delivery's: see cursorMark.
func legKey(d *delivery) domain.DeliveryHash {
	hash := d.id.Hash()
	return domain.HashDelivery(legMark+string(hash[:]), d.own[0])
}

// key is where d is in State.deliveries.
func (d *delivery) key() domain.DeliveryHash {
	if d.legs == nil || d.legs.held[0] == d {
		return d.id.Hash()
	}
	return legKey(d)
}

func (d *delivery) begun() bool { return d.attempt > 0 || d.legs != nil && d.legs.attempt > 0 }

func (d *delivery) nextAttempt() {
	if d.legs == nil {
		d.attempt++
		return
	}
	d.legs.attempt++
	d.attempt = d.legs.attempt
}

// idle: d is a push leg without an endpoint to try.
func (d *delivery) idle() bool { return d.stage() == stageIdle }

// others are the legs beside d.
func (l *legs) others(d *delivery) []*delivery {
	if l == nil || len(l.held) < 2 {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(l.held), func(o *delivery) bool { return o == d })
}

// active: a leg beside d still has something to try or to wait for.
func (l *legs) active(d *delivery) bool {
	return l != nil && slices.ContainsFunc(l.held, func(o *delivery) bool { return o != d && !o.idle() })
}

// handedOut: an attempt of any leg may have reached the user.
func (l *legs) handedOut() bool {
	return l != nil && (l.took || l.reached || slices.ContainsFunc(l.held, (*delivery).handedOut))
}

// unacknowledged: a socket took an attempt of any leg.
func (l *legs) unacknowledged() bool {
	return l != nil && (l.socketTook || slices.ContainsFunc(l.held, func(d *delivery) bool { return d.socketTook }))
}

func (l *legs) compare(a, b *delivery) int {
	if l == nil {
		return 0
	}
	return cmp.Compare(slices.Index(l.held, a), slices.Index(l.held, b))
}

// goesToAll says whether a delivery that begins now is split.
func (s *State) goesToAll(acc *whisperv1.DeliveryAccepted) bool {
	return acc.GetChannelsDefault() && len(s.category(acc.GetCategory()).AllChannels) > 0
}

// split makes the legs of d, which is the first of them from now on. Whoever splits says what each does next; until then
// each is due, so that what is parked meanwhile says so.
func (s *State) split(d *delivery) []*delivery {
	l := &legs{attempt: d.attempt}
	channels := d.own
	tookSocket := d.socketTook
	for i, channel := range channels {
		leg := d
		if i > 0 {
			leg = d.newLeg()
			leg.recount, leg.counted, leg.denied, leg.readyMs = d.recount, d.counted, d.denied, d.readyMs
			l.held, leg.legs = append(l.held, leg), l
		} else {
			l.held, leg.legs = []*delivery{leg}, l
		}
		leg.own = channels[i : i+1 : i+1]
		leg.phase, leg.attempt, leg.step, leg.tries = whisperv1.Phase_PHASE_BACKOFF, 0, 0, 0
		leg.socketTook = tookSocket && channel == domain.ChannelSocket
		leg.gathered, leg.timed, leg.digest, leg.until = true, true, "", time.Time{}
		if i > 0 {
			s.deliveries.add(leg)
			if d.parked {
				s.deliveries.park(leg)
			}
		}
		s.deliveries.schedule(leg, s.now)
	}
	return slices.Clone(l.held)
}

// advanceLegs begins with each, pushes first: whoever is away parks them all, and what is parked then knows of the pushes.
func (s *State) advanceLegs(all []*delivery) {
	for _, push := range []bool{true, false} {
		for _, leg := range all {
			if push == (leg.own[0] != domain.ChannelSocket) && s.deliveries.holds(leg) {
				s.advance(leg)
			}
		}
	}
}

// newLeg is a delivery of the same id, of which nothing is known yet.
func (d *delivery) newLeg() *delivery {
	return &delivery{
		id: d.id, request: d.request, ev: d.ev, acc: d.acc, trace: d.trace, source: d.source, walk: d.walk, member: d.member,
		all: true,
	}
}

// takeUpLegs goes on with d, of which facts told before a restart.
func (s *State) takeUpLegs(d *delivery, r replayed) {
	var open []*delivery
	for _, leg := range s.split(d) {
		switch channel := leg.own[0]; {
		case channel == domain.ChannelSocket && r.acked, channel == domain.ChannelPush && r.pushed != 0, r.pushed.Has(channel):
			s.settle(leg)
		case channel == domain.ChannelSocket && r.socketSent && !leg.expired(s.now):
			leg.phase, leg.attempt = whisperv1.Phase_PHASE_SENDING, r.attempt
			s.deliveries.schedule(leg, time.UnixMicro(r.sentUS).Add(s.ackTimeout(leg)))
		default:
			open = append(open, leg)
		}
	}
	s.advanceLegs(open)
}

// legOf is the leg that a fact about the split delivery d is about, or nil. An answer to what was split before a restart
// that forgot it splits it again.
func (s *State) legOf(d *delivery, ev *whisperv1.Event) *delivery {
	channel := ev.GetDeliverySent().GetChannel() + ev.GetDeliveryDelivered().GetChannel() + ev.GetAttemptFailed().GetChannel()
	switch {
	case channel == "": // about all of it
		return d
	case d.legs != nil:
	case ev.GetDeliveryDelivered() == nil && (ev.GetDeliverySent() == nil || channel == domain.ChannelSocket):
		return d
	default:
		d.attempt = max(d.attempt, ev.GetDeliverySent().GetAttempt(), ev.GetDeliveryDelivered().GetAttempt())
		for _, leg := range s.split(d) {
			leg.dropSockets()
			if s.replay != nil { // a fact that is still to be read may be its end
				s.deliveries.schedule(leg, s.now.Add(templateWait))
			}
		}
	}
	for _, leg := range d.legs.held {
		if own := leg.own[0]; own == channel || own == domain.ChannelPush && channel != domain.ChannelSocket {
			return leg
		}
	}
	if ev.GetAttemptFailed() != nil {
		return d // a node that does not hold the user; d has no such attempt
	}
	return nil
}

// idle waits for an endpoint, as long as other legs are at work. They let the offset go, or end with it.
func (s *State) idle(d *delivery) {
	d.phase = whisperv1.Phase_PHASE_AWAY
	s.deliveries.schedule(d, d.expires())
	s.parkAgain(d)
}

// othersContinue: others are at work yet, or one reached. Those that are idle end with the last that is not.
func (s *State) othersContinue(d *delivery) bool {
	if d.legs == nil {
		return false
	}
	if d.legs.active(d) {
		return true
	}
	s.dropOthers(d)
	return d.legs.reached
}

// legReached: the client acknowledged, or a provider took it.
func (s *State) legReached(d *delivery) {
	d.legs.reached = true
	if !d.legs.active(d) {
		s.dropOthers(d)
	}
}

// settleAll settles d and its other legs: whatever was not sent is not sent any more.
func (s *State) settleAll(d *delivery) {
	s.dropOthers(d)
	s.settle(d)
}

func (s *State) dropOthers(d *delivery) {
	for _, o := range d.legs.others(d) {
		s.leaveLegs(o)
	}
}

// leaveLegs takes d out of what is held, while others are left.
func (s *State) leaveLegs(d *delivery) {
	l := d.legs
	s.deliveries.drop(d, d.key())
	l.took, l.socketTook = l.took || d.handedOut(), l.socketTook || d.socketTook
	i := slices.Index(l.held, d)
	if i == 0 { // the next one is the first now
		s.deliveries.lead(l.held[1])
	}
	l.held = slices.Delete(l.held, i, i+1)
	if first := l.held[0]; d.slice != nil { // of the walk's cursor
		first.slice, d.slice = d.slice, nil
	}
}

// parked is the record of a delivery that was split. To a version that does not know legs it is one that stands at its
// first channel.
func (l *legs) parked() *whisperv1.Parked {
	if l == nil {
		return nil
	}
	p := l.held[0].parkedForm()
	p.Attempt, p.Reached = l.attempt, l.reached
	p.SocketTook = l.took || l.reached || p.GetSocketTook()
	p.Channels = nil
	for _, leg := range l.held {
		form := leg.parkedForm()
		if leg.phase == whisperv1.Phase_PHASE_SENDING && leg.openPushes() && leg.due.Before(leg.expires()) {
			// Kafka may have this record and not the push, if this process dies now: after a restart it is made again, unless
			// its answer came.
			form.Phase = whisperv1.Phase_PHASE_BACKOFF
		}
		form.Channels, form.ChannelsSettled = leg.own, false
		p.Legs, p.Channels = append(p.Legs, form), append(p.Channels, leg.own[0])
	}
	return p
}

func (s *State) restoreLegs(d *delivery, p *whisperv1.Parked) {
	l := &legs{attempt: p.GetAttempt(), reached: p.GetReached()}
	l.took = l.reached || p.GetSocketTook()
	for i, form := range p.GetLegs() {
		leg := d
		if i > 0 {
			leg = d.newLeg()
		}
		leg.own, leg.legs, l.held = form.GetChannels(), l, append(l.held, leg)
		if len(leg.own) == 0 {
			leg.own = []string{domain.ChannelSocket} // we never write such a record
		}
		if i > 0 {
			s.deliveries.add(leg)
		}
		s.restoreOne(leg, form)
		for i := range leg.waiting {
			leg.waiting[i].unmade = leg.phase != whisperv1.Phase_PHASE_SENDING && leg.waiting[i].push()
		}
	}
}
