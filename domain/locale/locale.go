// Package locale is how languages are named, and which stands in for which. It takes names as phones and servers write
// them, gives each its usual spelling, and knows from what a locale inherits in CLDR. It is pure.
//
// The parents are those of golang.org/x/text, never made by cutting a name: zh-TW inherits from zh-Hant, which has no
// parent, so nobody who reads traditional characters is given simplified ones.
package locale

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/text/language"
)

// Locale is a known name. It is never changed.
type Locale struct {
	// Name is the usual spelling, such as ar-EG.
	Name string
	// Line is the locale itself and what it inherits from, the nearest first: es-MX, es-419, es.
	Line []Step
	// Reads is its language and script, such as zh-Hant; "" where the name says no language.
	Reads string
}

// Step is one of a locale's line.
type Step struct {
	Name string
	// Likely is the name with the script and region that it most likely means, which two names of one thing share:
	// en and en-US are en-Latn-US, zh-Hant and zh-TW are zh-Hant-TW. "" where the name says more than that.
	Likely string
}

// ErrUnknown says that a name can't be read.
var ErrUnknown = errors.New(`is not a BCP 47 locale such as "ar-EG"`)

// maxName bounds a name.
const maxName = 64

// parsed keeps what was seen: to parse a name takes a microsecond, and each rendering looks at its user's. Upstream
// chooses names, so there is a bound; in practice there are some hundreds, of 1 kB each.
var (
	parsed      sync.Map // string → *Locale
	parsedCount atomic.Int64
)

const maxParsed = 5_000

// Parse reads a name: BCP 47 in any case, also with underscores (pt_BR), as Java writes one with a script
// (zh_TW_#Hant), or with what Apple and POSIX put behind it (ar_EG@calendar=gregorian, en_US.UTF-8), which is left out.
// Names that are out of use get today's: iw is he, no is nb, sh is sr-Latn. Equal ones come out equal.
func Parse(s string) (*Locale, error) {
	if known, ok := parsed.Load(s); ok {
		return known.(*Locale), nil
	}
	l, err := parse(s)
	if err == nil && parsedCount.Load() < maxParsed {
		if _, there := parsed.LoadOrStore(strings.Clone(s), l); !there {
			parsedCount.Add(1)
		}
	}
	return l, err
}

func parse(s string) (*Locale, error) {
	if len(s) > maxName {
		return nil, ErrUnknown
	}
	tag, err := language.Raw.Parse(bcp47(s))
	if err != nil {
		return nil, ErrUnknown
	}
	if tag, err = language.All.Canonicalize(tag); err != nil {
		return nil, ErrUnknown
	}
	tag = bokmal(tag)
	l := &Locale{Name: tag.String()}
	for step := tag; len(l.Line) < maxLine; step = parent(step) {
		if step == language.Und && len(l.Line) > 0 {
			break
		}
		l.Line = append(l.Line, Step{Name: step.String(), Likely: likely(step)})
		if step == language.Und {
			break
		}
	}
	if base, sure := tag.Base(); sure == language.Exact {
		script, _ := tag.Script()
		l.Reads = base.String() + "-" + script.String()
	}
	return l, nil
}

// maxLine is more than any line has: a private name could have as many as it has parts.
const maxLine = 8

// bcp47 rewrites what is no BCP 47 and is met all the same.
func bcp47(s string) string {
	s, behind, _ := strings.Cut(s, "@")
	s, _, _ = strings.Cut(s, ".")
	s = strings.ReplaceAll(s, "_", "-")
	if name, script, java := strings.Cut(s, "-#"); java {
		s = name
		behind = script
	}
	script := ""
	switch behind = strings.ToLower(behind); behind {
	case "latin", "latn":
		script = "Latn"
	case "cyrillic", "cyrl":
		script = "Cyrl"
	case "hans", "hant", "arab", "deva", "guru", "beng", "mong", "tfng", "vaii", "adlm", "olck":
		script = behind
	}
	if script != "" {
		lang, rest, more := strings.Cut(s, "-")
		if s = lang + "-" + script; more {
			s += "-" + rest
		}
	}
	switch strings.ToLower(s) { // Windows'
	case "zh-chs":
		return "zh-Hans"
	case "zh-cht":
		return "zh-Hant"
	}
	return s
}

// bokmal: x/text takes no, which people mean Bokmål by, for the usual name of it; CLDR and phones say nb.
func bokmal(tag language.Tag) language.Tag {
	name := tag.String()
	if name != "no" && !strings.HasPrefix(name, "no-") {
		return tag
	}
	if nb, err := language.Raw.Parse("nb" + name[2:]); err == nil {
		return nb
	}
	return tag
}

// parent is CLDR's. That of nn, which x/text's version of CLDR does not have, is Bokmål.
func parent(tag language.Tag) language.Tag {
	if tag.String() == "nn" {
		return bokmal(language.Norwegian)
	}
	return bokmal(tag.Parent())
}

func likely(tag language.Tag) string {
	base, sure := tag.Base()
	if sure != language.Exact || len(tag.Variants()) > 0 || len(tag.Extensions()) > 0 {
		return ""
	}
	script, _ := tag.Script()
	region, _ := tag.Region()
	return base.String() + "-" + script.String() + "-" + region.String()
}

// Inherited looks a locale up in a table, then what it inherits from. name is as [Parse] gives it.
func Inherited[V any](name string, table map[string]V) (found V, ok bool) {
	if found, ok = table[name]; ok {
		return found, true
	}
	l, err := Parse(name)
	if err != nil {
		return found, false
	}
	for _, step := range l.Line {
		if found, ok = table[step.Name]; ok {
			return found, true
		}
	}
	return found, false
}

// Set are the locales that there are texts in. The zero value has none.
type Set struct {
	names         map[string]bool
	likely, reads map[string]string
}

// NewSet makes one of names as [Parse] gives them.
func NewSet(names []string) Set {
	s := Set{names: map[string]bool{}, likely: map[string]string{}, reads: map[string]string{}}
	names = slices.Clone(names)
	slices.SortFunc(names, func(a, b string) int { // the more general one stands for both
		if len(a) != len(b) {
			return len(a) - len(b)
		}
		return strings.Compare(a, b)
	})
	for _, name := range names {
		l, err := Parse(name)
		if err != nil {
			continue
		}
		s.names[name] = true
		if full := l.Line[0].Likely; full != "" && s.likely[full] == "" {
			s.likely[full] = name
		}
		if l.Reads != "" && s.reads[l.Reads] == "" {
			s.reads[l.Reads] = name
		}
	}
	return s
}

// Choose gives the one for a reader: of the reader's line the first that is there, by its name or by another name of
// the same; else one of the same language in the same script (the shortest name, then the first in the alphabet).
// false: there is none that the reader is known to read. It depends on nothing but the names.
func (s Set) Choose(reader *Locale) (name string, ok bool) {
	for _, step := range reader.Line {
		if s.names[step.Name] {
			return step.Name, true
		}
		if name, ok = s.likely[step.Likely]; ok {
			return name, true
		}
	}
	name, ok = s.reads[reader.Reads]
	return name, ok
}

// Canonical gives a locale's name its usual spelling (AR_eg → ar-EG, iw → he), so that equal ones compare equal: see
// [Parse].
func Canonical(s string) (string, error) {
	l, err := Parse(s)
	if err != nil {
		return "", err
	}
	return l.Name, nil
}
