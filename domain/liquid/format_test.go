package liquid_test

import (
	"strings"
	"testing"

	"github.com/klivvr/whisper/domain/liquid"
)

const cards = `{{ n | plural: zero: "لا بطاقات", one: "بطاقة واحدة", two: "بطاقتان", few: "# بطاقات", many: "# بطاقة", other: "# بطاقة." }}`

func TestArabicHasSixPlurals(t *testing.T) {
	t.Parallel()
	text := parse(t, "ar", cards)
	for n, want := range map[string]string{
		"0": "لا بطاقات", "1": "بطاقة واحدة", "2": "بطاقتان", "3": "٣ بطاقات", "10": "١٠ بطاقات", "11": "١١ بطاقة", "99": "٩٩ بطاقة",
		"100": "١٠٠ بطاقة.", "102": "١٠٢ بطاقة.", "103": "١٠٣ بطاقات", "111": "١١١ بطاقة", "1000000000003": "١٬٠٠٠٬٠٠٠٬٠٠٠٬٠٠٣ بطاقات", "1.5": "١٫٥ بطاقة.",
	} {
		got, problems := newRun(`{"n": `+n+`}`).Render(text, 4096)
		if got != want || problems != nil {
			t.Errorf("%s: %q %v, want %q", n, got, problems, want)
		}
	}
}

func TestLocalesFormat(t *testing.T) {
	t.Parallel()
	const source = `{{ amount | number }}|{{ neg | number: decimals: 2 }}|{{ part | percent }}|{{ amount | currency: "EGP" }}|{{ neg | currency: "USD" }}|{{ at | date: "long" }}|{{ at | date: "short" }}`
	for locale, want := range map[string]string{
		"en":    "1,234,567.5|-1,234.50|12.5%|EGP\u00a01,234,567.50|-$1,234.50|November 24, 2026|11/24/26",
		"en-GB": "1,234,567.5|-1,234.50|12.5%|EGP\u00a01,234,567.50|-US$1,234.50|24 November 2026|24/11/2026",
		"ar":    "١٬٢٣٤٬٥٦٧٫٥|-١٬٢٣٤٫٥٠|١٢٫٥٪|١٬٢٣٤٬٥٦٧٫٥٠\u00a0ج.م.|-١٬٢٣٤٫٥٠\u00a0US$|٢٤ نوفمبر ٢٠٢٦|٢٤/١١/٢٠٢٦",
		"ar-EG": "١٬٢٣٤٬٥٦٧٫٥|-١٬٢٣٤٫٥٠|١٢٫٥٪|١٬٢٣٤٬٥٦٧٫٥٠\u00a0ج.م.|-١٬٢٣٤٫٥٠\u00a0US$|٢٤ نوفمبر ٢٠٢٦|٢٤/١١/٢٠٢٦",
		"ar-AE": "1,234,567.5|-1,234.50|12.5%|1,234,567.50\u00a0ج.م.|-1,234.50\u00a0US$|24 نوفمبر 2026|24/11/2026",
		"ar-SY": "١٬٢٣٤٬٥٦٧٫٥|-١٬٢٣٤٫٥٠|١٢٫٥٪|١٬٢٣٤٬٥٦٧٫٥٠\u00a0ج.م.|-١٬٢٣٤٫٥٠\u00a0US$|٢٤ تشرين الثاني ٢٠٢٦|٢٤/١١/٢٠٢٦",
		"fr":    "1\u00a0234\u00a0567,5|-1\u00a0234,50|12,5\u00a0%|1\u00a0234\u00a0567,50\u00a0EGP|-1\u00a0234,50\u00a0$US|24 novembre 2026|24/11/2026",
		"de":    "1.234.567,5|-1.234,50|12,5\u00a0%|1.234.567,50\u00a0EGP|-1.234,50\u00a0$|24. November 2026|24.11.26",
		"hi":    "12,34,567.5|-1,234.50|12.5%|EGP\u00a012,34,567.50|-$1,234.50|24 नवंबर 2026|24/11/26",
		"es":    "1.234.567,5|-1234,50|12,5\u00a0%|1.234.567,50\u00a0EGP|-1234,50\u00a0US$|24 de noviembre de 2026|24/11/26",
		"tr":    "1.234.567,5|-1.234,50|%12,5|EGP\u00a01.234.567,50|-$1.234,50|24 Kasım 2026|24.11.2026",
		"pt-PT": "1\u00a0234\u00a0567,5|-1234,50|12,5%|1\u00a0234\u00a0567,50\u00a0EGP|-1234,50\u00a0US$|24 de novembro de 2026|24/11/26",
	} {
		got, problems := newRun(`{"amount": 1234567.5, "neg": -1234.5, "part": 0.125, "at": "2026-11-24T09:05:00Z"}`).Render(parse(t, locale, source), 4096)
		if got != want || problems != nil {
			t.Errorf("%s:\ngot  %+q %v\nwant %+q", locale, got, problems, want)
		}
		if strings.ContainsAny(got, "\u200e\u200f\u061c") {
			t.Errorf("%s: there are direction marks that nobody wrote: %+q", locale, got)
		}
	}
}

// TestFourDigitsAreGroupedAsTheLanguageDoes: minimumGroupingDigits of CLDR 48.
func TestFourDigitsAreGroupedAsTheLanguageDoes(t *testing.T) {
	t.Parallel()
	const source = `{{ 1234 | number }} {{ -1234.5 | number }} {{ 12345 | number }} {{ 999 | number }} {{ 1234 | plural: other: "#" }} {{ 12.34 | percent }}`
	for locale, want := range map[string]string{
		"es":      "1234 -1234,5 12.345 999 1234 1234\u00a0%",
		"es-ES":   "1234 -1234,5 12.345 999 1234 1234\u00a0%",
		"pl":      "1234 -1234,5 12\u00a0345 999 1234 1234%",
		"pt-PT":   "1234 -1234,5 12\u00a0345 999 1234 1234%",
		"pt-AO":   "1234 -1234,5 12\u00a0345 999 1234 1234%",
		"it":      "1234 -1234,5 12.345 999 1234 1234%",
		"es-419":  "1,234 -1,234.5 12,345 999 1,234 1,234\u00a0%",
		"es-MX":   "1,234 -1,234.5 12,345 999 1,234 1,234\u00a0%",
		"pt":      "1.234 -1.234,5 12.345 999 1.234 1.234%",
		"pt-BR":   "1.234 -1.234,5 12.345 999 1.234 1.234%",
		"en":      "1,234 -1,234.5 12,345 999 1,234 1,234%",
		"de":      "1.234 -1.234,5 12.345 999 1.234 1.234\u00a0%",
		"hi":      "1,234 -1,234.5 12,345 999 1,234 1,234%",
		"zh-Hant": "1,234 -1,234.5 12,345 999 1,234 1,234%",
	} {
		if got, problems := newRun("").Render(parse(t, locale, source), 4096); got != want || problems != nil {
			t.Errorf("%s:\ngot  %+q %v\nwant %+q", locale, got, problems, want)
		}
	}
}

// TestRegionsInheritTheirFormats by CLDR's parents.
func TestRegionsInheritTheirFormats(t *testing.T) {
	t.Parallel()
	const source = `{{ "2026-11-24" | date: "short" }}|{{ 12345.5 | currency: "BRL", symbol: "code" }}`
	for locale, want := range map[string]string{
		"pt-AO":  "24/11/26|12\u00a0345,50\u00a0BRL",
		"pt":     "24/11/2026|BRL\u00a012.345,50",
		"es-419": "24/11/26|BRL\u00a012,345.50",
		"es-GT":  "24/11/26|BRL\u00a012,345.50",
		"en-IE":  "24/11/2026|BRL\u00a012,345.50",
		"en-US":  "11/24/26|BRL\u00a012,345.50",
		"zh-HK":  "2026/11/24|BRL\u00a012,345.50",
	} {
		if got, problems := newRun("").Render(parse(t, locale, source), 4096); got != want || problems != nil {
			t.Errorf("%s:\ngot  %+q %v\nwant %+q", locale, got, problems, want)
		}
	}
}

func TestDigitsAreChosen(t *testing.T) {
	t.Parallel()
	const source = `{{ 1234.5 | number: digits: "latn" }} {{ 5 | currency: "EGP", digits: "latn" }} {{ "2026-11-24" | date: "%d/%m", digits: "latn" }} {{ "2026-11-24" | date: "%d/%m" }}`
	got, problems := newRun("").Render(parse(t, "ar-EG", source), 4096)
	if want := "1,234.5 5.00\u00a0ج.م. 24/11 ٢٤/١١"; got != want || problems != nil {
		t.Errorf("got  %q %v\nwant %q", got, problems, want)
	}
}

// TestTheWritingDirectionIsTheAuthors: marks that an author writes stay, byte for byte; none are added.
func TestTheWritingDirectionIsTheAuthors(t *testing.T) {
	t.Parallel()
	source := "\u200fدفعت {{ amount | currency: \"EGP\" }} إلى \u2068{{ shop }}\u2069\u200e."
	got, problems := newRun(`{"amount": 120.50, "shop": "Café مقهى \u200f"}`).Render(parse(t, "ar", source), 4096)
	if want := "\u200fدفعت ١٢٠٫٥٠\u00a0ج.م. إلى \u2068Café مقهى \u200f\u2069\u200e."; got != want || problems != nil {
		t.Errorf("got  %+q %v\nwant %+q", got, problems, want)
	}
}

func TestALanguageWhoseDatesAreNotKnown(t *testing.T) {
	t.Parallel()
	if _, err := liquid.Parse(`{{ at | date }}`, liquid.Options{Locale: "xh"}); err == nil || !strings.Contains(err.Error(), "how xh writes dates is not known: use iso") {
		t.Errorf("error is %v", err)
	}
	got, _ := newRun(`{"at": 0}`).Render(parse(t, "xh", `{{ at | date: "%d.%m.%Y" }} {{ at | date: "iso", zone: "UTC" }}`), 4096)
	if got != "01.01.1970 1970-01-01T00:00:00Z" {
		t.Error(got)
	}
}

func TestPerUserIsExact(t *testing.T) {
	t.Parallel()
	for source, want := range map[string]bool{
		"{{ name }}": false, "user.attributes.name": false, `{{ "user.locale" }}`: false, "{% raw %}{{ user.locale }}{% endraw %}": false,
		"{% comment %}{{ user.locale }}{% endcomment %}": false, "{{ deep.user }}": false, "{{ user.locale }}": true, `{{ user["attributes"].name }}`: true,
		"{% if user.attributes.plan == 'gold' %}a{% endif %}": true, "{{ name | append: user.attributes.x }}": true, "{% for a in user.attributes.list %}{% endfor %}": true,
		"{{ list[user.attributes.at] }}": true, "{% assign u = user.timezone %}": true, "{% capture c %}{% case 1 %}{% when user.locale %}{% endcase %}{% endcapture %}": true,
		"{{ at | date }}": true, `{{ at | date: "long", zone: "Africa/Cairo" }}`: false,
	} {
		if got := parse(t, "en", source).PerUser(); got != want {
			t.Errorf("%s: %v", source, got)
		}
	}
}

func TestNeeds(t *testing.T) {
	t.Parallel()
	for source, want := range map[string]string{
		"{{ a }} {{ b.c }} {{ user.attributes.d }}":                                           "a:1 b.c:1",
		"{{ a | upcase | append: b }} {{ c | default: d }}":                                   "a:1 b:1 d:1",
		`{{ a | number }} {{ a }} {{ b | plural: one: x, other: "y" }} {{ c | currency: d }}`: "a:3 b:3 c:3 d:1 x:1",
		"{% if a %}{{ b }}{% endif %}":                                                        "",
		"{% if a > b %}{{ c }}{% endif %}":                                                    "a:0 b:0",
		"{% if a == b and c > 1 %}{% endif %}":                                                "",
		"{% if a %}{{ b }} {{ c }}{% elsif d > 1 %}{{ b }}{% else %}{{ b }}{% endif %}":       "b:1",
		"{% case a %}{% when 1 %}{{ b }}{% else %}{{ b }}{{ c }}{% endcase %}":                "b:1",
		"{% for a in b %}{{ c }}{{ a.d }}{% endfor %}{% for x in y %}{% else %}{% endfor %}":  "b:2",
		"{% assign a = b | upcase %}{{ a }}{% capture c %}{{ d }}{% endcapture %}{{ c }}":     "b:1 d:1",
		"{{ a[0].b }} {{ c.size }} {{ d[e].f }}":                                              "a:0 c:0 d:0 e:0",
	} {
		var got []string
		for _, n := range parse(t, "en", source).Needs() {
			got = append(got, n.Name()+":"+string(rune('0'+n.Kind)))
		}
		if told := strings.Join(got, " "); told != want {
			t.Errorf("%s: %s, want %s", source, told, want)
		}
	}
}
