package liquid_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/klivvr/whisper/domain/liquid"
)

func zone(name string) (*time.Location, error) {
	if name == "Nowhere/Land" {
		return nil, fmt.Errorf("unknown time zone %s", name)
	}
	return time.LoadLocation(name)
}

func newRun(variables string) *liquid.Run {
	return &liquid.Run{
		Variables: variables, Attributes: `{"name": "Mona", "plan": "gold", "city": null}`,
		Locale: "ar-EG", Timezone: "Africa/Cairo", Zone: zone, Now: time.Date(2026, 11, 24, 22, 30, 0, 0, time.UTC),
	}
}

func parse(t testing.TB, locale, source string) *liquid.Text {
	t.Helper()
	text, err := liquid.Parse(source, liquid.Options{Locale: locale, KnownZone: func(z string) bool { return z != "Cairo" }})
	if err != nil {
		t.Fatalf("%s: %v", source, err)
	}
	return text
}

const variables = `{"name": "Omar", "amount": 120.50, "currency": "EGP", "count": 3, "zero": 0, "yes": true, "no": false, "nothing": null,
 "empty": "", "long": 12345678901234567890.25, "items": [{"name": "tea", "price": 5}, {"name": "cake", "price": 12.5}], "words": ["a", "b", "c"],
 "at": "2026-11-24T09:05:00Z", "day": "2026-11-04", "deep": {"er": {"est": "here", "a b": "quoted"}}, "key": "er", "none": []}`

func TestRender(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ source, want string }{
		{"plain", "plain"},
		{"{{ name }} {{amount}} {{ deep.er.est }} {{ yes }}", "Omar 120.50 here true"},
		{`{{ deep["er"]["a b"] }} {{ deep[key].est }} {{ items[1].name }} {{ items[-1].price }} {{ words.first }}{{ words.last }}{{ words.size }}`, "quoted here cake 12.5 ac3"},
		{"{{ user.attributes.name }} {{ user.locale }} {{ user.timezone }}", "Mona ar-EG Africa/Cairo"},
		{"a {{- name -}} b", "aOmarb"},
		{"a\n{%- if yes -%}\n b \n{%- endif -%}\n c", "abc"},
		{"{% raw %}{{ x }}{% if %}{% endraw %}{% comment %}{{ broken {% endcomment %}!", "{{ x }}{% if %}!"},
		{"{% if nothing %}a{% elsif zero %}b{% else %}c{% endif %}", "b"},
		{"{% if no or yes %}a{% endif %}{% if yes and no %}b{% endif %}{% unless no %}c{% endunless %}", "ac"},
		{"{% if never %}a{% else %}b{% endif %}{% if never == nil %}c{% endif %}{% if user.attributes.city != nil %}d{% endif %}", "bc"},
		{`{% if count > 2 %}a{% endif %}{% if amount <= 120.5 %}b{% endif %}{% if amount == 120.5 %}c{% endif %}{% if name contains "ma" %}d{% endif %}{% if words contains "b" %}e{% endif %}`, "abcde"},
		{`{% if empty == empty %}a{% endif %}{% if none == empty %}b{% endif %}{% if nothing == blank %}c{% endif %}{% if name == empty %}d{% endif %}`, "abc"},
		{`{% case count %}{% when 1 %}one{% when 2, 3 %}few{% else %}many{% endcase %}`, "few"},
		{"{% for i in items %}{{ forloop.index }}/{{ forloop.length }} {{ i.name }}{% unless forloop.last %}, {% endunless %}{% endfor %}", "1/2 tea, 2/2 cake"},
		{"{% for i in (1..5) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 4 %}{% break %}{% endif %}{{ i }}{% endfor %}", "13"},
		{"{% for i in words reversed limit: 2 %}{{ i }}{% endfor %}{% for i in words offset: 1 %}{{ i }}{% endfor %}{% for i in none %}x{% else %}nil{% endfor %}", "babcnil"},
		{"{% for i in words %}{% for j in (1..2) %}{{ i }}{{ j }}{{ forloop.rindex0 }} {% endfor %}{{ forloop.index0 }};{% endfor %}", "a11 a20 0;b11 b20 1;c11 c20 2;"},
		{`{% assign amount = amount | times: 2 %}{{ amount }}{% capture both %}{{ name }}-{{ amount }}{% endcapture %} {{ both | upcase }}`, "241 OMAR-241"},
		{`{% if yes == false %}{% assign name = "x" %}{% endif %}{{ name }}`, "Omar"},
		{`{{ never | default: "friend" }} {{ empty | default: "e" }} {{ name | default: "f" }}`, "friend e Omar"},
		{`{{ name | upcase }}{{ name | downcase }}{{ "hELLO wORLD" | capitalize }}{{ " a " | strip }}{{ name | size }}`, "OMARomarHello worlda4"},
		{`{{ name | append: "!" | prepend: "¡" }} {{ name | replace: "m", "n" | remove: "r" }} {{ "a-b-c" | split: "-" | join: "+" }} {{ name | slice: 1, 2 }}{{ name | slice: -2 }}`, "¡Omar! Ona a+b+c maa"},
		{`{{ "مرحبا بالعالم" | truncate: 8, "…" }} {{ "one two three" | truncatewords: 2 }} {{ items | map: "name" | join: ", " }} {{ words | reverse | first }}`, "مرحبا ب… one two... tea, cake c"},
		{`{{ 0.1 | plus: 0.2 }} {{ 7 | divided_by: 2 }} {{ 7 | divided_by: 2.0 }} {{ -7 | modulo: 3 }} {{ amount | round }} {{ 2.345 | round: 2 }} {{ amount | floor }} {{ amount | ceil }} {{ -3 | abs }} {{ 5 | at_most: 3 }}`, "0.3 3 3.5 2 121 2.35 120 121 3 3"},
		{`{{ long }} {{ long | number }} {{ amount | number }} {{ 1234 | number: decimals: 2 }} {{ -0.001 | number: decimals: 2 }}`, "12345678901234567890.25 12,345,678,901,234,567,890.25 120.50 1,234.00 0.00"},
		{`{{ amount | currency: currency }} {{ -5 | currency: "USD" }} {{ 3.5 | currency: "JPY" }} {{ 1 | currency: "KWD" }} {{ 5 | currency: "USD", symbol: "code" }}`, "EGP\u00a0120.50 -$5.00 ¥4 KWD\u00a01.000 USD\u00a05.00"},
		{`{{ 0.125 | percent }} {{ 0.5 | percent: decimals: 1 }}`, "12.5% 50.0%"},
		{`{{ count | plural: one: "# card", other: "# cards" }} {{ 1 | plural: one: "# card", other: "# cards" }} {{ "1.0" | plural: one: "one", other: "other ##" }}`, "3 cards 1 card other #"},
		{
			`{{ at | date }} {{ at | date: "full" }} {{ at | date: "time" }} {{ at | date: "%d.%m.%Y %H:%M", zone: "UTC" }} {{ day | date: "long" }} {{ "now" | date: "iso" }}`,
			"Nov 24, 2026 Tuesday, November 24, 2026 11:05 am 24.11.2026 09:05 November 4, 2026 2026-11-25T00:30:00+02:00",
		},
		{`{{ 1732440000 | date: "%A %-d %b", zone: "Asia/Tokyo" }}`, "Sunday 24 Nov"},
	} {
		got, problems := newRun(variables).Render(parse(t, "en", tt.source), 4096)
		if len(problems) > 0 || got != tt.want {
			t.Errorf("%s\ngot  %q %v\nwant %q", tt.source, got, problems, tt.want)
		}
	}
}

func TestParseSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ source, want string }{
		{"Hello {{ name", "a placeholder or tag is not closed: {{ name: {{ without }}"},
		{"{{ a {{ b }}", "a placeholder or tag is not closed before the next begins: {{ a : {{ without }}"},
		{"{% if a", "a placeholder or tag is not closed: {% if a: {% without %}"},
		{`{{ "a }}`, `a quote is not closed: {{ "a }}`},
		{"{{ }}", "{{ }}: there is nothing in it"},
		{"{{ a b }}", "{{ a b }}: b is not expected there"},
		{"{{ a..b }}", "{{ a..b }}: .. is not expected there"},
		{"{{ 1a }}", "{{ 1a }}: 1a is not a number or a name"},
		{"{{ a; }}", "{{ a; }}: ; is not understood"},
		{"{{ a | shout }}", "{{ a | shout }}: unknown filter shout; known are "},
		{"{{ a | upcas }}", "{{ a | upcas }}: unknown filter upcas; is upcase meant?"},
		{"{{ a | append }}", "{{ a | append }}: filter append takes 1 argument, not 0"},
		{"{{ a | upcase: 1 }}", "{{ a | upcase: 1 }}: filter upcase takes no argument, not 1"},
		{`{{ a | number: places: 2 }}`, "filter number: unknown argument places; known are decimals, digits"},
		{`{{ a | number: digits: "roman" }}`, "filter number: unknown digits roman; known are latn"},
		{`{{ a | currency: "XYZW" }}`, `filter currency: "XYZW" is not a currency of ISO 4217 such as EGP`},
		{`{{ a | plural: one: "x" }}`, `filter plural: the form "other" is missing`},
		{`{{ a | plural: few: "x", other: "y" }}`, `filter plural: en has no plural form "few"; it has one, other`},
		{`{{ a | date: "later" }}`, `filter date: unknown style "later"; known are short, medium, long, full, time, iso`},
		{`{{ a | date: "%Q" }}`, `filter date: pattern "%Q": after % stands one of`},
		{`{{ a | date: zone: "Cairo" }}`, `filter date: "Cairo" is not a time zone of the IANA database`},
		{"{{ user.token }}", "user.token is not known: of the user there are user.locale, user.timezone and user.attributes.NAME"},
		{"{{ user }}", "user is not known: of the user"},
		{"{{ user[key] }}", "of the user there are"},
		{"{{ user.attributes }}", "of the user there are"},
		{"{{ forloop.index }}", "forloop is only known inside of {% for %}"},
		{"{% for a in b %}{{ forloop.name }}{% endfor %}", "forloop.name is not known: of forloop there are index"},
		{"{% include 'x' %}", "unknown tag include; known are if, unless"},
		{"{% if a %}", "{% if a %}: {% endif %} is missing"},
		{"{% if a %}{% endfor %}", "{% endfor %}: there is no {% for %} that it could end"},
		{"{% if a %}{% else %}{% else %}{% endif %}", "{% else %}: else is not inside of what it belongs to, or comes after else"},
		{"{% if a = 1 %}{% endif %}", "= does not compare: use =="},
		{"{% if a | size > 1 %}{% endif %}", "filters do not stand in a condition"},
		{"{% if a and b or c %}{% endif %}", "and and or stand in one condition"},
		{"{% if %}{% endif %}", "{% if %}: a value is expected, not the end"},
		{"{% else %}", "else is not inside of what it belongs to"},
		{"{% break %}", "break is only known inside of {% for %}"},
		{"{% for a b %}{% endfor %}", "{% for NAME in LIST %} is expected"},
		{"{% for a in (1..) %}{% endfor %}", "a value is expected, not )"},
		{"{% for user in b %}{% endfor %}", "user has a meaning of its own: choose another name"},
		{"{% for a in b cols: 2 %}{% endfor %}", "cols is not known there: limit: N, offset: N and reversed are"},
		{"{% assign a b %}", "{% assign NAME = VALUE %} is expected"},
		{"{% raw %}x", "{% raw %} is not closed: there is no {% endraw %}"},
		{"{% case a %} x {% when 1 %}{% endcase %}", "there is something between case and its first when"},
		{strings.Repeat("{% if a %}", 17) + strings.Repeat("{% endif %}", 17), "blocks are nested deeper than 16 levels"},
		{strings.Repeat("x", 32<<10+1), "is 32769 bytes long, at most 32768 are allowed"},
	} {
		_, err := liquid.Parse(tt.source, liquid.Options{Locale: "en", KnownZone: func(z string) bool { return z != "Cairo" }})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s\ngot  %v\nwant %s", tt.source[:min(len(tt.source), 60)], err, tt.want)
		}
	}
}

func TestMissingVariablesAreReported(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ source, want string }{
		{"{{ never }} {{ nothing }} {{ name }}", "never is missing; nothing is missing"},
		{"{{ items }} {{ deep }}", "items is an object or a list, not a text, a number, true or false; deep is an object or a list, not a text, a number, true or false"},
		{"{{ never | upcase }}", "never is missing"},
		{"{{ name | append: never }}", "never is missing"},
		{"{{ name | plus: 1 }}", "name is not a number such as 12 or 120.50"},
		{"{{ amount | plus: name }}", "filter plus: the argument is not a number such as 12 or 120.50"},
		{"{{ amount | divided_by: 0 }}", "filter divided_by: there is no dividing by 0"},
		{"{{ amount | currency: name }}", `filter currency: "Omar" is not a currency of ISO 4217 such as EGP`},
		{"{{ name | date }}", "name is not a time such as 2026-11-24T09:00:00Z, nor seconds since 1970"},
		{"{{ 1732440000000 | date }}", "1732440000000 is not a time: seconds since 1970 are expected, not milliseconds"},
		{"{% if never > 3 %}{% endif %}", "never is missing"},
		{"{% if name > 3 %}{% endif %}", "name can't be compared with 3"},
		{"{% for a in never %}{% endfor %}", "never is missing"},
		{"{% for a in name %}{% endfor %}", "name is not a list"},
		{"{{ none | first }}", "none | first is missing"},
		{"{% for a in (1..name) %}{% endfor %}", "name is not a whole number"},
		{"{{ user.attributes.city }}", "user.attributes.city is missing"},
	} {
		run := newRun(variables)
		got, problems := run.Render(parse(t, "en", tt.source), 4096)
		if told := strings.Join(problems, "; "); got != "" || told != tt.want {
			t.Errorf("%s\ngot  %q %s\nwant %s", tt.source, got, told, tt.want)
		}
	}
	run := newRun(variables)
	run.Timezone = "Nowhere/Land"
	_, problems := run.Render(parse(t, "en", "{{ at | date }}"), 4096)
	if want := `filter date: the rules of time zone "Nowhere/Land" can't be read: unknown time zone Nowhere/Land`; strings.Join(problems, "; ") != want {
		t.Errorf("got  %v\nwant %s", problems, want)
	}
}
