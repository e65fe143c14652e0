package locale_test

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/klivvr/whisper/domain/locale"
)

func TestNamesGetTheirUsualSpelling(t *testing.T) {
	t.Parallel()
	for written, want := range map[string]string{
		"AR-eg": "ar-EG", "pt_BR": "pt-BR", "PT_br": "pt-BR", "iw": "he", "iw_IL": "he-IL", "in_ID": "id-ID", "ji": "yi", "jw": "jv", "no": "nb", "no_NO": "nb-NO", "nb": "nb", "nn": "nn",
		"mo": "ro-MD", "sh": "sr-Latn", "tl": "fil", "cmn": "zh", "zh_TW": "zh-TW", "zh-hant-tw": "zh-Hant-TW", "zh_TW_#Hant": "zh-Hant-TW", "zh_CN_#Hans": "zh-Hans-CN", "zh-CHT": "zh-Hant", "zh-CHS": "zh-Hans",
		"sr_RS@latin": "sr-Latn-RS", "en_US.UTF-8": "en-US", "ar_EG@calendar=gregorian": "ar-EG", "en-UK": "en-GB", "en-Latn-US": "en-US", "es-419": "es-419", "de-DE-1996": "de-DE-1996", "en-u-hc-h12": "en-u-hc-h12",
	} {
		l, err := locale.Parse(written)
		if err != nil || l.Name != want {
			t.Errorf("%s: %v, %v; want %s", written, l, err, want)
			continue
		}
		if again, err := locale.Parse(l.Name); err != nil || again.Name != l.Name {
			t.Errorf("%s comes out as %s, and that as %v", written, l.Name, again)
		}
	}
	for _, written := range []string{
		"", "_", "english", "Arabic (Egypt)", "C", "POSIX", "en--US", "en-US-", strings.Repeat("a-", 33),
		"en\x00", "@latin", "12",
	} {
		if l, err := locale.Parse(written); err == nil {
			t.Errorf("%q is taken as %s", written, l.Name)
		}
	}
}

func TestTheLineIsThatOfCLDR(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"ar-EG": "ar-EG ar", "es-MX": "es-MX es-419 es", "pt-AO": "pt-AO pt-PT pt", "en-IN": "en-IN en-001 en", "en-US": "en-US en",
		"zh-TW": "zh-TW zh-Hant", "zh-MO": "zh-MO zh-Hant-HK zh-Hant", "zh-Hant-TW": "zh-Hant-TW zh-Hant", "zh-CN": "zh-CN zh", "zh-Hans-SG": "zh-Hans-SG zh",
		"sr-ME": "sr-ME sr-Latn", "az-Cyrl": "az-Cyrl", "nn-NO": "nn-NO nn nb", "no": "nb", "und": "und",
	} {
		l, err := locale.Parse(name)
		if err != nil {
			t.Fatal(err)
		}
		var line []string
		for _, step := range l.Line {
			line = append(line, step.Name)
		}
		if got := strings.Join(line, " "); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

func TestChoose(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ texts, reader, want string }{
		{"en zh zh-Hant", "zh-TW", "zh-Hant"},
		{"en zh", "zh-TW", ""}, // never simplified
		{"en zh-CN", "zh-HK", ""},
		{"en zh-CN zh-TW", "zh-HK", "zh-TW"},
		{"en zh-CN zh-TW", "zh-Hant", "zh-TW"},
		{"en zh-Hans", "zh-CN", "zh-Hans"},
		{"en zh-Hans", "zh-SG", "zh-Hans"},
		{"es es-419 en", "es-MX", "es-419"},
		{"es en", "es-MX", "es"},
		{"es-ES en", "es-MX", "es-ES"},
		{"es es-419 en", "es-ES", "es"},
		{"pt pt-PT", "pt-AO", "pt-PT"},
		{"pt pt-PT", "pt-BR", "pt"},
		{"pt-BR en", "pt-PT", "pt-BR"},
		{"en en-001", "en-IN", "en-001"},
		{"en en-001", "en-US", "en"},
		{"en en-GB", "en-IN", "en"},
		{"en-US ar", "en-NZ", "en-US"},
		{"en-GB ar", "en-NZ", "en-GB"},
		{"ar en", "ar-EG", "ar"},
		{"sr en", "sr-Latn-RS", ""},
		{"sr-Latn en", "sr", ""},
		{"nb en", "no", "nb"},
		{"nb en", "nn-NO", "nb"},
		{"he en", "iw", "he"},
		{"de en", "de-DE-1996", "de"},
		{"en fr", "uk", ""},
		{"en", "und", ""},
		{"en", "x-private", ""},
	} {
		var texts []string
		for _, name := range strings.Fields(tt.texts) {
			l, err := locale.Parse(name)
			if err != nil {
				t.Fatal(err)
			}
			texts = append(texts, l.Name)
		}
		reader, err := locale.Parse(tt.reader)
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := locale.NewSet(texts).Choose(reader); got != tt.want {
			t.Errorf("of %s, %s gets %q, want %q", tt.texts, tt.reader, got, tt.want)
		}
	}
}

// TestChosenTextsCanBeRead: whatever there is, what is chosen is in the reader's language and script, or what CLDR lets it
// inherit from; and the order in which the texts come changes nothing.
func TestChosenTextsCanBeRead(t *testing.T) {
	t.Parallel()
	names := []string{
		"zh", "zh-TW", "zh-HK", "zh-Hant", "zh-Hans", "zh-CN", "zh-Hant-MO", "zh-Hans-HK", "es", "es-419", "es-MX", "es-ES",
		"pt", "pt-PT", "pt-AO", "pt-BR", "en", "en-001", "en-IN", "en-US", "sr", "sr-Latn", "sr-Cyrl-ME", "az", "az-Cyrl", "nb", "nn", "uz-AF",
		"pa-PK", "pa", "ar", "ar-EG", "und", "de-1996",
	}
	rapid.Check(t, func(rt *rapid.T) {
		texts := rapid.SliceOfNDistinct(rapid.SampledFrom(names), 1, 6, rapid.ID).Draw(rt, "texts")
		reader, err := locale.Parse(rapid.SampledFrom(names).Draw(rt, "reader"))
		if err != nil {
			rt.Fatal(err)
		}
		got, ok := locale.NewSet(texts).Choose(reader)
		shuffled := rapid.Permutation(texts).Draw(rt, "shuffled")
		if again, _ := locale.NewSet(shuffled).Choose(reader); again != got {
			rt.Fatalf("%q, and in another order %q", got, again)
		}
		if ok != (got != "") || ok && !slices.Contains(texts, got) {
			rt.Fatalf("%q is not there", got)
		}
		if !ok {
			return
		}
		chosen, err := locale.Parse(got)
		if err != nil {
			rt.Fatal(err)
		}
		if slices.Contains(texts, reader.Name) && got != reader.Name {
			rt.Fatalf("%s is there, %s is chosen", reader.Name, got)
		}
		if chosen.Reads != reader.Reads && (chosen.Name != "nb" || !strings.HasPrefix(reader.Name, "nn")) {
			rt.Fatalf("%s reads %s, and gets %s in %s", reader.Name, reader.Reads, got, chosen.Reads)
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"ar-EG", "pt_BR", "zh_TW_#Hant", "sr_RS@latin", "no", "x-a-b-c", "i-klingon", "en-US-u-va-posix",
		"und-u-co-phonebk",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		l, err := locale.Parse(s)
		if err != nil {
			return
		}
		again, err := locale.Parse(l.Name)
		if err != nil || again.Name != l.Name || len(l.Line) == 0 || l.Line[0].Name != l.Name {
			t.Errorf("%q is %+v, and that %+v, %v", s, l, again, err)
		}
	})
}

func BenchmarkParse(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := locale.Parse("zh-Hant-TW"); err != nil {
			b.Fatal(err)
		}
	}
}
