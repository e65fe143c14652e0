package liquid_test

import (
	"strings"
	"testing"

	"github.com/klivvr/whisper/domain/liquid"
)

// bombs are texts that would need hours or gigabytes.
var bombs = map[string]string{
	"endless loop":        `{% for i in (1..100000000) %}{% endfor %}`,
	"endless output":      `{% for i in (1..100000000) %}x{% endfor %}`,
	"nested loops":        `{% for a in (1..1000) %}{% for b in (1..1000) %}{% for c in (1..1000) %}{% endfor %}{% endfor %}{% endfor %}`,
	"doubling":            `{% assign s = "xxxxxxxxxxxxxxxx" %}{% for i in (1..100) %}{% assign s = s | append: s %}{% endfor %}{{ s | size }}`,
	"doubling by capture": `{% assign s = "xxxxxxxxxxxxxxxx" %}{% for i in (1..100) %}{% capture s %}{{ s }}{{ s }}{% endcapture %}{% endfor %}{{ s | size }}`,
	"replacing":           `{% assign s = "xxxxxxxxxxxxxxxx" %}{% for i in (1..100) %}{% assign s = s | replace: "x", "xxxxxxxxxxxxxxxx" %}{% endfor %}`,
	"counting":            `{% for i in (1..100000) %}{% assign n = emoji | size %}{% assign s = emoji | truncate: 3000 %}{% assign s = emoji | slice: 2000 %}{% endfor %}`,
	"sizes":               `{% assign s = emoji | append: text %}{% for i in (1..100000) %}{% if s.size == 1 %}{% endif %}{% endfor %}`,
	"splitting":           `{% assign s = text | split: "" %}{% for a in s %}{% for b in s %}{% assign t = text | split: "" | join: text %}{% endfor %}{% endfor %}`,
	"searching":           `{% for i in (1..100000) %}{% if list contains "never" %}{% endif %}{% endfor %}`,
	"looking up":          `{% for i in (1..100000) %}{% if last == 1 %}{% endif %}{% endfor %}`,
	"comparing":           `{% for i in (1..100000) %}{% if text == text %}{% endif %}{% endfor %}`,
	"conditions":          `{% for i in (1..100000) %}` + strings.Repeat(`{% if never %}{% endif %}`, 100) + `{% endfor %}`,
	"plurals":             `{% for i in (1..100000) %}{% assign p = i | plural: other: "` + strings.Repeat("#", 999) + `" %}{% endfor %}`,
	"dates":               `{% for i in (1..100000) %}{% assign d = "now" | date: "` + strings.Repeat("%A", 500) + `" %}{% endfor %}`,
	"digits":              `{% assign n = 9 %}{% for i in (1..100) %}{% assign n = n | times: n %}{% endfor %}`,
	"decimals":            `{% assign n = 0.1 %}{% for i in (1..100) %}{% assign n = n | times: n %}{% assign m = 1 | divided_by: n %}{% endfor %}`,
}

func bombVariables() string {
	return `{"emoji": "` + strings.Repeat("👨‍👩‍👧", 3000) + `", "text": "` + strings.Repeat("y", 4000) + `", "list": [` + strings.Repeat(`"z",`, 900) + `"z"], "last": 1}`
}

func TestABombFailsAloneWithinItsSteps(t *testing.T) {
	t.Parallel()
	for name, source := range bombs {
		run := newRun(bombVariables())
		got, problems := run.Render(parse(t, "en", source), 4096)
		if got != "" || len(problems) == 0 {
			t.Errorf("%s: gives %d bytes, %v", name, len(got), problems)
		}
		// The last step may be a long one: of a value of 64 KiB at most.
		if run.Steps() > liquid.MaxSteps+2*liquid.MaxValueBytes {
			t.Errorf("%s: took %d steps", name, run.Steps())
		}
		again := newRun(bombVariables())
		if _, told := again.Render(parse(t, "en", source), 4096); strings.Join(told, ";") != strings.Join(problems, ";") ||
			again.Steps() != run.Steps() {
			t.Errorf("%s: ends after %d steps, then after %d", name, run.Steps(), again.Steps())
		}
	}
}

// TestStepsAreForAllTextsTogether: a template of many fields is no way around the budget.
func TestStepsAreForAllTextsTogether(t *testing.T) {
	t.Parallel()
	text := parse(t, "en", `{% for i in (1..3000) %}{% assign a = i %}{% endfor %}ok`)
	run := newRun("")
	renders := 0
	for ; renders < 100; renders++ {
		if _, problems := run.Render(text, 4096); problems != nil {
			if want := "needs more than 10000 steps: a loop or a value is too long"; problems[0] != want {
				t.Errorf("got  %s\nwant %s", problems[0], want)
			}
			break
		}
	}
	if renders < 1 || renders > 4 {
		t.Errorf("%d renders", renders)
	}
}

// TestLongButHonestTextsHaveRoom: what people write must be far from the bounds.
func TestLongButHonestTextsHaveRoom(t *testing.T) {
	t.Parallel()
	source := strings.Repeat("{{ amount | currency: currency }} ",
		100) + "{% for i in items %}{{ i.name }} {{ i.price | number: decimals: 2 }}\n{% endfor %}"
	run := newRun(`{"amount": 1.5, "currency": "EGP", "items": [` + strings.Repeat(`{"name": "a thing that was bought", "price": 12.5},`, 99) + `{"name": "x", "price": 1}]}`)
	got, problems := run.Render(parse(t, "ar", source), 16<<10)
	if problems != nil || run.Steps() > liquid.MaxSteps*2/3 {
		t.Errorf("%d bytes, %d steps, %v", len(got), run.Steps(), problems)
	}
}

func TestOutputIsBounded(t *testing.T) {
	t.Parallel()
	text := parse(t, "en", "{{ a }}")
	if got, problems := newRun(`{"a":"12345"}`).Render(text, 5); got != "12345" || problems != nil {
		t.Error(got, problems)
	}
	if got, problems := newRun(`{"a":"123456"}`).Render(text, 5); got != "" || problems[0] != "has more than 5 bytes, which is all that is allowed" {
		t.Error(got, problems)
	}
	if got, problems := newRun("").Render(parse(t, "en", "123456"), 5); got != "" || len(problems) != 1 {
		t.Error(got, problems)
	}
}

// BenchmarkBombs is what a bomb costs before it fails.
func BenchmarkBombs(b *testing.B) {
	for name, source := range bombs {
		text := parse(b, "en", source)
		variables := bombVariables()
		b.Run(strings.ReplaceAll(name, " ", "_"), func(b *testing.B) {
			for b.Loop() {
				newRun(variables).Render(text, 4096)
			}
		})
	}
}
