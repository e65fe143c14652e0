package domain

import (
	"slices"
	"strings"
)

// MaxTemplateBytes bounds a record of whisper.templates.
const MaxTemplateBytes = 256 << 10

// Template is a valid record of whisper.templates: the texts of a notification in some locales, with
// placeholders {{ path }}. A path is a variable of the request (amount, card.last4), user.locale or
// user.attributes.PATH; of Liquid this version has nothing else. It is never changed once made, so
// any number of goroutines may render it.
type Template struct {
	defaultLocale string
	texts         map[string]*localized // by canonical locale
	variables     []string              // what the texts need of the request, sorted
}

// localized are the texts of one locale; of data the JSON text.
type localized struct{ title, body, url, image, data []segment }

// segment is a literal, or the path of a placeholder.
type segment struct {
	literal string
	path    []string
}

var (
	templateFields = []string{"default_locale", "locales"}
	// A locale's fields are those of a content.
	localeFields = contentFields
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
	t := &Template{texts: map[string]*localized{}}
	record := fields{known: templateFields}
	c := jsonCursor{s: text}
	for key, raw, ok := c.member(); ok; key, raw, ok = c.member() {
		switch at, name := record.take(key, &p); at {
		case 0:
			if locale := p.orNull(name, raw, CanonicalLocale); locale != nil {
				t.defaultLocale = *locale
			}
		case 1:
			t.readLocales(raw, &p)
		}
	}
	if !p.any() {
		t.check(&p)
	}
	if p.any() {
		return nil, p.err()
	}
	return t, nil
}

func (t *Template) check(p *problems) {
	switch {
	case len(t.texts) == 0:
		p.add(WordTemplate, `there are no locales: give "locales": {"en": {"title": "…", "body": "…"}}`)
	case t.defaultLocale == "":
		p.add(WordTemplate, "there is no default_locale: name one of the locales")
	case t.texts[t.defaultLocale] == nil:
		p.add(WordTemplate, "default_locale %s is not among the locales", t.defaultLocale)
	}
	slices.Sort(t.variables)
	t.variables = slices.Compact(t.variables)
}

func (t *Template) readLocales(raw string, p *problems) {
	if !p.object("locales", raw) {
		return
	}
	c := jsonCursor{s: raw}
	for key, raw, ok := c.member(); ok; key, raw, ok = c.member() {
		name, err := jsonText(key)
		if err == nil {
			name, err = CanonicalLocale(name)
		}
		if err != nil {
			p.add(WordTemplate, "locales: %s %v", cited(strings.Trim(key, `"`)), badLocale)
			continue
		}
		path := "locales." + name
		if t.texts[name] != nil {
			p.add(WordDuplicateField, "%s is there twice", path)
			continue
		}
		if p.object(path, raw) {
			t.texts[name] = t.readTexts(path, raw, p)
		}
	}
}

func (t *Template) readTexts(path, raw string, p *problems) *localized {
	l := &localized{}
	before := p.count()
	locale := fields{path: path, known: localeFields}
	c := jsonCursor{s: raw}
	for key, raw, ok := c.member(); ok; key, raw, ok = c.member() {
		at, name := locale.take(key, p)
		if at < 0 || raw == "null" {
			continue
		}
		name = locale.name(name)
		switch at {
		case 0:
			l.title = t.compile(name, p.text(name, raw), MaxTitleBytes, p)
		case 1:
			l.body = t.compile(name, p.text(name, raw), MaxBodyBytes, p)
		case 2:
			l.url = t.compile(name, p.text(name, raw), MaxLinkBytes, p)
		case 3:
			l.image = t.compile(name, p.text(name, raw), MaxLinkBytes, p)
		case 4:
			if p.object(name, raw) {
				checkJSON(raw, name, p)
				// Valid JSON has "{{" inside of strings only, so its text can be filled in as it is.
				l.data = t.compile(name, raw, MaxDataBytes, p)
			}
		}
	}
	if p.count() == before && l.title == nil && l.body == nil && l.data == nil {
		p.add(WordTemplate, "%s is empty: give a title, a body or data", path)
	}
	return l
}

// compile cuts a text at its placeholders; most bounds what is literal in it.
func (t *Template) compile(path, text string, most int, p *problems) []segment {
	var segments []segment
	literal := 0
	for text != "" {
		open := strings.Index(text, "{{")
		if tag := strings.Index(text, "{%"); tag >= 0 && (open < 0 || tag < open) {
			p.add(WordUnavailable, "%s: tags ({%% … %%}) are not available in this version, only placeholders such as {{ amount }}", path)
			return nil
		}
		if open != 0 {
			until := len(text)
			if open > 0 {
				until = open
			}
			segments = append(segments, segment{literal: text[:until]})
			literal += until
			text = text[until:]
			continue
		}
		inside, rest, closed := strings.Cut(text[2:], "}}")
		if !closed {
			p.add(WordTemplate, "%s: a placeholder is not closed: {{ without }}", path)
			return nil
		}
		if names := t.placeholder(path, strings.TrimSpace(inside), p); names != nil {
			segments = append(segments, segment{path: names})
		}
		text = rest
	}
	p.limit(WordTemplate, path, literal, most)
	return segments
}

// placeholder checks a path and notes what it needs.
func (t *Template) placeholder(where, inside string, p *problems) []string {
	names := strings.Split(inside, ".")
	switch {
	case strings.Contains(inside, "|"):
		p.add(WordUnavailable, "%s: {{ %s }}: filters (|) are not available in this version", where, cut(inside))
		return nil
	case !slices.ContainsFunc(names, func(n string) bool { return !isName(n) }):
	default:
		p.add(WordTemplate, "%s: {{ %s }} is not a path such as amount, user.locale or user.attributes.name", where, cut(inside))
		return nil
	}
	if names[0] != "user" {
		t.variables = append(t.variables, inside)
		return names
	}
	if inside != "user.locale" && (len(names) < 3 || names[1] != "attributes") {
		p.add(WordTemplate, "%s: {{ %s }} is not known: of the user there are user.locale and user.attributes.NAME", where, cut(inside))
		return nil
	}
	return names
}

func isName(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '_':
		case i > 0 && (c >= '0' && c <= '9' || c == '-'):
		default:
			return false
		}
	}
	return s != ""
}
