package domain

import (
	"slices"
	"strings"

	"github.com/klivvr/whisper/domain/liquid"
	"github.com/klivvr/whisper/domain/locale"
)

var (
	templateFields = []string{"default_locale", "timezone", "locales"}
	// A locale's fields are those of a content, and channels whose texts are others.
	localeFields = slices.Concat(contentFields, channelNames)
	smsFields    = []string{"body"}
	emailFields  = []string{"subject", "html"}
)

// ParseTemplate reads a record's value. The empty value, which removes a template, is not one: callers
// look for it first. The error is an [*Invalid] that tells all problems at once.
func ParseTemplate(value []byte) (*Template, error) {
	var p problems
	if len(value) > MaxTemplateBytes {
		p.add(WordTooLarge, "the template has %d bytes, at most %d are allowed", len(value), MaxTemplateBytes)
		return nil, p.err()
	}
	text, ok := openJSON(value, "the template", &p)
	if !ok {
		return nil, p.err()
	}
	t := &Template{locales: map[string]*localized{}}
	object := fields{known: templateFields}
	c := newCursor(text)
	for key, raw, ok := c.member(); ok; key, raw, ok = c.member() {
		switch at, name := object.take(key, &p); at {
		case 0:
			if canonical := p.orNull(name, raw, locale.Canonical); canonical != nil {
				t.defaultLocale = *canonical
			}
		case 1:
			if zone := p.orNull(name, raw, knownTimezone); zone != nil {
				t.timezone = *zone
			}
		case 2:
			t.readLocales(raw, &p)
		}
	}
	if !p.any() {
		t.check(&p)
	}
	if p.any() {
		return nil, p.err()
	}
	t.chosen = locale.NewSet(t.Locales())
	t.gatherNeeds()
	return t, nil
}

func (t *Template) check(p *problems) {
	switch {
	case len(t.locales) == 0:
		p.add(WordTemplate, `there are no locales: give "locales": {"en": {"title": "…", "body": "…"}}`)
	case t.defaultLocale == "":
		p.add(WordTemplate, "there is no default_locale: name one of the locales")
	case t.locales[t.defaultLocale] == nil:
		p.add(WordTemplate, "default_locale %s is not among the locales", t.defaultLocale)
	}
}

func (t *Template) gatherNeeds() {
	for _, l := range t.locales {
		for text := range l.base.all {
			t.needs = append(t.needs, text.Needs()...)
		}
		for _, variant := range l.variants {
			for text := range variant.all {
				t.needs = append(t.needs, text.Needs()...)
			}
		}
	}
	slices.SortFunc(t.needs, func(a, b liquid.Need) int {
		if c := slices.Compare(a.Path, b.Path); c != 0 {
			return c
		}
		return int(a.Kind) - int(b.Kind)
	})
	t.needs = slices.CompactFunc(t.needs, func(a, b liquid.Need) bool { return a.Kind == b.Kind && slices.Equal(a.Path, b.Path) })
}

func (t *Template) readLocales(raw string, p *problems) {
	if !p.object("locales", raw) {
		return
	}
	spelt := map[string]string{} // how each that is there was named, but for case
	c := newCursor(raw)
	for key, raw, ok := c.member(); ok; key, raw, ok = c.member() {
		written, err := jsonText(key)
		name := ""
		if err == nil {
			name, err = locale.Canonical(written)
		}
		if err != nil {
			p.add(WordTemplate, "locales: %s %v", cited(strings.Trim(key, `"`)), locale.ErrUnknown)
			continue
		}
		path := "locales." + name
		written = strings.ToLower(strings.ReplaceAll(written, "_", "-"))
		before, twice := spelt[name]
		switch {
		case twice && before == written:
			p.add(WordDuplicateField, "%s is there twice", path)
			continue
		case twice && before == strings.ToLower(name):
			// Records of before names out of use got today's may have both, iw and he: today's stands.
			continue
		}
		spelt[name] = written
		if p.object(path, raw) {
			t.locales[name] = (&localeReader{problems: p, locale: name}).read(path, raw)
		}
	}
}

// localeReader reads the texts of one locale.
type localeReader struct {
	*problems
	locale string
}

func (r *localeReader) read(path, raw string) *localized {
	l := &localized{base: &texts{}, variants: map[string]*texts{}}
	before := r.count()
	locale := fields{path: path, known: localeFields}
	c := newCursor(raw)
	for key, raw, ok := c.member(); ok; key, raw, ok = c.member() {
		at, name := locale.take(key, r.problems)
		switch {
		case at < 0 || raw == "null":
		case at < len(contentFields):
			r.content(l.base, at, locale.name(name), raw)
		default:
			l.variants[name] = r.variant(name, locale.name(name), raw)
		}
	}
	if b := l.base; r.count() == before && b.title == nil && b.body == nil && b.data == nil {
		r.add(WordTemplate, "%s is empty: give a title, a body or data", path)
	}
	for _, v := range l.variants {
		v.inherit(l.base)
	}
	return l
}

// variant reads the texts of a channel. What it leaves out is the base's.
func (r *localeReader) variant(channel, path, raw string) *texts {
	v := &texts{email: channel == "email"}
	if !r.object(path, raw) {
		return v
	}
	known := contentFields
	switch channel {
	case "sms":
		known = smsFields
	case "email":
		known = emailFields
	}
	before := r.count()
	variant := fields{path: path, known: known}
	c := newCursor(raw)
	for key, raw, ok := c.member(); ok; key, raw, ok = c.member() {
		at, name := variant.take(key, r.problems)
		if at < 0 || raw == "null" {
			continue
		}
		name = variant.name(name)
		switch {
		case v.email && at == 0:
			v.title = r.text(name, raw, MaxTitleBytes)
		case v.email:
			v.body = r.parse(name, r.problems.text(name, raw), liquid.Options{MaxLiteral: MaxHTMLBytes, HTML: true})
		case channel == "sms":
			v.body = r.text(name, raw, MaxBodyBytes)
		default:
			r.content(v, at, name, raw)
		}
	}
	switch {
	case r.count() > before:
	case v.email && v.body == nil:
		r.add(WordTemplate, "%s has no html", path)
	case v.title == nil && v.body == nil && v.url == nil && v.image == nil && v.data == nil:
		r.add(WordTemplate, "%s is empty: leave it out, or give what differs from the other channels", path)
	}
	return v
}

func (t *texts) inherit(base *texts) {
	for _, pair := range []struct{ own, base **liquid.Text }{{&t.title, &base.title}, {&t.body, &base.body}, {&t.url, &base.url}, {&t.image, &base.image}} {
		if *pair.own == nil {
			*pair.own = *pair.base
		}
	}
	if t.data == nil {
		t.data = base.data
	}
}

// content reads a field by its place in contentFields.
func (r *localeReader) content(into *texts, at int, name, raw string) {
	switch at {
	case 0:
		into.title = r.text(name, raw, MaxTitleBytes)
	case 1:
		into.body = r.text(name, raw, MaxBodyBytes)
	case 2:
		into.url = r.text(name, raw, MaxLinkBytes)
	case 3:
		into.image = r.text(name, raw, MaxLinkBytes)
	case 4:
		into.data = r.data(name, raw)
	}
}

// text parses a field; most bounds what is printed whatever the variables are.
func (r *localeReader) text(path, raw string, most int) *liquid.Text {
	return r.parse(path, r.problems.text(path, raw), liquid.Options{MaxLiteral: most})
}

func (r *localeReader) parse(path, source string, o liquid.Options) *liquid.Text {
	o.Locale = r.locale
	o.KnownZone = func(name string) bool {
		_, err := knownTimezone(name)
		return err == nil
	}
	if source == "" {
		return nil
	}
	text, err := liquid.Parse(source, o)
	if err != nil {
		r.add(WordTemplate, "%s: %v", path, err)
		return nil
	}
	return text
}

// data cuts a JSON text at those of its strings that are to be rendered: each is a text of its own.
func (r *localeReader) data(path, raw string) []jsonPart {
	if !r.object(path, raw) {
		return nil
	}
	before := r.count()
	checkJSON(raw, path, r.problems)
	if r.count() > before {
		return nil
	}
	var parts []jsonPart
	literal, size := 0, 0
	for i := 0; i < len(raw); i++ {
		if raw[i] != '"' {
			continue
		}
		end := endOfText(raw, i)
		quoted := raw[i:end]
		if strings.Contains(quoted, "{{") || strings.Contains(quoted, "{%") {
			source, err := jsonText(quoted)
			if err != nil { // checkJSON has seen it
				continue
			}
			parts = append(parts, jsonPart{literal: raw[literal : i+1]}, jsonPart{text: r.parse(path, source, liquid.Options{MaxLiteral: MaxDataBytes})})
			size += i + 1 - literal
			literal = end - 1
		}
		i = end - 1
	}
	r.limit(WordTemplate, path, size+len(raw)-literal, MaxDataBytes)
	return append(parts, jsonPart{literal: raw[literal:]})
}
