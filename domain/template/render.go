package template

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/liquid"
	"github.com/klivvr/whisper/domain/localtime"
	"github.com/klivvr/whisper/domain/record"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// CheckVariables returns an error with the variables that the template's texts need, in any locale and for any channel,
// and that the request leaves out or gives as something else (a text where a number is formatted). A variable that a
// text reads only under a condition may be left out; rendering fails if it is missing then. variables is a JSON object
// or nil.
func (t *Template) CheckVariables(variables []byte) error {
	var p record.Problems
	object := string(variables)
	for _, need := range t.needs {
		if err := need.Check(object); err != nil {
			p.Add(record.WordTemplate, "variable %s %v", need.Name(), err)
		}
	}
	return p.Err()
}

// Rendering says for which user, over which channel and when a template is rendered.
type Rendering struct {
	Variables []byte // the request's JSON object, or nil
	// The user's values, as in the profile. Attributes is a JSON object, or "".
	Locale, Timezone, Attributes string
	// Channel chooses the texts; "": the base.
	Channel string
	// Now is the time that "now" stands for in a text.
	Now time.Time
}

// RenderingFor is the Rendering for a user. profile is nil for a user without one.
func RenderingFor(variables []byte, profile *whisperv1.Profile, channel string, now time.Time) Rendering {
	return Rendering{
		Variables: variables, Locale: profile.GetLocale(), Timezone: profile.GetTimezone(), Attributes: string(profile.GetAttributes()),
		Channel: channel, Now: now,
	}
}

// Render fills in the texts for a user, and returns them with their locale. If a value is missing, or a text gets too
// long or takes too many steps, the error names all problems, and there is no text. All texts together take at most
// [liquid.MaxSteps] steps.
func (t *Template) Render(r Rendering) (*whisperv1.Content, string, error) {
	used := t.Locale(r.Locale)
	f := filling{run: liquid.Run{
		Variables: string(r.Variables), Attributes: r.Attributes, Locale: r.Locale, Timezone: r.Timezone,
		DefaultTimezone: t.timezone, Zone: loadZone, Now: r.Now,
	}}
	if f.run.Locale == "" {
		f.run.Locale = used
	}
	l := t.locales[used]
	from, body := l.base, domain.MaxBodyBytes
	if v := l.variants[l.variant(r.Channel)]; v != nil {
		from = v
	}
	if from.email {
		body = MaxHTMLBytes
	}
	content := &whisperv1.Content{
		Title: f.fill("title", from.title, domain.MaxTitleBytes),
		Body:  f.fill("body", from.body, body),
		Url:   f.fill("url", from.url, domain.MaxLinkBytes),
		Image: f.fill("image", from.image, domain.MaxLinkBytes),
		Data:  f.fillData(from.data),
	}
	if f.Any() {
		return nil, used, f.Err()
	}
	if content.GetTitle() == "" && content.GetBody() == "" && len(content.GetData()) == 0 {
		return nil, used, errNothing
	}
	return content, used, nil
}

var errNothing = errors.New("there is neither a title nor a body nor data: every text came out empty")

// filling is one render of a template.
type filling struct {
	record.Problems
	run liquid.Run
}

func (f *filling) fill(field string, text *liquid.Text, most int) string {
	if text == nil {
		return ""
	}
	made, problems := f.run.Render(text, most)
	for _, problem := range problems {
		f.Add(record.WordTemplate, "%s: %s", field, problem)
	}
	return made
}

func (f *filling) fillData(parts []jsonPart) []byte {
	if len(parts) == 0 {
		return nil
	}
	if len(parts) == 1 {
		return []byte(parts[0].literal)
	}
	var out bytes.Buffer
	for _, part := range parts {
		if part.text == nil {
			out.WriteString(part.literal)
			continue
		}
		out.WriteString(insideJSON(f.fill("data", part.text, domain.MaxDataBytes)))
		if out.Len() > domain.MaxDataBytes {
			f.Add(record.WordTemplate, "data: has more than %d bytes, which is all that is allowed", domain.MaxDataBytes)
			break
		}
	}
	return out.Bytes()
}

// insideJSON is a text as it is written between the quotes of a JSON string.
func insideJSON(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r == '"' || r == '\\' || r > 0x7e }) {
		return s
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil { // a string always encodes
		return ""
	}
	quoted := strings.TrimSuffix(out.String(), "\n")
	return quoted[1 : len(quoted)-1]
}

// loadZone returns the rules of a zone that a text or a profile names.
func loadZone(name string) (*time.Location, error) {
	if _, err := localtime.CheckZone(name); err != nil {
		return nil, err
	}
	return localtime.RulesOf(name)
}
