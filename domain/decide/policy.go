package decide

import (
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/category"
	"github.com/klivvr/whisper/domain/profile"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// What a [Notice] is about.
const (
	// NoticeCategory: a request named a category that nobody declared, so it went by the rules of `default`.
	NoticeCategory = "unknown_category"
	// NoticeZone: a profile names a zone whose rules this build does not have, so UTC stands for it.
	NoticeZone = "unknown_zone"
	// NoticeDigest: a category's digest names a template that is not there, so its parts went out alone.
	NoticeDigest = "unknown_digest_template"
	// NoticeDigestFails: a digest's template can't be rendered for a user, so the parts went out alone.
	NoticeDigestFails = "digest_template_fails"
)

// maxNotices bounds the memory of what was told: names come from upstream.
const maxNotices = 1024

func (s *State) notice(what, name string) {
	n := Notice{What: what, Name: name}
	if s.noticed[n] || len(s.noticed) >= maxNotices {
		return
	}
	s.noticed[n] = true
	s.put(n)
}

// ask is the question about d.
func (s *State) ask(d *delivery) *asked {
	named := d.acc.GetCategory()
	if named == "" {
		named = domain.DefaultCategory
	}
	begun := d.begun()
	q := &s.question
	*q = asked{
		category: s.category(named),
		named:    named,
		user:     d.user(),
		profile:  s.users.ProfileOf(d.user()),
		channels: d.channels(),
		hash:     d.id.Hash(),
		sendAt:   d.acc.GetSendAtMs(),
		expires:  d.acc.GetExpiresAtMs(),
		now:      s.now,
		counted:  d.counted || begun,
		own:      d.recount,
		gathered: d.gathered || begun || len(d.acc.GetDigestMembers()) > 0,
		timed:    d.timed || begun,
	}
	return q
}

// permit asks the checks whether an attempt may be made now. Where not, what they said is done: d is
// settled, or it waits.
func (s *State) permit(d *delivery) bool {
	s.settleChannels(d)
	v := *s.judge(s.ask(d))
	d.denied = v.denied
	switch v.action {
	case lapse:
		s.expire(d)
	case drop:
		s.refuse(d, &v)
	case waitFor:
		d.phase = v.phase
		why := &whisperv1.DeliveryScheduled{UntilMs: v.until.UnixMilli()}
		s.emit(d, &whisperv1.Event{Kind: &whisperv1.Event_DeliveryScheduled{DeliveryScheduled: why}})
		s.deliveries.schedule(d, v.until)
		s.park(d)
	case hold:
		s.replaceOlder(d)
		s.hold(d, &v)
	case gather:
		s.replaceOlder(d)
		s.gather(d)
	case send:
		if s.queueReady(d) || !s.mayBegin(d) {
			return false
		}
		s.replaceOlder(d)
		if s.releaseOlder(d) { // which may have used up what was left of a cap
			return s.permit(d)
		}
		if heldReason(d.phase) != "" {
			d.phase = whisperv1.Phase_PHASE_UNSPECIFIED
		}
		return true
	}
	return false
}

// settleChannels decides once which channels there are to try: what they are counted by must not move
// under a delivery that stands at one of them.
func (s *State) settleChannels(d *delivery) {
	if d.own != nil {
		return
	}
	d.own = d.acc.GetChannels()
	if !d.acc.GetChannelsDefault() {
		return
	}
	category := s.category(d.acc.GetCategory())
	if d.all = len(category.AllChannels) > 0; d.all {
		d.own = category.AllChannels
	} else if len(category.Channels) > 0 {
		d.own = category.Channels
	}
}

func (s *State) hold(d *delivery, v *verdict) {
	d.rateSlot = 0
	if d.parked && d.phase == v.phase && d.until.Equal(v.until) { // asked again, with the same answer
		s.deliveries.schedule(d, v.until)
		return
	}
	d.phase, d.until = v.phase, v.until
	s.deliveries.hold(d)
	d.dropSockets()
	s.deferred(d, v)
	s.deliveries.schedule(d, v.until)
	s.park(d)
}

func (s *State) deferred(d *delivery, v *verdict) {
	fact := &whisperv1.DeliveryDeferred{Reason: v.reason, UntilMs: v.until.UnixMilli(), Category: s.category(d.acc.GetCategory()).Name}
	if v.limit.N > 0 {
		fact.Cap, fact.Count = v.limit.String(), int32(v.counted)
	}
	s.emit(d, &whisperv1.Event{Kind: &whisperv1.Event_DeliveryDeferred{DeliveryDeferred: fact}})
}

// refuse ends d, which a check lets go to nobody. A push leg whose channel alone the user refuses waits while other legs are at
// work: the user may allow that channel again.
func (s *State) refuse(d *delivery, v *verdict) {
	if v.reason == domain.ReasonPreference && d.legs.active(d) && d.own[0] != domain.ChannelSocket {
		s.idle(d)
		return
	}
	s.suppress(d, v.reason, "", v)
}

// suppress ends d on purpose. v is nil where no check said so.
func (s *State) suppress(d *delivery, reason, instead string, v *verdict) {
	out := &whisperv1.DeliverySuppressed{Reason: reason, Instead: instead}
	if v != nil {
		out.Category = s.category(d.acc.GetCategory()).Name
		if v.limit.N > 0 {
			out.Cap, out.Count = v.limit.String(), int32(v.counted)
		}
	}
	s.end(d, &whisperv1.Event{Kind: &whisperv1.Event_DeliverySuppressed{DeliverySuppressed: out}})
}

// heldReason is why a delivery waits in a phase of the policy, or "".
func heldReason(phase whisperv1.Phase) string {
	switch phase {
	case whisperv1.Phase_PHASE_QUIET:
		return domain.ReasonQuietHours
	case whisperv1.Phase_PHASE_CAPPED:
		return domain.ReasonCap
	case whisperv1.Phase_PHASE_DIGEST:
		return domain.ReasonDigest
	case whisperv1.Phase_PHASE_TIMED:
		return domain.ReasonSmartTiming
	case whisperv1.Phase_PHASE_UNSPECIFIED, whisperv1.Phase_PHASE_SCHEDULED, whisperv1.Phase_PHASE_AWAY,
		whisperv1.Phase_PHASE_SENDING, whisperv1.Phase_PHASE_BACKOFF:
		return ""
	default:
		return ""
	}
}

// waits: nothing of d is on its way, and its time to be sent has come or is the policy's to say.
func (d *delivery) waits() bool {
	return heldReason(d.phase) != "" || d.phase == whisperv1.Phase_PHASE_AWAY || d.phase == whisperv1.Phase_PHASE_BACKOFF
}

// replaceOlder ends what waits and is older than d, of its collapse key and declared category.
func (s *State) replaceOlder(d *delivery) {
	key := d.acc.GetCollapseKey()
	if key == "" || s.deliveries.count(d.user()) < 2 {
		return
	}
	category := s.category(d.acc.GetCategory())
	if !category.Collapse {
		return
	}
	var older []*delivery
	for _, o := range s.deliveries.keyed(d.user(), key) {
		if o != d && o.waits() && olderThan(o, d) && s.category(o.acc.GetCategory()) == category {
			older = append(older, o)
		}
	}
	for _, o := range older {
		if s.deliveries.holds(o) {
			s.suppress(o, domain.ReasonCollapsed, d.ev.GetNotificationId(), nil)
		}
	}
}

// olderThan: by the time of the request; within one millisecond, of one lane by arrival.
func olderThan(a, b *delivery) bool {
	switch at, bt := a.id.Time(), b.id.Time(); {
	case !at.Equal(bt):
		return at.Before(bt)
	case a.source.Lane == b.source.Lane:
		return a.source.Offset < b.source.Offset
	default:
		return a.id.Compare(b.id) < 0
	}
}

// releaseOlder lets out what waits for its part of the stretch after quiet hours, where a newer one of its
// lane is about to pass it: a user's lane stays in order. It says whether any went.
func (s *State) releaseOlder(d *delivery) (any bool) {
	if d.begun() || !s.deliveries.resting[d.user()] || s.deliveries.indexes[d.user()] != nil { // a user with an index: queueReady
		return false
	}
	defer func(turn *delivery) { s.serving = turn }(s.serving)
	var older []*delivery
	for _, o := range s.deliveries.of(d.user()) {
		if o != d && o.phase == whisperv1.Phase_PHASE_QUIET {
			older = append(older, o)
		}
	}
	if len(older) == 0 {
		delete(s.deliveries.resting, d.user())
	}
	for _, o := range older {
		if s.deliveries.holds(o) && o.phase == whisperv1.Phase_PHASE_QUIET && o.source.Lane == d.source.Lane && compareArrival(o, d) < 0 {
			s.serving = o // they go in its turn
			s.advance(o)
			any = any || o.phase != whisperv1.Phase_PHASE_QUIET
		}
	}
	return any
}

// count counts d against its category's caps, once, just before its first attempt.
func (s *State) count(d *delivery) {
	if d.counted {
		return
	}
	d.counted = true
	for _, leg := range d.legs.others(d) {
		leg.counted = true
	}
	if !d.begun() {
		s.countSent(s.category(d.acc.GetCategory()), d.user(), d.id.Hash(), d.recount)
	}
}

// countSent counts what is about to be sent to a user for the first time; before is the delivery's count
// from before a restart, or 0. A category without caps costs nothing.
func (s *State) countSent(c *category.Category, user string, hash domain.DeliveryHash, before stamp) {
	if len(c.Caps) == 0 {
		return
	}
	at := s.counts.add(user, c.Name, hash, s.now, before)
	s.put(Count{User: user, Category: c.Name, Hash: hash, At: at})
}

// RestoreCounted puts back what was counted, in the order of the log.
func (s *State) RestoreCounted(counts ...Count) {
	for _, c := range counts {
		s.counts.add(c.User, c.Category, c.Hash, c.At, 0)
	}
}

// RestoreUncounted forgets what the log told of a user so far.
func (s *State) RestoreUncounted(user string) { s.counts.forget(user) }

// keepCounts lets go of what was counted before the restart, but for what broadcasts may come to again: they are
// walked on only after the replay. A minute, since the broadcast's time is of another clock.
func (s *State) keepCounts() {
	if !s.counts.restoring {
		return
	}
	from := time.Time{}
	for _, w := range s.broadcasts.order {
		if w.done || len(s.category(w.acc.GetCategory()).Caps) == 0 {
			continue
		}
		w.recounts = true
		if at := w.id.Time().Add(-time.Minute); from.IsZero() || at.Before(from) {
			from = at
		}
	}
	if from.IsZero() {
		s.counts.forgetCounted()
		return
	}
	s.counts.replayed(from)
}

// forgetCounts lets go of the rest when those broadcasts are walked.
func (s *State) forgetCounts() {
	if !s.counts.restoring && s.counts.counted != nil &&
		!slices.ContainsFunc(s.broadcasts.order, func(w *walk) bool { return w.recounts && !w.done }) {
		s.counts.forgetCounted()
	}
}

// ackTimeout is how long a client has to acknowledge d.
func (s *State) ackTimeout(d *delivery) time.Duration { return s.ackTimeoutIn(d.acc.GetCategory()) }

func (s *State) ackTimeoutIn(category string) time.Duration {
	if own := s.category(category).AckTimeout; own > 0 {
		return own
	}
	return s.policy.AckTimeout
}

// explicitAck: only what the client itself says counts as an acknowledgement in the category.
func (s *State) explicitAck(category string) bool { return !s.category(category).AutoAck }

// countRead learns when a user reads.
func (s *State) countRead(ev *whisperv1.Event) {
	user := ev.GetUserId()
	v := s.users.ProfileOf(user)
	if v == "" {
		return // nobody whom we know
	}
	reading, newDay := profile.AddRead(v.Reading(), time.UnixMicro(ev.GetAtUs()), s.zone(v))
	p := s.profile(user)
	if p == nil {
		return
	}
	if p.Reading = []byte(reading); newDay { // a record a user and day, not one a read
		s.putUser(user, p)
		return
	}
	if encoded, err := (proto.MarshalOptions{Deterministic: true}).Marshal(p); err == nil {
		s.users.PutProfile(user, encoded)
	}
}

// erase forgets a user: what waits or is on its way ends, and nothing of the user stays but the hashes of
// what the user was sent, which tell duplicates until their window is over.
func (s *State) erase(user string, changesOffset int64) {
	for _, d := range slices.Clone(s.deliveries.of(user)) {
		if s.deliveries.holds(d) {
			s.suppress(d, domain.ReasonErased, "", nil)
		}
	}
	s.eraseWaiting(user)
	s.eraseSilentPushes(user)
	// A redelivery may come behind a later registration, which is not forgotten.
	if old := s.profile(user); old.GetChangesOffset() <= changesOffset {
		released := s.claims(user, old, nil)
		if s.users.ForgetProfile(user) {
			s.putReleasing(user, nil, released)
		}
	}
	if s.counts.forget(user) {
		s.put(Uncount{User: user})
	}
	s.put(Emit{Event: &whisperv1.Event{
		UserId: user, AtUs: s.now.UnixMicro(), Cause: s.causedBy(),
		Kind: &whisperv1.Event_UserErased{UserErased: &whisperv1.UserErased{ChangesOffset: changesOffset}},
	}})
}

func (s *State) restorePolicy(d *delivery, p *whisperv1.Parked) {
	if d.own = p.GetChannels(); len(d.own) == 0 && (p.GetChannelsSettled() || p.GetAttempt() > 0) {
		d.own = d.acc.GetChannels()
	}
	if d.counted = p.GetCounted(); !d.counted && d.attempt == 0 {
		d.recount = s.counts.before(d.user(), d.id.Hash())
	}
	d.digest, d.timed, d.gathered = p.GetDigest(), p.GetTimed(), p.GetGathered()
	d.until = time.UnixMilli(p.GetDueMs())
	d.readyMs = p.GetReadyMs()
	s.deliveries.hold(d)
}

func parkPolicy(p *whisperv1.Parked, d *delivery) {
	if p.ChannelsSettled = d.own != nil; !slices.Equal(d.own, d.acc.GetChannels()) {
		p.Channels = d.own
	}
	p.Counted, p.Digest, p.Timed, p.Gathered = d.counted, d.digest, d.timed, d.gathered
	p.ReadyMs = d.readyMs
}
