package template

import (
	"slices"
	"strings"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/liquid"
	"github.com/klivvr/whisper/domain/locale"
	"github.com/klivvr/whisper/domain/localtime"
	"github.com/klivvr/whisper/domain/record"
)

var (
	templateFields = []string{"default_locale", "timezone", "locales"}
	// A locale has the fields of a content, and channels with texts of their own.
	localeFields = slices.Concat(domain.ContentFields, domain.ChannelNames)
	smsFields    = []string{"body"}
	emailFields  = []string{"subject", "html"}
)

// Parse reads the value of a record. The empty value, which removes a template, is not a template: callers check for it
// first. The error is an [*record.Invalid] with all problems.
func Parse(value []byte) (*Template, error) {
	var p record.Problems
	if len(value) > MaxBytes {
		p.Add(record.WordTooLarge, "the template has %d bytes, at most %d are allowed", len(value), MaxBytes)
		return nil, p.Err()
	}
	text, ok := record.Open(value, "the template", &p)
	if !ok {
		return nil, p.Err()
	}
	t := &Template{locales: map[string]*localized{}}
	object := record.Fields{Known: templateFields}
	c := record.NewCursor(text)
	for key, raw, ok := c.Member(); ok; key, raw, ok = c.Member() {
		switch at, name := object.Take(key, &p); at {
		case 0:
			if canonical := p.OrNull(name, raw, locale.Canonical); canonical != nil {
				t.defaultLocale = *canonical
			}
		case 1:
			if zone := p.OrNull(name, raw, localtime.CheckZone); zone != nil {
				t.timezone = *zone
			}
		case 2:
			t.readLocales(raw, &p)
		}
	}
	if !p.Any() {
		t.check(&p)
	}
	if p.Any() {
		return nil, p.Err()
	}
	t.chosen = locale.NewSet(t.Locales())
	t.gatherNeeds()
	return t, nil
}

func (t *Template) check(p *record.Problems) {
	switch {
	case len(t.locales) == 0:
		p.Add(record.WordTemplate, `there are no locales: give "locales": {"en": {"title": "…", "body": "…"}}`)
	case t.defaultLocale == "":
		p.Add(record.WordTemplate, "there is no default_locale: name one of the locales")
	case t.locales[t.defaultLocale] == nil:
		p.Add(record.WordTemplate, "default_locale %s is not among the locales", t.defaultLocale)
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

func (t *Template) readLocales(raw string, p *record.Problems) {
	if !p.Object("locales", raw) {
		return
	}
	spelt := map[string]string{} // how each that is there was named, but for case
	c := record.NewCursor(raw)
	for key, raw, ok := c.Member(); ok; key, raw, ok = c.Member() {
		written, err := record.Text(key)
		name := ""
		if err == nil {
			name, err = locale.Canonical(written)
		}
		if err != nil {
			p.Add(record.WordTemplate, "locales: %s %v", record.Cited(strings.Trim(key, `"`)), locale.ErrUnknown)
			continue
		}
		path := "locales." + name
		written = strings.ToLower(strings.ReplaceAll(written, "_", "-"))
		before, twice := spelt[name]
		switch {
		case twice && before == written:
			p.Add(record.WordDuplicateField, "%s is there twice", path)
			continue
		case twice && before == strings.ToLower(name):
			// A record from before old names were translated may have both, such as iw and he. Then the current name's
			// texts stand.
			continue
		}
		spelt[name] = written
		if p.Object(path, raw) {
			t.locales[name] = (&localeReader{Problems: p, locale: name}).read(path, raw)
		}
	}
}

// localeReader reads the texts of one locale.
type localeReader struct {
	*record.Problems
	locale string
}

func (r *localeReader) read(path, raw string) *localized {
	l := &localized{base: &texts{}, variants: map[string]*texts{}}
	before := r.Count()
	locale := record.Fields{Path: path, Known: localeFields}
	c := record.NewCursor(raw)
	for key, raw, ok := c.Member(); ok; key, raw, ok = c.Member() {
		at, name := locale.Take(key, r.Problems)
		switch {
		case at < 0 || raw == "null":
		case at < len(domain.ContentFields):
			r.content(l.base, at, locale.Name(name), raw)
		default:
			l.variants[name] = r.variant(name, locale.Name(name), raw)
		}
	}
	if b := l.base; r.Count() == before && b.title == nil && b.body == nil && b.data == nil {
		r.Add(record.WordTemplate, "%s is empty: give a title, a body or data", path)
	}
	for _, v := range l.variants {
		v.inherit(l.base)
	}
	return l
}

// variant reads the texts of a channel. Fields that it leaves out are the base's.
func (r *localeReader) variant(channel, path, raw string) *texts {
	v := &texts{email: channel == "email"}
	if !r.Object(path, raw) {
		return v
	}
	known := domain.ContentFields
	switch channel {
	case "sms":
		known = smsFields
	case "email":
		known = emailFields
	}
	before := r.Count()
	variant := record.Fields{Path: path, Known: known}
	c := record.NewCursor(raw)
	for key, raw, ok := c.Member(); ok; key, raw, ok = c.Member() {
		at, name := variant.Take(key, r.Problems)
		if at < 0 || raw == "null" {
			continue
		}
		name = variant.Name(name)
		switch {
		case v.email && at == 0:
			v.title = r.text(name, raw, domain.MaxTitleBytes)
		case v.email:
			v.body = r.parse(name, r.Text(name, raw), liquid.Options{MaxLiteral: MaxHTMLBytes, HTML: true})
		case channel == "sms":
			v.body = r.text(name, raw, domain.MaxBodyBytes)
		default:
			r.content(v, at, name, raw)
		}
	}
	switch {
	case r.Count() > before:
	case v.email && v.body == nil:
		r.Add(record.WordTemplate, "%s has no html", path)
	case v.title == nil && v.body == nil && v.url == nil && v.image == nil && v.data == nil:
		r.Add(record.WordTemplate, "%s is empty: leave it out, or give what differs from the other channels", path)
	}
	return v
}

func (t *texts) inherit(base *texts) {
	for _, pair := range []struct{ own, base **liquid.Text }{
		{&t.title, &base.title},
		{&t.body, &base.body},
		{&t.url, &base.url},
		{&t.image, &base.image},
	} {
		if *pair.own == nil {
			*pair.own = *pair.base
		}
	}
	if t.data == nil {
		t.data = base.data
	}
}

// content reads a field by its index in ContentFields.
func (r *localeReader) content(into *texts, at int, name, raw string) {
	switch at {
	case 0:
		into.title = r.text(name, raw, domain.MaxTitleBytes)
	case 1:
		into.body = r.text(name, raw, domain.MaxBodyBytes)
	case 2:
		into.url = r.text(name, raw, domain.MaxLinkBytes)
	case 3:
		into.image = r.text(name, raw, domain.MaxLinkBytes)
	case 4:
		into.data = r.data(name, raw)
	}
}

// text parses a field. most bounds the bytes that are printed whatever the variables are.
func (r *localeReader) text(path, raw string, most int) *liquid.Text {
	return r.parse(path, r.Text(path, raw), liquid.Options{MaxLiteral: most})
}

func (r *localeReader) parse(path, source string, o liquid.Options) *liquid.Text {
	o.Locale = r.locale
	o.KnownZone = func(name string) bool {
		_, err := localtime.CheckZone(name)
		return err == nil
	}
	if source == "" {
		return nil
	}
	text, err := liquid.Parse(source, o)
	if err != nil {
		r.Add(record.WordTemplate, "%s: %v", path, err)
		return nil
	}
	return text
}

// data divides a JSON text at the strings that have to be rendered: each is a text of its own.
func (r *localeReader) data(path, raw string) []jsonPart {
	if !r.Object(path, raw) {
		return nil
	}
	before := r.Count()
	record.CheckJSON(raw, path, r.Problems)
	if r.Count() > before {
		return nil
	}
	var parts []jsonPart
	literal, size := 0, 0
	for i := 0; i < len(raw); i++ {
		if raw[i] != '"' {
			continue
		}
		end := record.EndOfText(raw, i)
		quoted := raw[i:end]
		if strings.Contains(quoted, "{{") || strings.Contains(quoted, "{%") {
			source, err := record.Text(quoted)
			if err != nil { // CheckJSON has reported it
				continue
			}
			parts = append(parts, jsonPart{literal: raw[literal : i+1]},
				jsonPart{text: r.parse(path, source, liquid.Options{MaxLiteral: domain.MaxDataBytes})})
			size += i + 1 - literal
			literal = end - 1
		}
		i = end - 1
	}
	r.Limit(record.WordTemplate, path, size+len(raw)-literal, domain.MaxDataBytes)
	return append(parts, jsonPart{literal: raw[literal:]})
}
