package liquid

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Options say what a text is for.
type Options struct {
	// Locale is the BCP 47 tag of the language of the text, whose formats it uses.
	Locale string
	// HTML means that what placeholders insert is escaped.
	HTML bool
	// MaxLiteral bounds the bytes that are printed whatever the variables are; 0: no bound.
	MaxLiteral int
	// KnownZone reports whether a time zone of the IANA database exists.
	KnownZone func(name string) bool
}

// Text is a parsed text. It is never changed, so any number of goroutines may render it.
type Text struct {
	nodes   []node
	locale  *locale
	html    bool
	slots   int // registers that it needs
	size    int // a guess at how long it gets
	perUser bool
	needs   []Need
	known   func(zone string) bool
}

func (t *Text) slot() int {
	t.slots++
	return t.slots - 1
}

// Parse parses a text. The error is one line for the author of the text.
func Parse(source string, o Options) (*Text, error) {
	if len(source) > MaxSourceBytes {
		return nil, fmt.Errorf("is %d bytes long, at most %d are allowed", len(source), MaxSourceBytes)
	}
	tokens, err := scan(source)
	if err != nil {
		return nil, err
	}
	t := &Text{locale: localeOf(o.Locale), html: o.HTML, known: o.KnownZone}
	p := &parser{tokens: tokens}
	p.text = t
	if t.nodes, _, err = p.nodes(); err != nil {
		return nil, err
	}
	literal := 0
	for _, n := range t.nodes {
		if l, ok := n.(literalNode); ok {
			literal += len(l)
		}
	}
	t.size = literal + 12*(len(t.nodes)-1)
	if o.MaxLiteral > 0 && literal > o.MaxLiteral {
		return nil, fmt.Errorf("has %d bytes, at most %d are allowed", literal, o.MaxLiteral)
	}
	t.needs = sortedNeeds(needsOf(t.nodes))
	return t, nil
}

// PerUser reports whether two users with the same variables may get different texts: the text mentions user.…, or shows
// a time in the user's own zone.
func (t *Text) PerUser() bool { return t.perUser }

// Needs are the variables of the request without which the text can't be rendered, whatever the others are.
func (t *Text) Needs() []Need { return t.needs }

// Run has the values that texts are rendered with. It is for one goroutine. Its steps are for all its texts together.
type Run struct {
	// Variables and Attributes are JSON objects, or "".
	Variables, Attributes string
	// Locale and Timezone are the user's, unchanged, or "".
	Locale, Timezone string
	// DefaultTimezone is for users without a time zone; "" is UTC.
	DefaultTimezone string
	// Zone loads the rules of a time zone.
	Zone func(name string) (*time.Location, error)
	// Now is what {{ "now" | date }} shows.
	Now time.Time

	used int
	exec exec
}

// Steps is the number of steps that were taken so far.
func (r *Run) Steps() int { return r.used }

// Render renders a text of at most that many bytes. If there are problems, there is no text.
func (r *Run) Render(t *Text, most int) (text string, problems []string) {
	if len(t.nodes) == 0 {
		return "", nil
	}
	if l, ok := t.nodes[0].(literalNode); ok && len(t.nodes) == 1 {
		if len(l) > most {
			return "", []string{tooLong(most)}
		}
		return string(l), nil
	}
	x := &r.exec // one for all texts, and one buffer
	*x = exec{run: r, text: t, most: most, out: x.out[:0]}
	if cap(x.out) == 0 {
		x.out = make([]byte, 0, min(t.size, most))
	}
	if t.slots > 0 {
		x.registers = make([]register, t.slots)
	}
	x.nodes(t.nodes)
	if len(x.problems) > 0 {
		return "", x.problems
	}
	return string(x.out), nil
}

func tooLong(most int) string {
	return fmt.Sprintf("has more than %d bytes, which is all that is allowed", most)
}

// Need is a variable and the kind of value that it must have.
type Need struct {
	Path []string
	Kind NeedKind
}

// NeedKind is what a text uses a variable for.
type NeedKind uint8

// The kinds. NeedAny accepts any value.
const (
	NeedAny    NeedKind = iota
	NeedText            // a text, a number, true or false: it is printed
	NeedList            // it is looped over
	NeedNumber          // it is formatted as one, or calculated with
)

// Name is the path as it is written.
func (n Need) Name() string { return strings.Join(n.Path, ".") }

// Check returns what is wrong with the variable in the variables of a request, or nil.
func (n Need) Check(variables string) error {
	v := lookUp(variables, n.Path)
	switch {
	case v.kind == missingKind:
		return errMissing
	case n.Kind == NeedText:
		_, err := v.print()
		return err
	case n.Kind == NeedNumber:
		_, err := v.number()
		return err
	case n.Kind == NeedList && v.kind != listKind:
		return errNoList
	}
	return nil
}

func lookUp(object string, path []string) value {
	v := jsonValue(strings.TrimLeft(object, blanks))
	for _, name := range path {
		v = v.at(textValue(name))
	}
	return v
}

func sortedNeeds(set needs) []Need {
	all := make([]Need, 0, len(set))
	for _, n := range set {
		all = append(all, n)
	}
	slices.SortFunc(all, func(a, b Need) int { return slices.Compare(a.Path, b.Path) })
	return all
}
