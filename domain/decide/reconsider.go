package decide

import (
	"reflect"
	"slices"
	"strings"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/category"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// Whatever can change the answer of a check has what waits looked at again: a profile (endpoints, preferences, quiet hours,
// zone) here and now, since one user has few deliveries; a category by making due what it holds, which time then looks
// at in slices; presence in wake. Topics have no order between them, so a profile that was written before a request and
// is read after it is the same as one that changes.
//
// A template changes no answer: what waits for one looks for it every templateWait.

// gainsEndpoint: there is one that was not there before, or has another token.
func gainsEndpoint(old, now *whisperv1.Profile) bool {
	return slices.ContainsFunc(now.GetEndpoints(), func(e *whisperv1.Endpoint) bool {
		return !slices.ContainsFunc(old.GetEndpoints(), func(o *whisperv1.Endpoint) bool {
			return o.GetName() == e.GetName() && o.GetChannel() == e.GetChannel() && o.GetToken() == e.GetToken() && o.GetApp() == e.GetApp()
		})
	})
}

// reconsider asks again about what waits, after a user's profile changed: quiet hours may be over, a channel may be
// refused, a phone may be there. endpoint says that one may be new.
func (s *State) reconsider(user string, endpoint bool) {
	s.reconsiderWalks(user)
	for _, d := range slices.Clone(s.deliveries.of(user)) {
		if !s.deliveries.holds(d) {
			continue
		}
		s.busy = busy{delivery: d}
		if endpoint {
			if d.outlook = pushPossible; d.openPushes() {
				d.outlook = pushNewEndpoint
				s.parkAgain(d)
			}
		}
		if d.reacts(profileChanged) == advance {
			s.advance(d)
			continue
		}
		if d.reacts(profileChanged) == ask {
			s.askAgain(d, endpoint)
		}
	}
}

// askAgain ends d if its user refuses it now, and pushes it if an endpoint can be tried. Otherwise it waits as it does.
func (s *State) askAgain(d *delivery, endpoint bool) {
	switch v := *s.judge(s.ask(d)); v.action {
	case drop:
		switch {
		case v.reason == domain.ReasonPreference && d.idle() && d.legs.active(d): // it waits already
		case v.reason == domain.ReasonUnsubscribed || v.reason == domain.ReasonPreference:
			s.refuse(d, &v)
		}
	case send:
		d.denied = v.denied
		s.pushInstead(d, endpoint)
	case hold:
		if d.denied = v.denied; d.idle() && s.owesPush(d) { // nothing else would look at it when the hold is over
			s.advance(d)
		}
	case gather, lapse, waitFor:
	}
}

// pushInstead pushes what waits for a connection, or for the next try over a socket, where an endpoint can be tried. What
// waits for a provider is tried at a new endpoint at once.
func (s *State) pushInstead(d *delivery, endpoint bool) {
	away := d.phase == whisperv1.Phase_PHASE_AWAY
	again := d.phase == whisperv1.Phase_PHASE_BACKOFF && (d.attempt > 0 || d.lacking) && (endpoint || d.channel() == domain.ChannelSocket)
	if d.heldByPause || !away && !again || d.pushAfter.After(s.now) && !d.idle() || !s.owesPush(d) {
		return
	}
	d.step = d.pushStep()
	d.tries = 0
	s.advance(d)
}

// reconsiderWalks does the same for what waits in broadcasts, where there is no delivery yet.
func (s *State) reconsiderWalks(user string) {
	for _, w := range slices.Clone(s.broadcasts.awake) {
		if w.ending || w.over(s.now) {
			continue
		}
		s.busy = busy{walk: w, user: user}
		s.reconsiderScheduled(w, user)
		if w.isAway(user) && !w.paused { // resume looks again
			s.reconsiderAway(w, user)
		}
	}
}

// reconsiderAway makes a delivery of one who waits to connect, if a phone can be tried or the user refuses it now.
func (s *State) reconsiderAway(w *walk, user string) {
	profile := s.users.ProfileOf(user)
	q := s.askFor(w, user, w.idOf(user), profile)
	v := *s.judge(q)
	switch {
	case v.action == drop && (v.reason == domain.ReasonUnsubscribed || v.reason == domain.ReasonPreference):
		s.suppress(s.materialize(w, user), v.reason, "", &v)
	case v.action == send && len(s.endpoints(user, q.channels, v.denied)) > 0:
		d := s.materialize(w, user)
		d.denied = v.denied
		s.pushInstead(d, true)
	}
}

// reconsiderScheduled moves one who waits for a time of day, if the user's own clock is another one now.
func (s *State) reconsiderScheduled(w *walk, user string) {
	ref, known := w.users.Ref(user)
	if !known || !w.clock.Set {
		return
	}
	was, waits := w.scheduled[ref]
	if !waits {
		return
	}
	at := w.clock.After(w.starts(), s.zone(s.users.ProfileOf(user)))
	if ms := max(at.UnixMilli(), s.now.UnixMilli()); ms != was {
		w.forget(user)
		s.scheduleUser(w, user, w.idOf(user), latest(at, s.now))
	}
}

// wakeAll looks at who waits, slice by slice: users who are connected, and those whose endpoints came while the broadcast
// was paused.
func (s *State) wakeAll(w *walk) {
	found := s.findAwake(w)
	pushes := slices.ContainsFunc(s.askFor(w, "", w.id, "").channels, func(c string) bool { return c != domain.ChannelSocket })
	for ref := range w.away {
		if user := w.users.Own(ref); pushes && s.users.ProfileOf(user).Reachable() {
			found = append(found, user)
		}
	}
	w.addToWake(found)
}

func (w *walk) addToWake(users []string) {
	w.toWake = append(w.toWake, users...)
	slices.Sort(w.toWake)
	if w.toWake = slices.Compact(w.toWake); len(w.toWake) == 0 {
		w.toWake = nil
	}
}

// categoryChanged follows the rules of a category, and makes due what waits by the old ones.
func (s *State) categoryChanged(in CategoryChanged) {
	old := s.categories.Declared[in.Name]
	s.categories.Put(in.Name, in.Category)
	s.smart = s.categories.Any(func(c *category.Category) bool { return c.SmartDelay > 0 })
	if old == nil && in.Category == nil || old != nil && in.Category != nil && reflect.DeepEqual(old, in.Category) {
		return
	}
	for _, d := range s.deliveries.byHash { // the heap orders them
		if goesBy(d.acc.GetCategory(), in.Name) && d.reacts(rulesChanged) == hasten && !d.heldByPause && d.rateSlot == 0 && !d.closing {
			s.deliveries.hasten(d, true)
			s.deliveries.schedule(d, s.now)
		}
	}
}

// goesBy: the rules of a declared category may be those of what a request calls named.
func goesBy(named, declared string) bool {
	return declared == domain.DefaultCategory || strings.HasPrefix(named, declared) &&
		(len(named) == len(declared) || named[len(declared)] == '.')
}

// early looks at what is due before its time: a category's rules are other ones. true: it still waits.
func (s *State) early(d *delivery) bool {
	s.deliveries.hasten(d, false)
	if !d.until.After(s.now) {
		return false
	}
	rules := s.category(d.acc.GetCategory())
	gathers := d.phase == whisperv1.Phase_PHASE_DIGEST && rules.Digest != nil
	// The hours may be over, and what is left its part of the stretch after them.
	rests := d.phase == whisperv1.Phase_PHASE_QUIET && !rules.Mandatory && rules.Quiet == category.QuietHold
	switch {
	case gathers || rests:
		s.deliveries.schedule(d, d.until)
		return true
	case d.phase == whisperv1.Phase_PHASE_TIMED:
		s.advance(d)
		return true
	default:
		return false
	}
}
