package domain

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"

	"github.com/klivvr/whisper/domain/whisperv1"
)

// CheckVariables says which variables the template's texts need, in any locale, and the request does
// not give; nil: it gives all. variables is a JSON object or nil.
func (t *Template) CheckVariables(variables []byte) error {
	var p problems
	object := string(variables)
	for _, path := range t.variables {
		if _, err := lookUp(object, strings.Split(path, ".")); err != nil {
			p.add(WordTemplate, "variable %s %v", path, err)
		}
	}
	return p.err()
}

// Locale is the one whose texts a user with this locale gets: ar-EG → ar → the default one.
func (t *Template) Locale(locale string) string {
	if canonical, err := CanonicalLocale(locale); err == nil {
		for name := canonical; name != ""; {
			if t.texts[name] != nil {
				return name
			}
			cut := strings.LastIndexByte(name, '-')
			if cut < 0 {
				break
			}
			name = name[:cut]
		}
	}
	return t.defaultLocale
}

// PerUser says whether the texts that a user with this locale gets differ from user to user; where they do
// not, what is rendered once serves all who share the locale.
func (t *Template) PerUser(locale string) bool {
	l := t.texts[t.Locale(locale)]
	for _, text := range [][]segment{l.title, l.body, l.url, l.image, l.data} {
		for _, s := range text {
			if s.path != nil && s.path[0] == "user" {
				return true
			}
		}
	}
	return false
}

// Render fills in the texts for a user and says which locale they are in. variables is the request's
// JSON object or nil; the profile of a user who has none is nil. A placeholder that has no
// value, or a text that gets too long, is an error that names all of them: never a half-rendered text.
func (t *Template) Render(variables []byte, profile *whisperv1.Profile) (*whisperv1.Content, string, error) {
	used := t.Locale(profile.GetLocale())
	r := rendering{variables: string(variables), attributes: string(profile.GetAttributes()), locale: profile.GetLocale()}
	if r.locale == "" {
		r.locale = used
	}
	l := t.texts[used]
	content := &whisperv1.Content{
		Title: r.fill("title", l.title, MaxTitleBytes, plain),
		Body:  r.fill("body", l.body, MaxBodyBytes, plain),
		Url:   r.fill("url", l.url, MaxLinkBytes, plain),
		Image: r.fill("image", l.image, MaxLinkBytes, plain),
	}
	if l.data != nil {
		content.Data = []byte(r.fill("data", l.data, MaxDataBytes, insideJSON))
	}
	if r.any() {
		return nil, used, r.err()
	}
	return content, used, nil
}

type rendering struct {
	problems
	variables, attributes string // JSON objects, or ""
	locale                string
}

func (r *rendering) fill(field string, segments []segment, most int, quote func(string) string) string {
	if len(segments) == 1 && segments[0].path == nil {
		return segments[0].literal
	}
	var out strings.Builder
	for _, s := range segments {
		if s.path == nil {
			out.WriteString(s.literal)
			continue
		}
		value, err := r.value(s.path)
		if err != nil {
			r.add(WordTemplate, "%s: %s %v", field, strings.Join(s.path, "."), err)
			continue
		}
		out.WriteString(quote(value))
	}
	r.limit(WordTemplate, "the rendered "+field, out.Len(), most)
	return out.String()
}

func (r *rendering) value(path []string) (string, error) {
	switch {
	case path[0] != "user":
		return lookUp(r.variables, path)
	case path[1] == "locale":
		return r.locale, nil
	default:
		return lookUp(r.attributes, path[2:])
	}
}

var (
	errMissing = errors.New("is missing")
	errNoText  = errors.New("is an object or a list, not a text, a number, true or false")
)

// lookUp finds a value in a JSON object and gives it as text: numbers keep their digits.
func lookUp(object string, path []string) (string, error) {
	value := strings.TrimLeft(object, " \t\r\n")
	for _, name := range path {
		if value == "" || value[0] != '{' {
			return "", errMissing
		}
		value = memberOf(value, name)
	}
	if value == "" {
		return "", errMissing
	}
	switch value[0] {
	case '"':
		return jsonText(value)
	case '{', '[':
		return "", errNoText
	case 'n':
		return "", errMissing
	default:
		return value, nil
	}
}

func memberOf(object, name string) string {
	c := jsonCursor{s: object}
	for key, value, ok := c.member(); ok; key, value, ok = c.member() {
		if k, err := jsonText(key); err == nil && k == name {
			return value
		}
	}
	return ""
}

func plain(s string) string { return s }

// insideJSON is a text as it stands between the quotes of a JSON string.
func insideJSON(s string) string {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil { // a string always encodes
		return ""
	}
	quoted := strings.TrimSuffix(out.String(), "\n")
	return quoted[1 : len(quoted)-1]
}
