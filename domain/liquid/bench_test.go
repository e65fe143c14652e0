package liquid_test

import (
	"testing"

	oracle "github.com/osteele/liquid"
)

// BenchmarkRender measures one text a render, beside the library that we check against where it can do the same.
func BenchmarkRender(b *testing.B) {
	variables := `{"amount": 120.50, "currency": "EGP", "shop": {"name": "Café"}, "count": 3, "at": "2026-11-24T09:05:00Z", "items": ["a", "b", "c"]}`
	for _, tt := range []struct{ name, locale, source string }{
		{"plain", "en", "Hello {{ user.attributes.name }}: {{ amount }} {{ currency }} at {{ shop.name }}"},
		{"filters", "en", "Hello {{ user.attributes.name | upcase }}: {{ amount | number: decimals: 2 }} {{ currency }} at {{ shop.name | truncate: 20 | append: '.' }}"},
		{"condition_loop", "en", "{% if count > 2 %}{% for i in items %}{{ i }}{% unless forloop.last %}, {% endunless %}{% endfor %}{% else %}none{% endif %}"},
		{"money_arabic", "ar", `دفعت {{ amount | currency: currency }} في {{ shop.name }}`},
		{"plural_arabic", "ar", `لديك {{ count | plural: one: "بطاقة", two: "بطاقتان", few: "# بطاقات", many: "# بطاقة", other: "# بطاقة" }}`},
		{"date_arabic", "ar", `{{ at | date: "long", zone: "UTC" }}`},
	} {
		text := parse(b, tt.locale, tt.source)
		run := newRun(variables)
		b.Run(tt.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				one := *run
				if _, problems := one.Render(text, 4096); problems != nil {
					b.Fatal(problems)
				}
			}
		})
	}
}

// BenchmarkOracle is the library's, of bindings that are decoded already: what it costs at least.
func BenchmarkOracle(b *testing.B) {
	bindings := map[string]any{
		"amount": 120.50, "currency": "EGP", "shop": map[string]any{"name": "Café"}, "count": 3, "items": []any{"a", "b", "c"},
		"user": map[string]any{"attributes": map[string]any{"name": "Mona"}},
	}
	for name, source := range map[string]string{
		"plain":          "Hello {{ user.attributes.name }}: {{ amount }} {{ currency }} at {{ shop.name }}",
		"condition_loop": "{% if count > 2 %}{% for i in items %}{{ i }}{% unless forloop.last %}, {% endunless %}{% endfor %}{% else %}none{% endif %}",
	} {
		tmpl, err := oracle.NewEngine().ParseString(source)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := tmpl.RenderString(bindings); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
