package record

import (
	"encoding/json"
	"strings"
)

// StrictMembers returns the members of the one JSON object that value is, each as it was written. what names the object
// in problems. Everything that two readers could understand differently is an [Invalid]: a member that is there twice,
// at any depth; a member whose name is one of names in other letters ("SUB" beside "sub"); half of a surrogate pair;
// text that is not UTF-8; anything after the object; nesting of more than 32 levels. encoding/json accepts all of
// these: the last member wins, also in other letters.
func StrictMembers(value []byte, what string, names ...string) (map[string]json.RawMessage, error) {
	var p Problems
	text, ok := Open(value, what, &p)
	if !ok {
		return nil, p.Err()
	}
	CheckJSON(text, what, &p)
	if p.Any() {
		return nil, p.Err()
	}
	members := map[string]json.RawMessage{}
	c := NewCursor(text)
	for k, v, ok := c.Member(); ok; k, v, ok = c.Member() {
		name, err := Text(k)
		if err != nil {
			return nil, err
		}
		for _, known := range names {
			if name != known && strings.EqualFold(name, known) {
				p.Add(WordUnknownField, "%s has %s, which others could read as %s", what, Cited(name), known)
			}
		}
		members[name] = json.RawMessage(v)
	}
	return members, p.Err()
}
