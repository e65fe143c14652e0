package template_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/liquid"
	"github.com/klivvr/whisper/domain/template"
	"github.com/klivvr/whisper/domain/whisperv1"
)

const receipt = `{"default_locale": "en", "timezone": "Africa/Cairo", "locales": {
 "en": {"title": "Receipt", "body": "You paid {{ amount | currency: currency }} on {{ at | date: 'long' }}.", "url": "app://r/{{ id }}", "data": {"id": "{{ id }}", "q": "{{ shop | default: 'a \"shop\"' }}"},
  "push": {"body": "Paid {{ amount | currency: currency }}"}, "apns": {"title": "iPhone"},
  "sms": {"body": "Paid {{ amount }} {{ currency }}"},
  "email": {"subject": "Receipt {{ id }}", "html": "<b>{{ shop }}</b>{% capture x %}<i>{{ shop }}</i>{% endcapture %}{{ x }}"}},
 "ar": {"title": "إيصال", "body": "دفعت {{ amount | currency: currency }}"}}}`

func TestChannelsHaveTheirTexts(t *testing.T) {
	t.Parallel()
	tmpl := parseTemplate(t, receipt)
	variables := []byte(`{"amount": 120.5, "currency": "EGP", "at": "2026-11-24T22:30:00Z", "id": "7", "shop": "A & \"B\""}`)
	if err := tmpl.CheckVariables(variables); err != nil {
		t.Fatal(err)
	}
	data := []byte(`{"id": "7", "q": "A & \"B\""}`)
	base := &whisperv1.Content{Title: "Receipt", Body: "You paid EGP\u00a0120.50 on November 25, 2026.", Url: "app://r/7", Data: data}
	push := &whisperv1.Content{Title: "Receipt", Body: "Paid EGP\u00a0120.50", Url: "app://r/7", Data: data}
	for _, tt := range []struct {
		locale, channel, variant string
		want                     *whisperv1.Content
	}{
		{"en-GB", "", "", base},
		{"en", "socket", "", base},
		{"en", "webhook", "", base},
		{"en", "push", "push", push},
		{"en", "fcm", "push", push},
		{"en", "apns", "apns", &whisperv1.Content{Title: "iPhone", Body: base.GetBody(), Url: "app://r/7", Data: data}},
		{"en", "sms", "sms", &whisperv1.Content{Title: "Receipt", Body: "Paid 120.5 EGP", Url: "app://r/7", Data: data}},
		{"en", "email", "email", &whisperv1.Content{Title: "Receipt 7", Body: "<b>A &amp; &#34;B&#34;</b><i>A &amp; &#34;B&#34;</i>", Url: "app://r/7", Data: data}},
		{"ar-EG", "push", "", &whisperv1.Content{Title: "إيصال", Body: "دفعت ١٢٠٫٥٠\u00a0ج.م."}},
	} {
		got, _, err := tmpl.Render(template.Rendering{Variables: variables, Locale: tt.locale, Channel: tt.channel})
		if err != nil || !proto.Equal(got, tt.want) {
			t.Errorf("%s %s:\ngot  %v %v\nwant %v", tt.locale, tt.channel, got, err, tt.want)
		}
		if v := tmpl.Variant(tt.locale, tt.channel); v != tt.variant {
			t.Errorf("%s %s: variant %q", tt.locale, tt.channel, v)
		}
	}
	// The user's zone comes before the template's.
	got, _, err := tmpl.Render(template.Rendering{Variables: variables, Timezone: "America/New_York"})
	if err != nil || !strings.Contains(got.GetBody(), "November 24") {
		t.Error(got, err)
	}
	if !tmpl.PerUser("en") || tmpl.PerUser("ar") {
		t.Error("a date in the user's zone differs from user to user, an amount does not")
	}
	if got, want := strings.Join(tmpl.Needs(), " "), "amount at currency id shop"; got != want {
		t.Errorf("needs %s", got)
	}
	err = tmpl.CheckVariables([]byte(`{"amount": "much", "currency": "EGP", "at": "", "id": []}`))
	if want := "variable amount is not a number such as 12 or 120.50; variable id is an object or a list, not a text, a number, true or false; variable shop is missing"; err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestANotificationThatSaysNothingIsAnError(t *testing.T) {
	t.Parallel()
	tmpl := parseTemplate(t, `{"default_locale": "en", "locales": {"en": {"body": "{% if vip %}Hello{% endif %}"}}}`)
	_, _, err := tmpl.Render(template.Rendering{})
	if want := "there is neither a title nor a body nor data: every text came out empty"; err == nil || err.Error() != want {
		t.Errorf("error is %v", err)
	}
}

func TestPinnedNames(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]struct {
		id      string
		version int64
	}{"card": {"card", 0}, "card@3": {"card", 3}, "card@": {"card@", 0}, "@3": {"@3", 0}, "card@0": {"card@0", 0}, "card@x": {"card@x", 0}, "a@1@22": {"a@1", 22}, "card@99999999999999999999": {"card@99999999999999999999", 0}, "card@-1": {"card@-1", 0}} {
		if id, version := template.Split(name); id != want.id || version != want.version {
			t.Errorf("%s: %s, %d", name, id, version)
		}
	}
	if template.CheckID("card-payment") != nil || template.CheckID("a@b") == nil || template.CheckID(strings.Repeat("x", 109)) == nil {
		t.Error("ids of templates are not checked")
	}
}

// TestBigTemplatesParseInTime: 256 KB of the dearest source is refused or read, and holds nobody up.
func TestBigTemplatesParseInTime(t *testing.T) {
	t.Parallel()
	for _, piece := range []string{"{{a}}", "{%if a%}", "{% raw %}", "{", "{{", `{{ a | append: b | append: c }}`, `{{ a | plural: other: '#' }}`, `{{ a['b']['c'] }}`, "{{ a | default: b", "{% comment %}"} {
		text := strings.ReplaceAll(strings.Repeat(piece, (32<<10)/len(piece)), `"`, `\"`)
		var value strings.Builder
		value.WriteString(`{"default_locale": "en", "locales": {"en": {"body": "x"}`)
		for _, locale := range []string{"ar", "fr", "de", "es", "it", "nl", "pl"} {
			value.WriteString(`, "` + locale + `": {"body": "` + text + `"}`)
		}
		value.WriteString(`}}`)
		began := time.Now()
		if tmpl, err := template.Parse([]byte(value.String())); err == nil {
			_, _, _ = tmpl.Render(template.Rendering{Locale: "ar", Variables: []byte(`{"a": "x", "b": "y", "c": "z"}`)})
		}
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("%s: %s", piece, took)
		}
	}
}

// TestATemplateOfBombsFailsAsOne: the budget is for all of a template's texts together.
func TestATemplateOfBombsFailsAsOne(t *testing.T) {
	t.Parallel()
	bomb := "{% for i in (1..100000000) %}{% endfor %}"
	tmpl := parseTemplate(t, `{"default_locale": "en", "locales": {"en": {"title": "`+bomb+`", "body": "`+bomb+`", "url": "`+bomb+`", "data": {"a": "`+bomb+`"}}}}`)
	_, _, err := tmpl.Render(template.Rendering{})
	told := "needs more than 10000 steps: a loop or a value is too long"
	if want := "title: " + told + "; body: " + told + "; url: " + told + "; data: " + told; err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if liquid.MaxSteps != 10_000 {
		t.Error("docs/templates.md tells another number of steps")
	}
}

// TestRenderedContentsKeepTheirLimits, whatever the texts and the variables are.
func TestRenderedContentsKeepTheirLimits(t *testing.T) {
	t.Parallel()
	tmpl := parseTemplate(t, `{"default_locale": "en", "locales": {"en": {"title": "{{ a }}", "body": "{% for i in l %}{{ a }}{{ i }}{% endfor %}", "url": "{{ b }}", "image": "{{ b | append: a }}", "data": {"x": "{{ a }}", "y": ["{{ b }}", "{{ a }}"]}}}}`)
	rapid.Check(t, func(rt *rapid.T) {
		a := strings.Repeat(rapid.SampledFrom([]string{"x", "é", `\"`, `\u0000`, `\n`, "م"}).Draw(rt, "a"), rapid.IntRange(0, 5000).Draw(rt, "times"))
		l := strings.Repeat("1,", rapid.IntRange(0, 20).Draw(rt, "items")) + "2"
		content, _, err := tmpl.Render(template.Rendering{Variables: []byte(`{"a":"` + a + `","b":"b` + a + `","l":[` + l + `]}`)})
		if err != nil {
			return
		}
		for _, field := range []struct{ have, most int }{
			{len(content.GetTitle()), domain.MaxTitleBytes},
			{len(content.GetBody()), domain.MaxBodyBytes},
			{len(content.GetUrl()), domain.MaxLinkBytes},
			{len(content.GetImage()), domain.MaxLinkBytes},
			{len(content.GetData()), domain.MaxDataBytes},
		} {
			if field.have > field.most {
				rt.Fatalf("%d bytes of %d", field.have, field.most)
			}
		}
	})
}

// TestTextsAreChosenByWhatALocaleInheritsFrom, and a record of before names out of use got today's may have both names.
func TestTextsAreChosenByWhatALocaleInheritsFrom(t *testing.T) {
	t.Parallel()
	tmpl := parseTemplate(t, `{"default_locale": "en", "locales": {"en": {"body": "en"}, "zh": {"body": "simplified"}, "zh_TW": {"body": "traditional"},
		"es": {"body": "es"}, "es-419": {"body": "es-419"}, "pt": {"body": "pt"}, "pt-PT": {"body": "pt-PT"}, "no": {"body": "old"}, "nb": {"body": "nb"}, "he": {"body": "he"}, "iw": {"body": "old"}}}`)
	for locale, want := range map[string]string{
		"zh-TW": "traditional", "zh_HK": "traditional", "zh-Hant": "traditional", "zh-CN": "simplified", "zh_CN_#Hans": "simplified", "es-MX": "es-419", "es-ES": "es",
		"pt-AO": "pt-PT", "pt_BR": "pt", "en-IN": "en", "no": "nb", "nn-NO": "nb", "iw_IL": "he", "": "en", "uk": "en", "???": "en",
	} {
		content, used, err := tmpl.Render(template.Rendering{Locale: locale})
		if err != nil || content.GetBody() != want {
			t.Errorf("%s gets %q of %s, want %q (%v)", locale, content.GetBody(), used, want, err)
		}
	}
	if _, err := template.Parse([]byte(`{"default_locale": "pt-BR", "locales": {"pt_BR": {"body": "a"}, "pt-BR": {"body": "b"}}}`)); err == nil || err.Error() != "locales.pt-BR is there twice" {
		t.Errorf("error is %v", err)
	}
}
