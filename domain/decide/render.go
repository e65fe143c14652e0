package decide

import (
	"strings"
	"time"

	"github.com/klivvr/whisper/domain/template"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// render makes the content for a channel, once for all channels that get the same texts. False: d is settled (it can't
// be rendered) or waits for a template that intake has read and we have not.
func (s *State) render(d *delivery, channel string) bool {
	name := d.acc.GetTemplate()
	if name == "" {
		d.content = d.acc.GetContent()
		return true
	}
	user := s.users.ProfileOf(d.user())
	if d.content != nil && d.variant == channel {
		return true
	}
	tmpl, gone := s.templates.of(d.acc)
	switch {
	case gone && d.content != nil: // what was rendered for another channel is better than nothing
		return true
	case gone:
		s.failed(d, "template "+name+" is gone")
		return false
	case tmpl == nil:
		s.awaitText(d)
		return false
	}
	if d.content != nil && tmpl.Variant(user.Locale(), d.variant) == tmpl.Variant(user.Locale(), channel) {
		d.variant = channel
		return true
	}
	content, _, err := tmpl.Render(template.Rendering{
		Variables: d.acc.GetVariables(), Locale: user.Locale(), Timezone: user.Timezone(), Attributes: user.Attributes(),
		Channel: channel, Now: s.now,
	})
	if err != nil {
		s.failed(d, "template "+name+": "+strings.ReplaceAll(err.Error(), "\n", "; "))
		return false
	}
	d.content, d.variant = content, channel
	return true
}

// templateWait is how soon a template that is on its way is looked for again.
const templateWait = 100 * time.Millisecond

// awaitText has d wait for its template, or behind a delivery that does. Longer than HoldBack no offset waits with it.
func (s *State) awaitText(d *delivery) {
	d.phase = whisperv1.Phase_PHASE_BACKOFF
	s.deliveries.schedule(d, s.now.Add(templateWait))
	switch {
	case d.walk != nil || d.attempt > 0:
	case d.untextedSince.IsZero():
		d.untextedSince = s.now
		key := laneOf(d)
		s.deliveries.untexted[key] = append(s.deliveries.untexted[key], d)
	case !d.parked && s.now.Sub(d.untextedSince) >= s.policy.HoldBack:
		s.park(d)
	}
}

// awaitsText: d is in untexted for a reason, and not for what it was before.
func (s *State) awaitsText(d *delivery) bool {
	return s.deliveries.holds(d) && d.phase == whisperv1.Phase_PHASE_BACKOFF && d.attempt == 0 && !d.lacking
}

// lacksText: the template of d is on its way.
func (s *State) lacksText(d *delivery) bool {
	if d.acc.GetTemplate() == "" {
		return false
	}
	tmpl, gone := s.templates.of(d.acc)
	return tmpl == nil && !gone
}

// behind has d wait while an older delivery of its user and lane waits for its template: a user's deliveries of one lane
// begin in the order of their requests. An older one whose template has arrived goes first, which went says: it may have
// used up what was left of a cap. A template that does not come for HoldBack keeps nobody else waiting any longer.
func (s *State) behind(d *delivery) (waits, went bool) {
	key := laneOf(d)
	if len(s.deliveries.untexted[key]) == 0 || d.walk != nil || d.begun() {
		return false, false
	}
	for i := 0; i < len(s.deliveries.untexted[key]); {
		switch o := s.deliveries.untexted[key][i]; {
		case o == d:
			return false, went
		case !s.awaitsText(o):
			o.untextedSince = time.Time{}
			s.deliveries.texted(key, i)
		case o.id == d.id || compareArrival(o, d) > 0:
			i++
		case s.lacksText(o) && s.now.Sub(o.untextedSince) >= s.policy.HoldBack:
			s.deliveries.texted(key, i)
		case s.lacksText(o):
			s.awaitText(d)
			return true, went
		default:
			turn := s.serving
			s.serving = o // it goes in d's turn
			s.advance(o)
			s.busy, s.serving = busy{delivery: d}, turn
			i, went = 0, true
			if s.awaitsText(o) { // behind another one
				s.awaitText(d)
				return true, went
			}
		}
	}
	return false, went
}
