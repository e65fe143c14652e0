package profile

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/klivvr/whisper/domain/record"
)

// SplitPatch is a profile patch that is divided into a valid part and a refused part.
type SplitPatch struct {
	// Taken is the valid part: a patch that [ParsePatch] accepts, also that of an earlier version, with its locale in
	// the usual spelling. It is nil if nothing is valid.
	Taken []byte
	// Refused is a patch of the invalid parts, as they came, or nil. It holds nothing that was taken. So putting it
	// back does not undo what changed in those fields meanwhile.
	Refused []byte
	// Fields are the names of the refused parts, in the order of the patch; at most [MaxRefusedFields].
	Fields []string
	// Problem says what is wrong with them, and contains no token. It is nil if Refused is.
	Problem *record.Invalid
}

// MaxRefusedFields bounds the names of refused parts, because a header holds them.
const MaxRefusedFields = 32

// SplitProfilePatch divides a patch into what is right and what is not, so that a misspelt time zone does not lose the
// push token beside it. Each of these is taken or refused by itself: locale, timezone, each attribute, each endpoint,
// each channel of a preference, and quiet_hours as a whole, since one end with an earlier other end would be a time
// that nobody asked for. An unknown name (also inside an endpoint or quiet_hours) is refused alone. A repeated member
// is refused in both forms, since nobody can say which was meant. More endpoints than [MaxEndpoints] are refused
// together.
//
// The error is an [*record.Invalid] for a patch that is refused as a whole: it is too large, not a JSON object, or
// nothing in it is right.
func SplitProfilePatch(value []byte) (SplitPatch, error) {
	patch, err := ParsePatch(value)
	if err == nil && !patch.respelt {
		return SplitPatch{Taken: value}, nil
	}
	if err != nil && (len(value) > MaxBytes || !isObject(value)) {
		return SplitPatch{}, err
	}
	s := splitter{told: map[string]bool{}}
	s.divide(strings.TrimLeft(string(value), " \t\r\n"))
	if len(s.taken.parts) == 0 {
		return SplitPatch{}, err
	}
	split := SplitPatch{Taken: s.taken.json(), Fields: s.fields, Problem: s.Invalid()}
	if len(split.Taken) > MaxBytes { // a locale's usual spelling may be the longer one
		s.Add(record.WordTooLarge, "the profile patch has %d bytes, at most %d are allowed", len(split.Taken), MaxBytes)
		return SplitPatch{}, s.Err()
	}
	if len(s.refused.parts) > 0 {
		split.Refused = s.refused.json()
	}
	return split, nil
}

func isObject(value []byte) bool {
	var p record.Problems
	_, ok := record.Open(value, "", &p)
	return ok
}

// part is one member of a patch that is taken or refused by itself: its path, as names in JSON, and its value.
type part struct {
	path  []string
	raw   string
	twice bool // its name is there more than once
}

// splitter judges the parts of a patch one by one. It judges a part by parsing a patch of that part alone, so there is
// one set of rules. This happens only for patches with a problem, and costs some microseconds a part.
type splitter struct {
	record.Problems
	taken, refused tree
	fields         []string
	told           map[string]bool // problems: many parts may have the same
}

func (s *splitter) divide(text string) {
	parts := partsOf(text)
	endpoints := 0
	for _, p := range parts {
		if p.isEndpoint() {
			endpoints++
		}
	}
	for _, p := range parts {
		switch {
		case p.twice:
			s.refuse(p, record.WordDuplicateField, record.Cut(p.name())+" is there twice")
		case p.isEndpoint() && endpoints > MaxEndpoints:
			s.refuse(p, record.WordTooLarge, fmt.Sprintf("endpoints names %d endpoints, at most %d are allowed", endpoints, MaxEndpoints))
		default:
			s.judge(p)
		}
	}
}

// judge takes a part or refuses it. From an endpoint and from quiet_hours it removes unknown names and takes the rest.
func (s *splitter) judge(p part) {
	patch, err := ParsePatch(p.json())
	if err == nil {
		s.taken.put(p.canonical(patch))
		return
	}
	if rest, unknown := p.withoutUnknown(); len(unknown) > 0 {
		if _, left := ParsePatch(rest.json()); left == nil {
			s.taken.put(rest)
			for _, u := range unknown {
				_, why := ParsePatch(u.json())
				s.refuseFor(u, why, "unknown field ") // what else it lacks stood beside it
			}
			return
		}
	}
	s.refuseFor(p, err, "")
}

// refuseFor refuses a part for those problems of a patch of it alone that begin with a text.
func (s *splitter) refuseFor(p part, why error, beginning string) {
	var invalid *record.Invalid
	if !errors.As(why, &invalid) {
		return // a part is only refused for such an error
	}
	for _, problem := range invalid.Problems {
		if strings.HasPrefix(problem, beginning) {
			s.tell(invalid.Word, problem)
		}
	}
	s.note(p)
}

func (s *splitter) refuse(p part, word, problem string) {
	s.tell(word, problem)
	s.note(p)
}

func (s *splitter) tell(word, problem string) {
	if !s.told[problem] {
		s.told[problem] = true
		s.Add(word, "%s", problem)
	}
}

func (s *splitter) note(p part) {
	s.refused.put(p)
	if name := record.Cut(p.name()); len(s.fields) < MaxRefusedFields && !slices.Contains(s.fields, name) {
		s.fields = append(s.fields, name)
	}
}

// partsOf lists the parts of a patch in their order.
func partsOf(text string) []part { return appendParts(nil, nil, text) }

// levels is how many objects below a field its parts are.
var levels = map[string]int{"attributes": 1, "endpoints": 1, "preferences": 2}

// appendParts descends into an object until it finds parts. A value without members, and a repeated one, is one part.
func appendParts(parts []part, above []string, object string) []part {
	times := map[string]int{}
	c := record.NewCursor(object)
	for key, _, ok := c.Member(); ok; key, _, ok = c.Member() {
		times[plainName(key)]++
	}
	c = record.NewCursor(object)
	for key, raw, ok := c.Member(); ok; key, raw, ok = c.Member() {
		p := part{path: append(slices.Clone(above), key), raw: raw, twice: times[plainName(key)] > 1}
		if !p.twice && len(p.path) <= levels[plainName(p.path[0])] && raw[0] == '{' {
			if within := appendParts(parts, p.path, raw); len(within) > len(parts) {
				parts = within
				continue
			}
		}
		parts = append(parts, p)
	}
	return parts
}

// plainName is a member's name without its escapes.
func plainName(key string) string {
	name, err := record.Text(key)
	if err != nil {
		return strings.Trim(key, `"`)
	}
	return name
}

// name is the name of the part in sentences.
func (p part) name() string {
	var names []string
	for _, key := range p.path {
		names = append(names, plainName(key))
	}
	return strings.Join(names, ".")
}

func (p part) isEndpoint() bool { return len(p.path) == 2 && plainName(p.path[0]) == "endpoints" }

// canonical is the part in the form that earlier versions also accept.
func (p part) canonical(patch Patch) part {
	if patch.locale != nil && *patch.locale != "" {
		p.raw = `"` + *patch.locale + `"`
	}
	return p
}

// withoutUnknown separates the unknown fields from a part that is an object.
func (p part) withoutUnknown() (rest part, unknown []part) {
	var known []string
	switch {
	case p.raw[0] != '{':
		return p, nil
	case p.isEndpoint():
		known = endpointFields
	case len(p.path) == 1 && plainName(p.path[0]) == "quiet_hours":
		known = quietHoursFields
	default:
		return p, nil
	}
	var kept tree
	c := record.NewCursor(p.raw)
	for key, raw, ok := c.Member(); ok; key, raw, ok = c.Member() {
		if name, err := record.Text(key); err == nil && !slices.Contains(known, name) {
			unknown = append(unknown, part{path: append(slices.Clone(p.path), key), raw: raw})
			continue
		}
		kept.put(part{path: []string{key}, raw: raw})
	}
	return part{path: p.path, raw: string(kept.json())}, unknown
}

func (p part) json() []byte {
	var t tree
	t.put(p)
	return t.json()
}

// tree joins parts to one object again. Neighbouring parts whose paths begin alike share those objects. The parts of a
// patch are neighbours unless a name is there twice; then the name is there twice again.
type tree struct{ parts []part }

func (t *tree) put(p part) { t.parts = append(t.parts, p) }

func (t *tree) json() []byte {
	out := []byte{'{'}
	var open []string // the path of the objects that are open
	first := true
	for _, p := range t.parts {
		above := p.path[:len(p.path)-1]
		shared := 0
		for shared < len(open) && shared < len(above) && open[shared] == above[shared] {
			shared++
		}
		for range len(open) - shared {
			out = append(out, '}')
		}
		if !first {
			out = append(out, ',')
		}
		first = false
		for _, name := range above[shared:] {
			out = append(out, name...)
			out = append(out, ':', '{')
		}
		out = append(out, p.path[len(p.path)-1]...)
		out = append(out, ':')
		out = append(out, p.raw...)
		open = above
	}
	for range len(open) + 1 {
		out = append(out, '}')
	}
	return out
}
