package liquid

import (
	"maps"
	"slices"
)

// filter is one filter of the language.
type filter struct {
	name        string
	least, most int      // arguments without a name
	named       []string // names that an argument may have
	needs       NeedKind // what its input must be
	optional    bool     // it takes an input that is missing
	// prepare, if set, checks a call while the text is parsed, and may return what it computed from literal arguments.
	prepare func(t *Text, c *call) (any, error)
	apply   func(x *exec, in value, a arguments) (value, error)
}

// filters has all filters by name: the closed set that docs/templates.md lists.
var filters = map[string]*filter{}

func init() {
	for _, set := range [][]filter{textFilters, listFilters, numberFilters, formatFilters} {
		for i := range set {
			filters[set[i].name] = &set[i]
		}
	}
}

func filterNames() []string { return slices.Sorted(maps.Keys(filters)) }

// onText makes a filter from a function on texts. A number is the text that it prints.
func onText(f func(string) string) func(*exec, value, arguments) (value, error) {
	return func(_ *exec, in value, _ arguments) (value, error) {
		s, err := in.print()
		return textValue(f(s)), err
	}
}

// withText is onText with arguments.
func withText(f func(s string, a []string) (string, error)) func(*exec, value, arguments) (value, error) {
	return func(_ *exec, in value, a arguments) (value, error) {
		s, err := in.print()
		if err != nil {
			return value{}, err
		}
		args := make([]string, len(a.all))
		for i, arg := range a.all {
			if args[i], err = arg.print(); err != nil {
				return value{}, describe("argument %d %w", i+1, err)
			}
		}
		s, err = f(s, args)
		return textValue(s), err
	}
}
