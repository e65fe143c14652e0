package liquid

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/text/feature/plural"
	"golang.org/x/text/language"
)

// pluralNames are the names of CLDR, in the order of plural.Form, and then the option digits.
var pluralNames = []string{"zero", "one", "two", "few", "many", "other", "digits"}

// formName is the name of a form.
func formName(f plural.Form) string {
	switch f {
	case plural.Zero:
		return "zero"
	case plural.One:
		return "one"
	case plural.Two:
		return "two"
	case plural.Few:
		return "few"
	case plural.Many:
		return "many"
	case plural.Other:
	}
	return "other"
}

// pluralForms are the forms that a language has. They are found by asking for numbers of every kind.
func pluralForms(tag language.Tag) []string {
	has := map[string]bool{"other": true}
	for _, n := range []string{"1000000", "0.1", "1.0", "1.5", "2.5", "0.00"} {
		has[formName(match(tag, n))] = true
	}
	for i := range 201 {
		has[formName(match(tag, strconv.Itoa(i)))] = true
	}
	return slices.DeleteFunc(slices.Clone(pluralNames), func(name string) bool { return !has[name] })
}

// match is the form for a number. Its decimals count: 1.0 is not 1.
func match(tag language.Tag, text string) plural.Form {
	whole, fraction, _ := strings.Cut(strings.TrimPrefix(text, "-"), ".")
	visible := len(fraction)
	trimmed := strings.TrimRight(fraction, "0")
	return plural.Cardinal.MatchPlural(tag, tail(whole), visible, len(trimmed), tail(fraction), tail(trimmed))
}

// tail is the value of the last seven digits of a number, which is all that the rules use. A longer number stays above
// ten million.
func tail(digits string) int {
	more := len(digits) > 7
	if more {
		digits = digits[len(digits)-7:]
	}
	n, _ := strconv.Atoi(digits) // "" is 0
	if more {
		n += 10_000_000
	}
	return n
}

// preparePlural requires "other", and refuses forms that the language does not have: they would never be used.
func preparePlural(t *Text, c *call) (any, error) {
	has := t.locale.forms()
	other := false
	for _, a := range c.named {
		switch {
		case a.name == "digits":
		case !slices.Contains(has, a.name):
			return nil, fmt.Errorf("%s has no plural form %q; it has %s", t.locale.name, a.name, strings.Join(has, ", "))
		case a.name == "other":
			other = true
		}
	}
	if !other {
		return nil, errors.New(`the form "other" is missing`)
	}
	return formatOf(t, c)
}

// formatPlural uses the form of the number, or other if that form was not given. In it, # is the number as the language
// writes it, and ## is a #.
func formatPlural(x *exec, in value, a arguments) (value, error) {
	if _, err := in.number(); err != nil {
		return value{}, err
	}
	form := a.get(formName(match(x.text.locale.tag, in.text)))
	if form.kind == missingKind {
		form = a.get("other")
	}
	s, err := form.print()
	if err != nil || strings.IndexByte(s, '#') < 0 {
		return textValue(s), err
	}
	x.step(strings.Count(s, "#"))
	n := a.ready.(*numberFormat).write(in.text, -1)
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] != '#':
			out.WriteByte(s[i])
		case i+1 < len(s) && s[i+1] == '#':
			out.WriteByte('#')
			i++
		default:
			out.WriteString(n)
		}
		if out.Len() > MaxValueBytes {
			break // whoever called finds it too long
		}
	}
	return textValue(out.String()), nil
}
