package liquid_test

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/klivvr/whisper/domain/liquid"
)

// pieces are what texts are made of, right and wrong.
var pieces = []string{
	"{{", "}}", "{%", "%}", "-", " ", "|", ":", ",", ".", "..", "[", "]", "(", ")", "==", "<", ">", "'", `"`, "x", "a", "list", "user.attributes.a", "user.locale", "0", "3", "-1", "1.5",
	"{{ a }}", "{{ list }}", "{{ a | upcase }}", "{% if a %}", "{% elsif b > 1 %}", "{% else %}", "{% endif %}", "{% for i in list %}", "{% for i in (1..9999999) %}", "{% endfor %}", "{{ i }}", "{{ forloop.index }}",
	"{% assign s = a | append: s %}", "{% assign s = a %}", "{{ s }}", "{% capture s %}", "{% endcapture %}", "{% break %}", "{% continue %}", "{% raw %}", "{% endraw %}", "{% comment %}", "{% endcomment %}",
	"{% case a %}", "{% when 1 %}", "{% endcase %}", `{{ n | currency: "EGP" }}`, `{{ n | plural: one: "#", other: "#" }}`, "{{ n | date }}", `{{ n | number: decimals: 2 }}`, "{{ n | percent }}", `{{ a | split: "" | join: a }}`,
	"{{ n | times: n }}", "{{ n | divided_by: n | round: 3 }}", `{{ a | replace: "a", a }}`, "{{ list | map: a | reverse | last }}", "{{ deep.a[0].b }}", "م", "\u200f", "\x00", "{",
}

func drawJSON(depth int) *rapid.Generator[any] {
	return rapid.Custom(func(t *rapid.T) any {
		most := 6
		if depth == 0 {
			most = 4
		}
		switch rapid.IntRange(0, most).Draw(t, "kind") {
		case 0:
			return nil
		case 1:
			return rapid.Bool().Draw(t, "bool")
		case 2:
			return rapid.Float64Range(-1e12, 1e12).Draw(t, "number")
		case 3:
			return rapid.String().Draw(t, "text")
		case 4:
			return rapid.IntRange(-5, 2_000_000_000).Draw(t, "whole")
		case 5:
			return rapid.SliceOfN(drawJSON(depth-1), 0, 5).Draw(t, "list")
		default:
			return rapid.MapOfN(rapid.SampledFrom([]string{"a", "b", "i", "n", "list", "deep"}), drawJSON(depth-1), 0, 5).Draw(t, "object")
		}
	})
}

// TestAnyTextRendersOrSaysWhyNot: no panic, never more bytes than are allowed, never a text beside a problem, and
// nobody's budget is exceeded by more than one value.
func TestAnyTextRendersOrSaysWhyNot(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		source := strings.Join(rapid.SliceOfN(rapid.SampledFrom(pieces), 0, 30).Draw(rt, "source"), "")
		object := rapid.MapOf(rapid.SampledFrom([]string{"a", "b", "n", "list", "deep"}), drawJSON(3)).Draw(rt, "variables")
		variables, err := json.Marshal(object)
		if err != nil {
			rt.Skip(err)
		}
		most := rapid.IntRange(0, 300).Draw(rt, "most")
		locale := rapid.SampledFrom([]string{"en", "ar", "ar-EG", "hi", "xh", "und"}).Draw(rt, "locale")
		check(rt, source, string(variables), locale, most)
	})
}

type fataler interface {
	Fatalf(format string, args ...any)
}

func check(t fataler, source, variables, locale string, most int) {
	text, err := liquid.Parse(source, liquid.Options{Locale: locale, HTML: most%2 == 0})
	if err != nil {
		if strings.ContainsAny(err.Error(), "\n\x00") || len(err.Error()) > 2_000 {
			t.Fatalf("not one line: %q", err)
		}
		return
	}
	run := newRun(variables)
	run.Attributes = variables
	got, problems := run.Render(text, most)
	switch {
	case len(got) > most:
		t.Fatalf("%d bytes of %d", len(got), most)
	case got != "" && len(problems) > 0:
		t.Fatalf("half a text: %q, %v", got, problems)
	case run.Steps() > liquid.MaxSteps+2*liquid.MaxValueBytes:
		t.Fatalf("%d steps", run.Steps())
	case utf8.ValidString(source) && utf8.ValidString(variables) && !utf8.ValidString(got):
		t.Fatalf("not UTF-8: %q", got)
	}
	if len(problems) > 0 {
		return
	}
	for _, n := range text.Needs() { // what was rendered had all that it needs
		if err := n.Check(variables); err != nil {
			t.Fatalf("%s renders %q, but %s %v", source, got, n.Name(), err)
		}
	}
}

func FuzzText(f *testing.F) {
	for _, source := range []string{"{{ a }}", `{% for i in (1..3) %}{{ i | plus: n }}{% endfor %}`, `{{ n | plural: one: "#", other: "# x" }}`, "{%- if a contains 'x' -%} y {%- endif -%}", `{{ deep["a"][0].b | default: "z" }}`} {
		f.Add(source, variables, "ar", 100)
	}
	for _, source := range bombs {
		f.Add(source, bombVariables(), "en", 4096)
	}
	f.Fuzz(func(t *testing.T, source, variables, locale string, most int) {
		check(t, source, variables, locale, max(0, most%10_000))
	})
}
