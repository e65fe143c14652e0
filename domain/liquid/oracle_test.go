package liquid_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	oracle "github.com/osteele/liquid"
	"pgregory.net/rapid"

	"github.com/klivvr/whisper/domain/liquid"
)

// What both Liquids understand they render alike. Known differences, left out here:
//   - A number is printed as upstream wrote it (120.50), theirs as a float64 (120.5); sums are exact (0.1 + 0.2).
//   - A missing variable in {{ }} is an error; theirs is "" or an error wherever it stands.
//   - and with or in one condition is an error, as Liquids do not agree on which binds first.
//   - Filters in conditions, cycle, tablerow, include, render and increment do not exist.
//   - The words empty and blank are values, as Shopify's; theirs takes them for variables.
//   - modulo has the sign of what it divides by, as Shopify's: -7 by 3 is 2; theirs -1.
//   - Texts are not ordered against numbers, but for texts that are numbers.
var oracleVariables = map[string]any{
	"name": "Omar", "n": 3, "zero": 0, "yes": true, "no": false, "void": "", "words": []any{"a", "b", "c"}, "none": []any{},
	"items": []any{map[string]any{"name": "tea", "n": 5}, map[string]any{"name": "cake", "n": 12}}, "deep": map[string]any{"er": "here"}, "ar": "مرحبا بكم",
}

func theirs(t testing.TB, source string) string {
	t.Helper()
	got, err := oracle.NewEngine().ParseAndRenderString(source, oracleVariables)
	if err != nil {
		t.Fatalf("%s: the oracle says %v", source, err)
	}
	return got
}

func TestRandomTextsAreRenderedAsByTheOracle(t *testing.T) {
	t.Parallel()
	encoded, err := json.Marshal(oracleVariables)
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(rt *rapid.T) {
		source := drawBody(rt, 3, false)
		want := theirs(t, source)
		text, err := liquid.Parse(source, liquid.Options{Locale: "en"})
		if err != nil {
			rt.Fatalf("%s: %v", source, err)
		}
		got, problems := (&liquid.Run{Variables: string(encoded)}).Render(text, 64<<10)
		if len(problems) > 0 || got != want {
			rt.Fatalf("%s\nours   %q %v\ntheirs %q", source, got, problems, want)
		}
	})
}

var (
	drawText    = rapid.SampledFrom([]string{"name", "ar", `"Abc dEf"`, `'x y'`, "deep.er", `items[0].name`, "words.first", "words[1]", "void"})
	drawNumber  = rapid.SampledFrom([]string{"n", "zero", "7", "-2", "items[1].n", "words.size"})
	drawFilter  = rapid.SampledFrom([]string{"upcase", "downcase", "capitalize", "strip", `append: "z"`, "prepend: name", `replace: "a", "oo"`, `remove: "m"`, "truncate: 4", `truncate: 6, "…"`, `split: "a" | join: "-"`, "size", "escape", `default: "d"`, "slice: 1", "slice: 0, 2", `replace_first: "a", "_"`, "url_encode"})
	drawCalc    = rapid.SampledFrom([]string{"plus: 2", "minus: n", "times: 3", "abs", "at_least: 4", "at_most: 4", "round", "floor", "ceil"})
	drawOrdered = rapid.SampledFrom([]string{"<", ">", "<=", ">=", "==", "!="})
)

func drawCondition(t *rapid.T) string {
	one := func() string {
		switch rapid.IntRange(0, 4).Draw(t, "test") {
		case 0:
			return rapid.SampledFrom([]string{"yes", "no", "zero", "void", "name", "words", "none", "deep"}).Draw(t, "truth")
		case 1:
			return drawNumber.Draw(t, "left") + " " + drawOrdered.Draw(t, "op") + " " + drawNumber.Draw(t, "right")
		case 2:
			return drawText.Draw(t, "left") + rapid.SampledFrom([]string{" == ", " != "}).Draw(t, "op") + drawText.Draw(t, "right")
		case 3:
			return drawText.Draw(t, "all") + ` contains "a"`
		default:
			return `words contains "b"`
		}
	}
	word := rapid.SampledFrom([]string{"", " and ", " or "}).Draw(t, "word")
	if word == "" {
		return one()
	}
	return one() + word + one()
}

func drawBody(t *rapid.T, depth int, looped bool) string {
	var out strings.Builder
	for range rapid.IntRange(1, 4).Draw(t, "nodes") {
		out.WriteString(drawNode(t, depth, looped))
	}
	return out.String()
}

func drawNode(t *rapid.T, depth int, looped bool) string {
	most := 9
	if depth == 0 {
		most = 3
	}
	switch rapid.IntRange(0, most).Draw(t, "node") {
	case 0:
		return rapid.SampledFrom([]string{
			"text ", "é ", " { } % ", "\n", "{% raw %}{{ raw }}{% endraw %}",
			"{% comment %}{{ c }}{% endcomment %}",
		}).Draw(t, "literal")
	case 1:
		return "{{ " + drawText.Draw(t, "text") + drawFilters(t, drawFilter) + " }}"
	case 2:
		return "{{ " + drawNumber.Draw(t, "number") + drawFilters(t, drawCalc) + " }}"
	case 3:
		if looped {
			return "{{ forloop.index }}{{ forloop.last }}{{ forloop.rindex0 }}{{ v }}"
		}
		return `{% assign a = "A" | append: name %}{{ a }}`
	case 4, 5:
		return fmt.Sprintf("{%% if %s %%}%s{%% elsif %s %%}%s{%% else %%}%s{%% endif %%}", drawCondition(t), drawBody(t, depth-1, looped),
			drawCondition(t), drawBody(t, depth-1, looped), drawBody(t, depth-1, looped))
	case 6:
		return fmt.Sprintf("{%% unless %s %%}%s{%% endunless %%}", drawCondition(t), drawBody(t, depth-1, looped))
	case 7:
		return fmt.Sprintf("{%% case %s %%}{%% when 3, 7 %%}%s{%% else %%}%s{%% endcase %%}", drawNumber.Draw(t, "subject"),
			drawBody(t, depth-1, looped), drawBody(t, depth-1, looped))
	case 8:
		return fmt.Sprintf("{%% capture c %%}%s{%% endcapture %%}{{ c | upcase }}", drawBody(t, depth-1, looped))
	default:
		list := rapid.SampledFrom([]string{
			"words", "none", "(1..3)", "words reversed", "words limit: 2", "words offset: 1",
			"words limit: 1 offset: 1",
		}).Draw(t, "list")
		jump := rapid.SampledFrom([]string{
			"", "{% if forloop.index == 2 %}{% break %}{% endif %}",
			"{% if forloop.first %}{% continue %}{% endif %}",
		}).Draw(t, "jump")
		return fmt.Sprintf("{%% for v in %s %%}%s%s{%% else %%}none{%% endfor %%}", list, jump, drawBody(t, depth-1, true))
	}
}

func drawFilters(t *rapid.T, of *rapid.Generator[string]) string {
	out := ""
	for range rapid.IntRange(0, 2).Draw(t, "filters") {
		f := of.Draw(t, "filter")
		out += " | " + f
		if f == "size" {
			break
		}
	}
	return out
}
