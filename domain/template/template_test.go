package template_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/domain/record"
	"github.com/klivvr/whisper/domain/template"
	"github.com/klivvr/whisper/domain/whisperv1"
)

const cardTemplate = `{"default_locale": "en", "locales": {
 "en": {"title": "Card payment", "body": "Hello {{ user.attributes.name }}: {{amount}} {{ currency }} at {{ shop.name }}", "url": "app://pay/{{ shop.id }}", "data": {"amount": "{{ amount }}", "deep": [{"who": "{{ user.attributes.name }}"}], "n": 1}},
 "AR-eg": {"body": "{{ user.locale }} {{ amount }}"},
 "ar": {"body": "ar {{ amount }}"}}}`

func parseTemplate(t testing.TB, value string) *template.Template {
	t.Helper()
	tpl, err := template.Parse([]byte(value))
	if err != nil {
		t.Fatal(err)
	}
	return tpl
}

func TestRenderFillsInAndFallsBack(t *testing.T) {
	t.Parallel()
	tpl := parseTemplate(t, cardTemplate)
	variables := []byte(` {"amount": 120.50, "currency": "EGP", "shop": {"name": "A \"B\" <c>", "id": "x\u0031"}, "unused": []}`)
	if err := tpl.CheckVariables(variables); err != nil {
		t.Error(err)
	}
	for _, tt := range []struct {
		locale, used string
		want         *whisperv1.Content
	}{
		{"ar-EG", "ar-EG", &whisperv1.Content{Body: "ar-EG 120.50"}},
		{"ar-eg-x-bank", "ar-EG", &whisperv1.Content{Body: "ar-eg-x-bank 120.50"}},
		{"ar-SA", "ar", &whisperv1.Content{Body: "ar 120.50"}},
		{"", "en", &whisperv1.Content{
			Title: "Card payment", Body: "Hello Mo\"na\n: 120.50 EGP at A \"B\" <c>", Url: "app://pay/x1",
			Data: []byte(`{"amount": "120.50", "deep": [{"who": "Mo\"na\n"}], "n": 1}`),
		}},
		{"not a locale", "en", nil},
		{"fr-FR", "en", nil},
	} {
		mona := &whisperv1.Profile{Locale: tt.locale, Attributes: []byte(`{"name":"Mo\"na\n"}`)}
		got, used, err := tpl.Render(template.RenderingFor(variables, mona, "", time.Time{}))
		if err != nil || used != tt.used {
			t.Errorf("%s: %s, %v", tt.locale, used, err)
			continue
		}
		if tt.want != nil && !proto.Equal(got, tt.want) {
			t.Errorf("%s:\ngot  %v\nwant %v", tt.locale, got, tt.want)
		}
		if d := got.GetData(); d != nil && !json.Valid(d) {
			t.Errorf("%s: data is not JSON: %s", tt.locale, d)
		}
	}
}

func TestRenderNeverLeavesAHole(t *testing.T) {
	t.Parallel()
	tpl := parseTemplate(t, cardTemplate)
	content, _, err := tpl.Render(template.Rendering{Variables: []byte(`{"amount":null,"currency":{},"shop":"x"}`)})
	want := "body: user.attributes.name is missing; body: amount is missing; body: currency is an object or a list, not a text, a number, true or false; " +
		"body: shop.name is missing; url: shop.id is missing; data: amount is missing; data: user.attributes.name is missing"
	if content != nil || err == nil || err.Error() != want {
		t.Errorf("got  %v, %v\nwant %s", content, err, want)
	}
	want = "variable amount is missing; variable currency is an object or a list, not a text, a number, true or false; variable shop.id is missing; variable shop.name is missing"
	if err := tpl.CheckVariables([]byte(`{"currency":[]}`)); err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	long := parseTemplate(t, `{"default_locale":"en","locales":{"en":{"body":"{{ a }}"}}}`)
	_, _, err = long.Render(template.Rendering{Variables: []byte(`{"a":"` + strings.Repeat("x", 4097) + `"}`)})
	if want = "body: has more than 4096 bytes, which is all that is allowed"; err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if _, _, err := long.Render(template.Rendering{Variables: []byte(`{"a`)}); err == nil {
		t.Error("variables that are not JSON render")
	}
}

func TestParseTemplateSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	body := func(text string) string {
		quoted, _ := json.Marshal(text)
		return `{"default_locale":"en","locales":{"en":{"body":` + string(quoted) + `}}}`
	}
	for _, tt := range []struct{ name, value, word, want string }{
		{"not JSON", `{`, "malformed", `the template is cut off: its JSON ends after 1 bytes, in the middle of a value`},
		{"too large", strings.Repeat("x", 256<<10+1), "too_large", `the template has 262145 bytes, at most 262144 are allowed`},
		{"unknown", `{"locale":{}}`, "unknown_field", `unknown field "locale"; known are default_locale, timezone, locales`},
		{"nothing", `{}`, "template", `there are no locales: give "locales": {"en": {"title": "…", "body": "…"}}`},
		{"no default", `{"locales":{"en":{"body":"b"}}}`, "template", `there is no default_locale: name one of the locales`},
		{"default unknown", `{"default_locale":"ar","locales":{"en":{"body":"b"}}}`, "template", `default_locale ar is not among the locales`},
		{"bad locale", `{"default_locale":"en","locales":{"en":{"body":"b"},"english":{}}}`, "template", `locales: "english" is not a BCP 47 locale such as "ar-EG"`},
		{"locale twice", `{"default_locale":"en","locales":{"en":{"body":"b"},"EN":{"body":"b"}}}`, "duplicate_field", `locales.en is there twice`},
		{"no text", `{"default_locale":"en","locales":{"en":{"url":"x"}}}`, "template", `locales.en is empty: give a title, a body or data`},
		{"unknown text", `{"default_locale":"en","locales":{"en":{"subject":"x"}}}`, "unknown_field", `unknown field "subject" in locales.en; known are title, body, url, image, data, socket, push, apns, fcm, webpush, email, sms, webhook`},
		{
			"types", `{"default_locale":1,"locales":{"en":{"title":1,"data":[]},"ar":"x"}}`, "wrong_type",
			`default_locale must be a string, not a number; locales.en.title must be a string, not a number; locales.en.data must be an object, not a list; locales.ar must be an object, not a string`,
		},
		{"filter", body("{{ amount | shout }} {{ b }}"), "template", `locales.en.body: {{ amount | shout }}: unknown filter shout; known are ` + filterNames},
		{"tag", body("{{ a }}{% include 'b' %}"), "template", `locales.en.body: {% include 'b' %}: unknown tag include; known are if, unless, case, for, assign, capture, comment, raw, break, continue`},
		{"open", body("Hello {{ name"), "template", `locales.en.body: a placeholder or tag is not closed: {{ name: {{ without }}`},
		{"no path", body("{{ a b }}"), "template", `locales.en.body: {{ a b }}: b is not expected there`},
		{"user", body("{{ user.token }}"), "template", `locales.en.body: {{ user.token }}: user.token is not known: of the user there are user.locale, user.timezone and user.attributes.NAME`},
		{"time zone", `{"default_locale":"en","timezone":"Cairo","locales":{"en":{"body":"b"}}}`, "profile", `timezone "Cairo" is not a time zone of the IANA database such as "Africa/Cairo"`},
		{"data", `{"default_locale":"en","locales":{"en":{"data":{"a":"{{ a | default: \"b\" }}","c":["{% if %}"]}}}}`, "template", `locales.en.data: {% if %}: a value is expected, not the end`},
		{"sms has no title", `{"default_locale":"en","locales":{"en":{"body":"b","sms":{"title":"t"}}}}`, "unknown_field", `unknown field "title" in locales.en.sms; known are body`},
		{"email without html", `{"default_locale":"en","locales":{"en":{"body":"b","email":{"subject":"s"},"push":{}}}}`, "template", `locales.en.email has no html; locales.en.push is empty: leave it out, or give what differs from the other channels`},
		{"too long", body(strings.Repeat("x", 4097)), "template", `locales.en.body: has 4097 bytes, at most 4096 are allowed`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := template.Parse([]byte(tt.value))
			var invalid *record.Invalid
			if !errors.As(err, &invalid) {
				t.Fatalf("error is %v", err)
			}
			if err.Error() != tt.want || invalid.Word != tt.word {
				t.Errorf("got  %s (%s)\nwant %s (%s)", err, invalid.Word, tt.want, tt.word)
			}
		})
	}
}

const filterNames = "abs, append, at_least, at_most, capitalize, ceil, currency, date, default, divided_by, downcase, escape, first, floor, join, last, lstrip, map, minus, modulo, " +
	"number, percent, plural, plus, prepend, remove, remove_first, replace, replace_first, reverse, round, rstrip, size, slice, split, strip, strip_newlines, times, truncate, truncatewords, upcase, url_encode"

func FuzzTemplate(f *testing.F) {
	f.Add([]byte(cardTemplate), []byte(`{"amount":1,"currency":"x","shop":{"name":"n","id":"i"}}`), []byte(`{"name":"x"}`))
	f.Add([]byte(`{"default_locale":"en","locales":{"en":{"data":{"a":"{{ a }}"}}}}`), []byte(`{"a`), []byte(`[`))
	f.Fuzz(func(t *testing.T, value, variables, attributes []byte) {
		tpl, err := template.Parse(value)
		if err != nil {
			return
		}
		content, _, err := tpl.Render(template.Rendering{Variables: variables, Locale: "ar-EG", Attributes: string(attributes)})
		if err != nil {
			return
		}
		if json.Valid(variables) && json.Valid(attributes) && content.GetData() != nil && !json.Valid(content.GetData()) {
			t.Errorf("data is not JSON: %s", content.GetData())
		}
	})
}

func BenchmarkRender(b *testing.B) {
	tpl := parseTemplate(b, cardTemplate)
	variables := []byte(`{"amount": 120.50, "currency": "EGP", "shop": {"name": "A", "id": "x"}}`)
	mona := &whisperv1.Profile{Locale: "en-GB", Attributes: []byte(`{"name":"Mona"}`)}
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := tpl.Render(template.RenderingFor(variables, mona, "", time.Time{})); err != nil {
			b.Fatal(err)
		}
	}
}

func TestTemplateTellsWhichTextsAreShared(t *testing.T) {
	t.Parallel()
	tmpl, err := template.Parse([]byte(`{"default_locale": "en", "locales": {
		"en": {"title": "Hello {{ user.attributes.name }}", "body": "{{ amount }}"},
		"ar": {"title": "أهلا", "body": "{{ amount }}"}}}`))
	if err != nil {
		t.Fatal(err)
	}
	for locale, want := range map[string]bool{"en": true, "en-GB": true, "fr": true, "": true, "ar": false, "ar-EG": false} {
		if got := tmpl.PerUser(locale); got != want {
			t.Errorf("PerUser(%q) is %v", locale, got)
		}
	}
}
