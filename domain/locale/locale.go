// Package locale reads the names of languages, and decides which language can replace another. It accepts names as
// phones and servers write them, gives each its usual spelling, and knows from which locale another inherits in CLDR.
// It does no I/O.
//
// The parents are those of golang.org/x/text. They are never made by cutting a name: zh-TW inherits from zh-Hant, which
// has no parent, so nobody who reads traditional characters gets simplified ones.
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
	// Line is the locale itself and those it inherits from, the nearest first: es-MX, es-419, es.
	Line []Step
	// Reads is its language and script, such as zh-Hant, or "" if the name has no language.
	Reads string
}

// Step is one locale of a Line.
type Step struct {
	Name string
	// Likely is the name with its most likely script and region, which two names of one locale share: en and en-US are
	// en-Latn-US, zh-Hant and zh-TW are zh-Hant-TW. It is "" if the name has more parts than that.
	Likely string
}

// ErrUnknown means that a name can't be read.
var ErrUnknown = errors.New(`is not a BCP 47 locale such as "ar-EG"`)

// maxName bounds a name.
const maxName = 64

// parsed caches locales: parsing a name takes a microsecond, and each rendering needs the locale of its user. Upstream
// chooses names, so the cache has a bound. In practice there are some hundreds, of 1 kB each.
var (
	parsed      sync.Map // string → *Locale
	parsedCount atomic.Int64
)

const maxParsed = 5_000

// Parse reads a name: BCP 47 in any case, also with underscores (pt_BR), as Java writes it with a script (zh_TW_#Hant),
// or with the endings of Apple and POSIX (ar_EG@calendar=gregorian, en_US.UTF-8), which are left out. Old names become
// the current ones: iw is he, no is nb, sh is sr-Latn. Names of one locale give the same result.
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

// maxLine is more than any line has. A private name could have as many steps as parts.
const maxLine = 8

// bcp47 rewrites common names that are not BCP 47.
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

// bokmal replaces no by nb: people mean Bokmål by no, and x/text takes it for the usual name, but CLDR and phones say
// nb.
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

// parent is the parent in CLDR. That of nn is Bokmål, which the CLDR version of x/text does not have.
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

// Inherited looks a locale up in a table, then the locales that it inherits from. name is as [Parse] returns it.
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

// Set is the set of locales that there are texts in. The zero value is empty.
type Set struct {
	names         map[string]bool
	likely, reads map[string]string
}

// NewSet makes a set from names as [Parse] returns them.
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

// Choose returns the locale for a reader: the first of the reader's line that is in the set, by its name or another
// name of the same locale; else one of the same language and script (the shortest name, then the first in the
// alphabet). It returns false if there is none that the reader is known to read. The result depends only on the names.
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

// Canonical returns the usual spelling of a name (AR_eg → ar-EG, iw → he), so that names of one locale compare equal:
// see [Parse].
func Canonical(s string) (string, error) {
	l, err := Parse(s)
	if err != nil {
		return "", err
	}
	return l.Name, nil
}
