package liquid_test

import (
	"strconv"
	"strings"
	"testing"

	"github.com/rivo/uniseg"
	"pgregory.net/rapid"
)

func TestNoFilterSplitsACharacter(t *testing.T) {
	t.Parallel()
	variables := `{"family": "👨‍👩‍👧‍👦 home", "thai": "น้ำน้ำ", "accent": "e\u0301te\u0301", "flags": "🇪🇬🇩🇪", "tone": "👍🏽ok", "hindi": "किताब", "crlf": "a\r\nb", "jamo": "\u1112\u1161\u11ab글"}`
	for _, tt := range []struct{ source, want string }{
		{`{{ family | truncate: 2, "…" }}`, "👨‍👩‍👧‍👦…"},
		{`{{ family | truncate: 6 }}`, "👨‍👩‍👧‍👦 home"},
		{`{{ family | truncate: 5, "👩‍🚀" }}`, "👨‍👩‍👧‍👦 ho👩‍🚀"},
		{`{{ family | slice: 0 }}|{{ family | slice: -4, 4 }}|{{ family | slice: -6, 1 }}|{{ family | slice: -7 }}|{{ family | slice: 6 }}`, "👨‍👩‍👧‍👦|home|👨‍👩‍👧‍👦||"},
		{`{{ thai | slice: 0 }} {{ thai | truncate: 1, "" }} {{ thai | size }}`, "น้ำ น้ำ 2"},
		{`{{ accent | slice: 1, 2 }} {{ accent | size }} {{ accent.size }} {{ accent | capitalize }}`, "te\u0301 3 3 E\u0301te\u0301"},
		{`{{ flags | slice: 1 }}{{ flags | split: "" | join: "+" }}`, "🇩🇪🇪🇬+🇩🇪"},
		{`{{ tone | slice: 0 }} {{ tone | split: "" | reverse | first }} {{ tone | truncate: 1, "" }}`, "👍🏽 k 👍🏽"},
		{`{{ hindi | slice: 0 }}`, "कि"},
		{`{{ crlf | size }} {{ jamo | size }} {{ jamo | slice: 0 }}`, "3 2 \u1112\u1161\u11ab"},
		{`{{ family | truncatewords: 1, "…" }}`, "👨‍👩‍👧‍👦…"},
	} {
		if got, problems := newRun(variables).Render(parse(t, "en", tt.source), 4096); got != tt.want || problems != nil {
			t.Errorf("%s\ngot  %+q %v\nwant %+q", tt.source, got, problems, tt.want)
		}
	}
}

// TestFiltersCountCharacters: whatever the text, the filters do by grapheme clusters what they say.
func TestFiltersCountCharacters(t *testing.T) {
	t.Parallel()
	pieces := []string{
		"a", " ", "\r", "\n", "é", "e\u0301", "น้ำ", "ำ", "🇪🇬", "🇩", "👨‍👩‍👧", "\u200d", "👍🏽", "م", "\u064b", "क्ष", "한",
		"\u1112\u1161", "1️⃣", "�",
	}
	rapid.Check(t, func(rt *rapid.T) {
		s := strings.Join(rapid.SliceOfN(rapid.SampledFrom(pieces), 1, 30).Draw(rt, "text"), "")
		most, from, length := rapid.IntRange(1, 20).Draw(rt, "most"), rapid.IntRange(-8, 20).Draw(rt, "from"),
			rapid.IntRange(1, 8).Draw(rt, "length")
		var all []string
		for g := uniseg.NewGraphemes(s); g.Next(); {
			all = append(all, g.Str())
		}
		want := s
		if len(all) > most {
			want = strings.Join(all[:most-1], "") + "…"
		}
		start := from
		if from < 0 {
			start += len(all)
		}
		part := ""
		if start >= 0 && start < len(all) {
			part = strings.Join(all[start:min(len(all), start+length)], "")
		}
		source := `{{ s | truncate: ` + strconv.Itoa(most) + `, "…" }}#{{ s | slice: ` + strconv.Itoa(from) + `, ` + strconv.Itoa(length) + ` }}#{{ s | size }}#{{ s | split: "" | size }}`
		got, problems := newRun(`{"s": `+strconv.Quote(s)+`}`).Render(parse(t, "en", source), 4096)
		if expected := want + "#" + part + "#" + strconv.Itoa(len(all)) + "#" + strconv.Itoa(len(all)); got != expected || problems != nil {
			rt.Fatalf("of %+q: %s\ngot  %+q %v\nwant %+q", s, source, got, problems, expected)
		}
	})
}
