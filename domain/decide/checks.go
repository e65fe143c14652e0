package decide

import (
	"slices"
	"time"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/category"
	"github.com/klivvr/whisper/domain/localtime"
	"github.com/klivvr/whisper/domain/profile"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// Checks are the questions that every delivery is asked before an attempt is made, in this order; the
// first that has something against it decides. docs/preferences.md draws the same list. A check that put a
// delivery off is asked again, with all the others, when the time is over; what was counted against a cap,
// gathered, or held for its hour once is not again.
var Checks = [...]Check{
	{Name: "duplicate", Asks: "Has this user had this notification, or is it on its way?", Else: "dropped, and told as `duplicate`"},
	{Name: "expired", Asks: "Is its time over?", Else: "expired: `ttl`, or what it waited for", ask: (*State).askExpired},
	{Name: "scheduled", Asks: "Is its send_at still to come?", Else: "scheduled until then", ask: (*State).askScheduled},
	{Name: "category", Asks: "Was its category, or a part of its name, declared?", Else: "goes on by the rules of `default`, with one warning", ask: (*State).askCategory},
	{Name: "preference", Asks: "Does the user refuse all of its channels? (mandatory passes)", Else: "suppressed: `unsubscribed`, `preference`", ask: (*State).askPreference},
	{Name: "quiet hours", Asks: "Is it quiet at the user's? (mandatory and `pass` pass; a digest is asked for its parts)", Else: "deferred, spread, or suppressed: `quiet_hours`", ask: (*State).askQuiet},
	{Name: "caps", Asks: "Has the user had as many as a cap allows? (a digest is asked for its parts)", Else: "suppressed, or deferred to the window's end: `cap`, with the cap and the count", ask: (*State).askCaps},
	{Name: "collapse", Asks: "Does an older one with its collapse key still wait?", Else: "the older one is suppressed: `collapsed`, naming this one", ask: nil},
	{Name: "digest", Asks: "Is it gathered with others?", Else: "deferred: `digest`; in the end suppressed: `digested`, naming the digest", ask: (*State).askDigest},
	{Name: "smart timing", Asks: "Is there a better hour within its category's bound?", Else: "deferred: `smart_timing`", ask: (*State).askTiming},
	{Name: "channels", Asks: "Which of its channels, but those refused, reaches the user?", Else: "deferred: `away`; suppressed: `no_endpoint`, `unknown_user` (after 15 s, in which an endpoint may still come); failed", ask: nil},
}

// Check is one of [Checks].
type Check struct {
	Name string
	// Asks is the question; Else, what becomes of a delivery that does not pass.
	Asks, Else string

	ask func(*State, *asked, *verdict)
}

// asked is what the checks have to know of a delivery. It needs none to be there: a walk asks for users to
// whom nothing may be sent in the end.
type asked struct {
	category *category.Category // see State.category
	named    string             // the category as the request calls it
	user     string
	profile  profile.View
	channels []string
	hash     domain.DeliveryHash
	sendAt   int64 // Unix milliseconds; 0: now
	expires  int64
	now      time.Time

	// What was passed before and is not asked again.
	counted  bool  // against the caps
	own      stamp // counted before a restart, and not known to be sent: it does not stand in its own way
	gathered bool  // for a digest, or it is one
	timed    bool  // held for its hour
}

// action is what a verdict comes to.
type action int8

const (
	send    action = iota // nothing is against it
	hold                  // until the time of the verdict, in its phase
	drop                  // suppressed for the reason
	gather                // for its category's digest
	lapse                 // its time is over
	waitFor               // its send_at
)

// verdict is the answer of the checks.
type verdict struct {
	action action
	reason string
	phase  whisperv1.Phase
	until  time.Time
	// denied are the channels that the user refuses; where it is sent, another one is left.
	denied profile.ChannelMask
	// Of caps: which one, and what it had counted.
	limit   category.Cap
	counted int
}

// judge asks the checks in their order. It changes nothing but warnings still to be told, and allocates
// nothing for a user who has no say in the matter. The answer is s.answer, valid until the next call.
func (s *State) judge(q *asked) *verdict {
	v := &s.answer
	*v = verdict{}
	for i := range Checks {
		if ask := Checks[i].ask; ask != nil { // the first and the last two are asked elsewhere: arrive, permit, try
			if ask(s, q, v); v.action != send {
				break
			}
		}
	}
	return v
}

// category is whose rules apply to what a request calls name.
func (s *State) category(name string) *category.Category { return s.categories.Find(name) }

func (s *State) askExpired(q *asked, v *verdict) {
	if q.now.UnixMilli() >= q.expires {
		v.action, v.reason = lapse, domain.ReasonTTL
	}
}

func (s *State) askScheduled(q *asked, v *verdict) {
	if q.sendAt > q.now.UnixMilli() {
		v.action, v.phase, v.until = waitFor, whisperv1.Phase_PHASE_SCHEDULED, time.UnixMilli(q.sendAt)
	}
}

func (s *State) askCategory(q *asked, _ *verdict) {
	if q.category.Name != q.named && !s.categories.Declares(q.named) {
		s.notice(NoticeCategory, q.named)
	}
}

func (s *State) askPreference(q *asked, v *verdict) {
	if q.category.Mandatory {
		return
	}
	preferences := q.profile.Preferences()
	if preferences == "" {
		return
	}
	denied, unsubscribed := profile.ReadDenied(preferences, q.named)
	if unsubscribed {
		v.action, v.reason = drop, domain.ReasonUnsubscribed
		return
	}
	v.denied = denied
	if denied != 0 && !slices.ContainsFunc(q.channels, func(c string) bool { return !denied.Has(c) }) {
		v.action, v.reason = drop, domain.ReasonPreference
	}
}

func (s *State) askQuiet(q *asked, v *verdict) {
	if q.category.Mandatory || q.category.Quiet == category.QuietPass || q.gathers() {
		return
	}
	hours, any := profile.ReadQuiet(q.profile.QuietHours())
	if !any {
		return
	}
	zone := s.zone(q.profile)
	if !hours.Has(localtime.MinuteOfDay(q.now, zone)) {
		return
	}
	v.reason = domain.ReasonQuietHours
	if q.category.Quiet == category.QuietDrop {
		v.action = drop
		return
	}
	v.action, v.phase = hold, whisperv1.Phase_PHASE_QUIET
	v.until = q.spread(hours.End(q.now, zone), s.policy.Spread)
}

func (s *State) askCaps(q *asked, v *verdict) {
	if len(q.category.Caps) == 0 || q.counted || q.gathers() {
		return
	}
	sent := s.counts.of(q.user)
	if sent == "" {
		return
	}
	zone := s.zone(q.profile)
	for _, limit := range q.category.Caps {
		counted, until, over := s.counts.over(sent, limit, q.category.Name, q.own, q.now, zone)
		if !over || v.action != send && !until.After(v.until) {
			continue
		}
		// Of several, the one that ends last.
		v.reason, v.limit, v.counted = domain.ReasonCap, limit, counted
		if q.category.OverCap == category.OverCapDrop {
			v.action = drop
			return
		}
		v.action, v.phase, v.until = hold, whisperv1.Phase_PHASE_CAPPED, until
	}
	if v.action == hold && v.limit.Per >= category.PerDay {
		v.until = q.spread(v.until, s.policy.Spread)
	}
}

func (s *State) askDigest(q *asked, v *verdict) {
	if q.gathers() {
		v.action, v.phase, v.reason = gather, whisperv1.Phase_PHASE_DIGEST, domain.ReasonDigest
	}
}

func (s *State) askTiming(q *asked, v *verdict) {
	if q.category.SmartDelay == 0 || q.timed || q.counted {
		return
	}
	hour, known := profile.UsualHour(q.profile.Reading(), q.now)
	if !known {
		return
	}
	begins := profile.NextHour(q.now, s.zone(q.profile), hour)
	if !begins.After(q.now) {
		return // it is that hour
	}
	at := q.spread(begins, s.policy.Spread)
	if at.Sub(q.now) > q.category.SmartDelay || at.UnixMilli() >= q.expires {
		return
	}
	v.action, v.phase, v.reason, v.until = hold, whisperv1.Phase_PHASE_TIMED, domain.ReasonSmartTiming, at
}

// gathers: it is one of those that its category tells of together.
func (q *asked) gathers() bool { return q.category.Digest != nil && !q.gathered && !q.counted }

// spread moves a time on, so that what waits for the same hour does not come out in one second. It is a
// user's own part of the stretch, the same every day: what one user waits for stays in order, and a restart
// changes nothing. It never moves what has time behind its expiry.
func (q *asked) spread(at time.Time, over time.Duration) time.Time {
	left := time.UnixMilli(q.expires).Sub(at)
	if over = min(over, left/2); over <= 0 {
		return at
	}
	h := uint64(14695981039346656037) // FNV-1a
	for i := range len(q.user) {
		h = (h ^ uint64(q.user[i])) * 1099511628211
	}
	h ^= h >> 32
	return at.Add(time.Duration(h % uint64(over)).Truncate(time.Millisecond))
}

// zone is a user's, for the clock on the wall.
func (s *State) zone(v profile.View) *time.Location {
	name := v.Timezone()
	zone, known := s.zones.Load(name)
	if !known {
		s.notice(NoticeZone, name)
	}
	return zone
}
