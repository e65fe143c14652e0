package decide

import (
	"slices"

	"github.com/klivvr/whisper/domain/template"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// templates are a fold of whisper.templates. Its invariants:
//
//   - Of each key it has the newest record that was read, and of one that is not pinned the last few before it, the newest
//     first: what was accepted with an earlier version is rendered from that one while it is remembered.
//   - What stands at an offset up to readTo is known, or gone. So a template that is not known is either on its way (its
//     record is later) or will never come.
type templates struct {
	keys   map[string]versions
	readTo int64 // -1: nothing was read
}

func newTemplates() templates { return templates{keys: map[string]versions{}, readTo: -1} }

// versions are what is known of one key.
type versions struct {
	version int64 // the record's offset
	current int64 // the version that it is a copy of, or 0
	tmpl    *template.Template
	older   []versions // the newest first
}

// olderTemplates is how many earlier ones are remembered. Pinned ones never change and need none.
const olderTemplates = 3

// change takes over a record.
func (t *templates) change(in TemplateChanged) {
	t.readTo = max(t.readTo, in.Version)
	if in.Template == nil {
		delete(t.keys, in.ID)
		return
	}
	seen := versions{version: in.Version, current: in.Current, tmpl: in.Template}
	if old, known := t.keys[in.ID]; known && old.version < in.Version {
		seen.older = append([]versions{{version: old.version, tmpl: old.tmpl}}, old.older[:min(len(old.older), olderTemplates-1)]...)
	}
	t.keys[in.ID] = seen
}

// read notes how far the templates are read: what was written before next and is not known is gone, even where
// compaction left no record that could tell.
func (t *templates) read(next int64) { t.readTo = max(t.readTo, next-1) }

// of finds what a delivery is rendered from: the record that intake saw. Where that is not remembered, of a key that is
// not pinned the newest serves. gone: it can't come any more. Neither: it is on its way.
func (t *templates) of(acc *whisperv1.DeliveryAccepted) (tmpl *template.Template, gone bool) {
	known, ok := t.keys[acc.GetTemplate()]
	accepted := acc.GetTemplateVersion()
	switch _, pinned := template.Split(acc.GetTemplate()); {
	case ok && (known.version >= accepted || pinned > 0):
		if i := slices.IndexFunc(known.older, func(o versions) bool { return o.version == accepted }); i >= 0 {
			return known.older[i].tmpl, false
		}
		return known.tmpl, false
	default:
		return nil, t.readTo >= accepted
	}
}

// newest is the template that a key has now, or nil.
func (t *templates) newest(key string) *template.Template { return t.keys[key].tmpl }

// current is what a delivery that begins here speaks of: the key and the offset of the record, pinned to the current
// version where the template has versions. Intake does the same for requests.
func (t *templates) current(id string) (name string, version int64) {
	known := t.keys[id]
	if known.current > 0 {
		name := template.Pin(id, known.current)
		if pinned, ok := t.keys[name]; ok {
			return name, pinned.version
		}
	}
	return id, known.version
}
