package liquid

import (
	"errors"
	"math/big"
	"strconv"
	"strings"
)

// value is a value in a text. The kind says which field is used.
type value struct {
	kind  kind
	text  string // of a text or number what it prints; of objects and lists their JSON
	items []value
	made  bool // a list of items rather than of JSON
	safe  bool // made of what was rendered already: not escaped again
}

type kind uint8

const (
	missingKind kind = iota // there is no such variable, or it is null
	boolKind
	numberKind
	textKind
	listKind
	objectKind
	emptyKind // the words empty and blank
	blankKind
)

var (
	errMissing = errors.New("is missing")
	errNoText  = errors.New("is an object or a list, not a text, a number, true or false")
)

func textValue(s string) value { return value{kind: textKind, text: s} }
func boolValue(b bool) value   { return value{kind: boolKind, text: strconv.FormatBool(b)} }
func intValue(n int) value     { return value{kind: numberKind, text: strconv.Itoa(n)} }

// jsonValue reads a JSON text; "" is missing.
func jsonValue(raw string) value {
	if raw == "" {
		return value{}
	}
	switch raw[0] {
	case '"':
		return textValue(unquote(raw))
	case '{':
		return value{kind: objectKind, text: raw}
	case '[':
		return value{kind: listKind, text: raw}
	case 't', 'f':
		return value{kind: boolKind, text: raw}
	case 'n':
		return value{}
	default:
		return value{kind: numberKind, text: raw}
	}
}

// print is the value as it is printed in a text.
func (v value) print() (string, error) {
	switch v.kind {
	case textKind, numberKind, boolKind:
		return v.text, nil
	case missingKind:
		return "", errMissing
	case emptyKind, blankKind:
		return "", nil
	case listKind, objectKind:
	}
	return "", errNoText
}

// truth is true for all values except nil and false, as in every Liquid.
func (v value) truth() bool {
	return v.kind != missingKind && (v.kind != boolKind || v.text != "false")
}

// empty reports whether the value is "", or a list or object without members.
func (v value) empty() bool {
	switch v.kind {
	case textKind:
		return v.text == ""
	case listKind, objectKind:
		if v.made {
			return len(v.items) == 0
		}
		_, some := (&cursor{s: v.text}).item()
		return !some
	case emptyKind, blankKind:
		return true
	case missingKind, boolKind, numberKind:
	}
	return false
}

func (v value) blank() bool {
	return !v.truth() || v.empty() || v.kind == textKind && strings.TrimSpace(v.text) == ""
}

// size is the number of characters in a text, or of items in a list.
func (v value) size() (int, bool) {
	switch {
	case v.kind == textKind:
		return characters(v.text), true
	case v.made:
		return len(v.items), true
	case v.kind != listKind && v.kind != objectKind:
		return 0, false
	}
	n, c := 0, cursor{s: v.text}
	for {
		ok := false
		if v.kind == objectKind {
			_, _, ok = c.member()
		} else {
			_, ok = c.item()
		}
		if !ok {
			return n, true
		}
		n++
	}
}

// list gives the items of a list.
func (v value) list() []value {
	if v.made || v.kind != listKind {
		return v.items
	}
	var items []value
	c := cursor{s: v.text}
	for raw, ok := c.item(); ok; raw, ok = c.item() {
		items = append(items, jsonValue(raw))
	}
	return items
}

// at is the part of a value that .name or [index] refers to.
func (v value) at(index value) value {
	switch {
	case index.kind == textKind && v.kind == objectKind:
		if raw := memberOf(v.text, index.text); raw != "" {
			return jsonValue(raw)
		}
	case index.kind == numberKind && v.kind == listKind:
		n, err := strconv.Atoi(index.text)
		items := v.list()
		if n < 0 {
			n += len(items)
		}
		if err == nil && n >= 0 && n < len(items) {
			return items[n]
		}
		return value{}
	}
	if index.kind != textKind {
		return value{}
	}
	switch index.text {
	case "size":
		if n, ok := v.size(); ok {
			return intValue(n)
		}
	case "first":
		if items := v.list(); len(items) > 0 {
			return items[0]
		}
	case "last":
		if items := v.list(); len(items) > 0 {
			return items[len(items)-1]
		}
	}
	return value{}
}

// maxDigits bounds the numbers of arithmetic. More digits, or an exponent, would make work that no text needs.
const maxDigits = 40

var errNoNumber = errors.New("is not a number such as 12 or 120.50")

// number reads a number exactly. A text that looks like a number counts as one.
func (v value) number() (*big.Rat, error) {
	if v.kind == missingKind {
		return nil, errMissing
	}
	if v.kind != numberKind && v.kind != textKind || !isNumber(v.text) {
		return nil, errNoNumber
	}
	n, ok := new(big.Rat).SetString(v.text)
	if !ok {
		return nil, errNoNumber
	}
	return n, nil
}

// isNumber reports whether a text is digits with at most one point between them, and perhaps a sign.
func isNumber(s string) bool {
	s = strings.TrimPrefix(s, "-")
	whole, fraction, point := strings.Cut(s, ".")
	return len(s) <= maxDigits && digits(whole) && (!point || digits(fraction))
}

func digits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

// decimalsOf is the number of digits after the point.
func decimalsOf(s string) int {
	_, fraction, _ := strings.Cut(s, ".")
	return len(fraction)
}

// numberValue is a result as a value: without a point if it is whole, else exact, to at most 20 decimals.
func numberValue(n *big.Rat) (value, error) {
	text := n.Num().String()
	if !n.IsInt() {
		text = strings.TrimRight(strings.TrimRight(n.FloatString(20), "0"), ".")
	}
	if !isNumber(text) {
		return value{}, errors.New("comes to a number of more than 40 digits")
	}
	return value{kind: numberKind, text: text}, nil
}

// equal is ==. Values of different kinds differ. Numbers are compared by value.
func equal(a, b value) bool {
	switch {
	case a.kind == emptyKind || b.kind == emptyKind:
		return a.empty() && b.empty()
	case a.kind == blankKind || b.kind == blankKind:
		return a.blank() && b.blank()
	case a.kind != b.kind:
		return false
	case a.kind == numberKind && a.text != b.text:
		c, ok := compareNumbers(a, b)
		return ok && c == 0
	case a.kind == listKind || a.kind == objectKind:
		return !a.made && !b.made && a.text == b.text
	default:
		return a.text == b.text
	}
}

// compare orders two values. ok is false if they have no order.
func compare(a, b value) (c int, ok bool) {
	if a.kind == textKind && b.kind == textKind {
		return strings.Compare(a.text, b.text), true
	}
	return compareNumbers(a, b)
}

func compareNumbers(a, b value) (c int, ok bool) {
	x, err := a.number()
	if err != nil {
		return compareFloats(a, b)
	}
	y, err := b.number()
	if err != nil {
		return compareFloats(a, b)
	}
	return x.Cmp(y), true
}

// compareFloats is for numbers with an exponent or with more digits than arithmetic takes.
func compareFloats(a, b value) (c int, ok bool) {
	if a.kind != numberKind || b.kind != numberKind {
		return 0, false
	}
	x, errX := strconv.ParseFloat(a.text, 64)
	y, errY := strconv.ParseFloat(b.text, 64)
	if errX != nil && !errors.Is(errX, strconv.ErrRange) || errY != nil && !errors.Is(errY, strconv.ErrRange) {
		return 0, false
	}
	switch {
	case x < y:
		return -1, true
	case x > y:
		return 1, true
	default:
		return 0, true
	}
}
