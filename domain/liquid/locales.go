package liquid

import (
	"strings"
	"sync"
	"time"

	"github.com/go-playground/locales"
	"github.com/go-playground/locales/am"
	"github.com/go-playground/locales/ar"
	"github.com/go-playground/locales/ar_AE"
	"github.com/go-playground/locales/ar_DZ"
	"github.com/go-playground/locales/ar_IQ"
	"github.com/go-playground/locales/ar_JO"
	"github.com/go-playground/locales/ar_LB"
	"github.com/go-playground/locales/ar_LY"
	"github.com/go-playground/locales/ar_MA"
	"github.com/go-playground/locales/ar_PS"
	"github.com/go-playground/locales/ar_SA"
	"github.com/go-playground/locales/ar_SY"
	"github.com/go-playground/locales/ar_TN"
	"github.com/go-playground/locales/bn"
	"github.com/go-playground/locales/cs"
	"github.com/go-playground/locales/da"
	"github.com/go-playground/locales/de"
	"github.com/go-playground/locales/de_AT"
	"github.com/go-playground/locales/de_CH"
	"github.com/go-playground/locales/el"
	"github.com/go-playground/locales/en"
	"github.com/go-playground/locales/en_001"
	"github.com/go-playground/locales/en_AU"
	"github.com/go-playground/locales/en_CA"
	"github.com/go-playground/locales/en_GB"
	"github.com/go-playground/locales/en_IN"
	"github.com/go-playground/locales/en_NZ"
	"github.com/go-playground/locales/en_ZA"
	"github.com/go-playground/locales/es"
	"github.com/go-playground/locales/es_419"
	"github.com/go-playground/locales/es_CO"
	"github.com/go-playground/locales/es_MX"
	"github.com/go-playground/locales/es_US"
	"github.com/go-playground/locales/fa"
	"github.com/go-playground/locales/fi"
	"github.com/go-playground/locales/fr"
	"github.com/go-playground/locales/fr_CA"
	"github.com/go-playground/locales/he"
	"github.com/go-playground/locales/hi"
	"github.com/go-playground/locales/hu"
	"github.com/go-playground/locales/id"
	"github.com/go-playground/locales/it"
	"github.com/go-playground/locales/ja"
	"github.com/go-playground/locales/ko"
	"github.com/go-playground/locales/ms"
	"github.com/go-playground/locales/nb"
	"github.com/go-playground/locales/nl"
	"github.com/go-playground/locales/nn"
	"github.com/go-playground/locales/pl"
	"github.com/go-playground/locales/pt"
	"github.com/go-playground/locales/pt_PT"
	"github.com/go-playground/locales/ro"
	"github.com/go-playground/locales/ru"
	"github.com/go-playground/locales/sv"
	"github.com/go-playground/locales/sw"
	"github.com/go-playground/locales/th"
	"github.com/go-playground/locales/tr"
	"github.com/go-playground/locales/uk"
	"github.com/go-playground/locales/ur"
	"github.com/go-playground/locales/vi"
	"github.com/go-playground/locales/zh"
	"github.com/go-playground/locales/zh_Hant"
	"golang.org/x/text/language"

	languages "github.com/klivvr/whisper/domain/locale"
)

// calendar gives the names of months and days, and how dates are written.
type calendar = locales.Translator

// calendars are the languages whose dates are known. A region has an entry if it differs from its language. All are
// Gregorian. To add one, add its line here: docs/templates.md lists them.
var calendars = map[string]func() calendar{
	"am":      am.New,
	"ar":      ar.New,
	"ar-AE":   ar_AE.New,
	"ar-DZ":   ar_DZ.New,
	"ar-IQ":   ar_IQ.New,
	"ar-JO":   ar_JO.New,
	"ar-LB":   ar_LB.New,
	"ar-LY":   ar_LY.New,
	"ar-MA":   ar_MA.New,
	"ar-PS":   ar_PS.New,
	"ar-SA":   ar_SA.New,
	"ar-SY":   ar_SY.New,
	"ar-TN":   ar_TN.New,
	"bn":      bn.New,
	"cs":      cs.New,
	"da":      da.New,
	"de":      de.New,
	"de-AT":   de_AT.New,
	"de-CH":   de_CH.New,
	"el":      el.New,
	"en":      en.New,
	"en-AU":   en_AU.New,
	"en-CA":   en_CA.New,
	"en-GB":   en_GB.New,
	"en-IN":   en_IN.New,
	"es":      es.New,
	"es-MX":   es_MX.New,
	"fa":      fa.New,
	"fi":      fi.New,
	"fr":      fr.New,
	"fr-CA":   fr_CA.New,
	"he":      he.New,
	"hi":      hi.New,
	"hu":      hu.New,
	"id":      id.New,
	"it":      it.New,
	"ja":      ja.New,
	"ko":      ko.New,
	"ms":      ms.New,
	"nb":      nb.New,
	"nl":      nl.New,
	"pl":      pl.New,
	"pt":      pt.New,
	"pt-PT":   pt_PT.New,
	"ro":      ro.New,
	"ru":      ru.New,
	"sv":      sv.New,
	"sw":      sw.New,
	"th":      th.New,
	"tr":      tr.New,
	"uk":      uk.New,
	"ur":      ur.New,
	"vi":      vi.New,
	"zh":      zh.New,
	"nn":      nn.New,
	"zh-Hant": zh_Hant.New,
	"es-US":   es_US.New,
	"es-CO":   es_CO.New,
	"es-419":  es_419.New,
	"en-ZA":   en_ZA.New,
	"en-NZ":   en_NZ.New,
	"en-001":  en_001.New,
}

// symbolBefore are the languages that write the currency before the number, and whether there is a space between (the
// patterns ¤# and ¤ # of CLDR). All others write it after the number, with a space. So does pt-PT, though it inherits
// from pt.
var symbolBefore = map[string]string{
	"am":      "",
	"de-AT":   "\u00a0",
	"de-CH":   "\u00a0",
	"en":      "",
	"en-AU":   "",
	"en-CA":   "",
	"en-GB":   "",
	"en-IN":   "",
	"es-MX":   "",
	"fa":      "",
	"hi":      "",
	"id":      "\u00a0",
	"ja":      "",
	"ko":      "",
	"ms":      "\u00a0",
	"nb":      "\u00a0",
	"nl":      "\u00a0",
	"pt":      "\u00a0",
	"pt-PT":   symbolBehind,
	"es-419":  "",
	"es-AR":   "\u00a0",
	"es-CO":   "\u00a0",
	"es-PY":   "\u00a0",
	"es-UY":   "\u00a0",
	"sw":      "\u00a0",
	"th":      "",
	"tr":      "",
	"ur":      "",
	"zh":      "",
	"zh-Hant": "",
}

const symbolBehind = "behind"

// groupsFrom is the least number of digits for which a language groups a whole number (minimumGroupingDigits of CLDR
// 48, added to the group): es writes 1234 and 12.345, es-419 1,234. All others group at once.
var groupsFrom = map[string]int{
	"be": 2, "bg": 2, "es": 2, "es-419": 1, "et": 2, "hu": 2, "hy": 2, "it": 2, "ka": 2, "lv": 2, "pl": 2, "pt-PT": 2, "sl": 2, "sq": 2,
}

// locale is how one language writes numbers and dates. It is immutable except for its caches.
type locale struct {
	name    string
	tag     language.Tag
	numbers func() *numberFormat
	dates   func() calendar // nil: the language's are not known
	forms   func() []string // of plurals
	symbols sync.Map        // of currencies, by code
}

// known has the locales that all texts share. Upstream chooses their names, so there is a bound.
var known = struct {
	sync.Mutex
	locales map[string]*locale
}{locales: map[string]*locale{}}

const maxLocales = 1_000

func localeOf(name string) *locale {
	known.Lock()
	defer known.Unlock()
	if l := known.locales[name]; l != nil {
		return l
	}
	if len(known.locales) >= maxLocales {
		clear(known.locales)
	}
	l := &locale{name: name, tag: language.Make(name)}
	l.numbers = sync.OnceValue(func() *numberFormat { return newNumberFormat(l.tag, "") })
	l.forms = sync.OnceValue(func() []string { return pluralForms(l.tag) })
	if make, _ := languages.Inherited(name, calendars); make != nil {
		l.dates = sync.OnceValue(make)
	}
	known.locales[name] = l
	return l
}

// withoutMarks removes the marks of writing direction that CLDR has around signs and in symbols.
func withoutMarks(s string) string {
	return strings.Map(func(r rune) rune {
		switch r {
		case '\u200e', '\u200f', '\u061c':
			return -1
		}
		return r
	}, s)
}

// zone returns the time zone of a date: that of the filter, else the user's, else the template's.
func (r *Run) zone(named string) (*time.Location, error) {
	for _, name := range []string{named, r.Timezone, r.DefaultTimezone} {
		switch {
		case name == "":
			continue
		case name == "UTC":
			return time.UTC, nil
		case r.Zone == nil:
			return nil, describe("the rules of time zone %q are not at hand", quoted(name))
		}
		zone, err := r.Zone(name)
		if err != nil {
			return nil, describe("the rules of time zone %q can't be read: %w", quoted(name), err)
		}
		return zone, nil
	}
	return time.UTC, nil
}
