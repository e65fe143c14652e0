package decide

import (
	"slices"
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

// awaitText has d wait for its template, or behind a delivery that does.
func (s *State) awaitText(d *delivery) {
	d.phase = whisperv1.Phase_PHASE_BACKOFF
	s.deliveries.schedule(d, s.now.Add(templateWait))
	if of := s.deliveries.untexted[d.user()]; d.walk == nil && !d.begun() && !slices.Contains(of, d) {
		s.deliveries.untexted[d.user()] = append(of, d)
	}
}

// awaitsText: d is in untexted for a reason, and not for what it was before.
func (s *State) awaitsText(d *delivery) bool {
	return s.deliveries.holds(d) && d.phase == whisperv1.Phase_PHASE_BACKOFF && !d.begun() && !d.lacking
}

// behind has d wait while an older delivery of its user and lane waits for its template: a user's deliveries of one lane
// begin in the order of their requests. An older one whose template has arrived goes first.
func (s *State) behind(d *delivery) bool {
	of := s.deliveries.untexted[d.user()]
	if len(of) == 0 || d.walk != nil || d.begun() {
		return false
	}
	if of = slices.DeleteFunc(of, func(o *delivery) bool { return !s.awaitsText(o) }); len(of) == 0 {
		delete(s.deliveries.untexted, d.user())
		return false
	}
	s.deliveries.untexted[d.user()] = of
	for _, o := range slices.Clone(of) {
		if o.id == d.id || o.source.Lane != d.source.Lane || compareArrival(o, d) > 0 || !s.awaitsText(o) {
			continue
		}
		if tmpl, gone := s.templates.of(o.acc); tmpl != nil || gone || o.acc.GetTemplate() == "" {
			s.advance(o)
			s.busy = busy{delivery: d}
		}
		if s.awaitsText(o) {
			s.awaitText(d)
			return true
		}
	}
	return false
}
