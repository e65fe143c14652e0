package decide

import (
	"slices"
	"strings"
	"time"

	"github.com/klivvr/whisper/domain/template"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// versions are what State knows of one key of whisper.templates: the newest, and of one whose key is not pinned a few
// before it, so that what was accepted with an earlier one is rendered from that while it is remembered.
type versions struct {
	version int64 // the record's offset
	current int64 // the version that it is a copy of, or 0
	tmpl    *template.Template
	older   []versions // the newest first
}

// olderTemplates is how many earlier ones are remembered. Pinned ones never change and need none.
const olderTemplates = 3

func (s *State) templateSeen(in TemplateSeen) {
	s.templatesAt = max(s.templatesAt, in.Version)
	if in.Template == nil {
		delete(s.templates, in.ID)
		return
	}
	seen := versions{version: in.Version, current: in.Current, tmpl: in.Template}
	if old, known := s.templates[in.ID]; known && old.version < in.Version {
		seen.older = append([]versions{{version: old.version, tmpl: old.tmpl}}, old.older[:min(len(old.older), olderTemplates-1)]...)
	}
	s.templates[in.ID] = seen
}

// templatesRead notes how far the templates are read: what was written before Next and is not known is gone, even
// where compaction left no record that could tell. Who waited for it waits no more.
func (s *State) templatesRead(in TemplatesRead) {
	s.templatesAt = max(s.templatesAt, in.Next-1)
}

// templateOf finds what a delivery is rendered from: the record that intake saw. Where that is not remembered, of a
// key that is not pinned the newest serves. gone: it can't come any more. Neither: it is on its way.
func (s *State) templateOf(acc *whisperv1.DeliveryAccepted) (tmpl *template.Template, gone bool) {
	t, known := s.templates[acc.GetTemplate()]
	accepted := acc.GetTemplateVersion()
	switch _, pinned := template.Split(acc.GetTemplate()); {
	case known && (t.version >= accepted || pinned > 0):
		if i := slices.IndexFunc(t.older, func(o versions) bool { return o.version == accepted }); i >= 0 {
			return t.older[i].tmpl, false
		}
		return t.tmpl, false
	default:
		return nil, s.templatesAt >= accepted
	}
}

// currentTemplate is what a delivery that begins here speaks of: the key and the offset of the record, pinned to the
// current version where the template has versions. Intake does the same for requests.
func (s *State) currentTemplate(id string) (name string, version int64) {
	t := s.templates[id]
	if t.current > 0 {
		name := template.Pin(id, t.current)
		if pinned, known := s.templates[name]; known {
			return name, pinned.version
		}
	}
	return id, t.version
}

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
	tmpl, gone := s.templateOf(d.acc)
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
	s.schedule(d, s.now.Add(templateWait))
	if of := s.untexted[d.user()]; d.walk == nil && !d.begun() && !slices.Contains(of, d) {
		s.untexted[d.user()] = append(of, d)
	}
}

// awaitsText: d is in untexted for a reason, and not for what it was before.
func (s *State) awaitsText(d *delivery) bool {
	return s.holds(d) && d.phase == whisperv1.Phase_PHASE_BACKOFF && !d.begun() && !d.lacking
}

// behind has d wait while an older delivery of its user and lane waits for its template: a user's deliveries of one lane
// begin in the order of their requests. An older one whose template has arrived goes first.
func (s *State) behind(d *delivery) bool {
	of := s.untexted[d.user()]
	if len(of) == 0 || d.walk != nil || d.begun() {
		return false
	}
	if of = slices.DeleteFunc(of, func(o *delivery) bool { return !s.awaitsText(o) }); len(of) == 0 {
		delete(s.untexted, d.user())
		return false
	}
	s.untexted[d.user()] = of
	for _, o := range slices.Clone(of) {
		if o.id == d.id || o.source.Lane != d.source.Lane || compareArrival(o, d) > 0 || !s.awaitsText(o) {
			continue
		}
		if tmpl, gone := s.templateOf(o.acc); tmpl != nil || gone || o.acc.GetTemplate() == "" {
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
