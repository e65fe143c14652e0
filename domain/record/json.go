package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Cursor steps through the members of an object or the items of a list, without decoding them. It needs text that
// json.Valid accepted; on any other text it stops early.
//
// encoding/json still decides whether bytes are JSON, and reads strings with escapes. The package comment says why
// stepping is not left to it.
type Cursor struct {
	s string
	i int
}

// NewCursor returns a cursor at a value, as it is written in the record.
func NewCursor(raw string) Cursor { return Cursor{s: raw} }

// EndOfText is the position after the string that begins at start.
func EndOfText(raw string, start int) int {
	c := Cursor{s: raw, i: start}
	c.text()
	return c.i
}

// Member returns the next member of the object at the cursor, key and value as written.
func (c *Cursor) Member() (key, value string, ok bool) {
	if !c.step('}') {
		return "", "", false
	}
	if key, ok = c.value(); !ok || key[0] != '"' {
		return "", "", false
	}
	c.space()
	if c.i >= len(c.s) || c.s[c.i] != ':' {
		return "", "", false
	}
	c.i++
	c.space()
	value, ok = c.value()
	return key, value, ok
}

// Item returns the next item of the list at the cursor.
func (c *Cursor) Item() (value string, ok bool) {
	if !c.step(']') {
		return "", false
	}
	return c.value()
}

// step skips the bracket or comma before the next value. It returns false at the end.
func (c *Cursor) step(end byte) bool {
	c.space()
	if c.i >= len(c.s) || c.s[c.i] == end {
		return false
	}
	c.i++
	c.space()
	return c.i < len(c.s) && c.s[c.i] != end
}

func (c *Cursor) space() {
	for c.i < len(c.s) {
		switch c.s[c.i] {
		case ' ', '\t', '\n', '\r':
			c.i++
		default:
			return
		}
	}
}

func (c *Cursor) value() (string, bool) {
	start := c.i
	if start >= len(c.s) {
		return "", false
	}
	switch c.s[start] {
	case '"':
		c.text()
	case '{', '[':
		c.nested()
	default:
		for c.i < len(c.s) && !strings.ContainsRune(",]} \t\r\n:", rune(c.s[c.i])) {
			c.i++
		}
	}
	return c.s[start:c.i], c.i > start
}

func (c *Cursor) text() {
	for c.i++; c.i < len(c.s); c.i++ {
		switch c.s[c.i] {
		case '\\':
			c.i++
		case '"':
			c.i++
			return
		}
	}
	c.i = len(c.s)
}

func (c *Cursor) nested() {
	for depth := 0; c.i < len(c.s); {
		switch c.s[c.i] {
		case '"':
			c.text()
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				c.i++
				return
			}
		}
		c.i++
	}
}

// Text reads a JSON string as written. Without escapes it shares the memory of raw.
func Text(raw string) (string, error) {
	if len(raw) < 2 || raw[0] != '"' {
		return "", fmt.Errorf("must be a string, not %s", Kind(raw))
	}
	if strings.IndexByte(raw, '\\') < 0 {
		return raw[1 : len(raw)-1], nil
	}
	var s string
	if err := json.Unmarshal([]byte(raw), &s); err != nil {
		return "", errors.New("is not a JSON string")
	}
	// The decoder puts U+FFFD for half of a pair. Two different ids must not become one.
	if halfPair(raw) {
		return "", errors.New("has half of a surrogate pair (\\ud800 to \\udfff)")
	}
	return s, nil
}

// halfPair reports whether one of the escapes in a JSON string as written is half of a surrogate pair.
func halfPair(raw string) bool {
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			continue
		}
		switch first := escaped(raw[i:]); {
		case first < 0xD800 || first > 0xDFFF:
			i++ // also a backslash that is escaped itself
		case first <= 0xDBFF && i+6 <= len(raw) && utf16.IsSurrogate(escaped(raw[i+6:])) && escaped(raw[i+6:]) >= 0xDC00:
			i += 11
		default:
			return true
		}
	}
	return false
}

// escaped returns the rune of \uXXXX at the start of s, or -1.
func escaped(s string) rune {
	if len(s) < 6 || s[:2] != `\u` {
		return -1
	}
	n, err := strconv.ParseUint(s[2:6], 16, 16)
	if err != nil {
		return -1
	}
	return rune(n)
}

// Kind names the type of a value, for sentences.
func Kind(raw string) string {
	if raw == "" {
		return "nothing"
	}
	switch raw[0] {
	case '"':
		return "a string"
	case '{':
		return "an object"
	case '[':
		return "a list"
	case 't', 'f':
		return raw
	case 'n':
		return "null"
	default:
		return "a number"
	}
}

// Open checks that value is one JSON object in UTF-8, and returns its text. what names the object in problems.
func Open(value []byte, what string, p *Problems) (text string, ok bool) {
	switch {
	case !utf8.Valid(value):
		p.Add(WordMalformed, "%s is not UTF-8 (at byte %d)", what, invalidUTF8At(value))
		return "", false
	case !json.Valid(value):
		p.Add(WordMalformed, "%s", explainSyntax(value, what))
		return "", false
	}
	text = strings.TrimLeft(string(value), " \t\r\n")
	if text[0] != '{' {
		p.Add(WordMalformed, "%s must be a JSON object, not %s", what, Kind(text))
		return "", false
	}
	return text, true
}

func invalidUTF8At(value []byte) int {
	for i := 0; i < len(value); {
		r, n := utf8.DecodeRune(value[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return len(value)
}

func explainSyntax(value []byte, what string) string {
	dec := json.NewDecoder(strings.NewReader(string(value)))
	var first json.RawMessage
	err := dec.Decode(&first)
	if syntax := (*json.SyntaxError)(nil); errors.As(err, &syntax) {
		return fmt.Sprintf("%s is not JSON: %s (byte %d)", what, syntax.Error(), syntax.Offset)
	}
	switch {
	case err == nil:
		return fmt.Sprintf("%s ends at byte %d, but there is more behind it: one JSON object a record", what, dec.InputOffset())
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Sprintf("%s is cut off: its JSON ends after %d bytes, in the middle of a value", what, len(value))
	case errors.Is(err, io.EOF):
		return fmt.Sprintf("%s is blank: a JSON object is needed", what)
	default:
		return fmt.Sprintf("%s is not JSON: %v", what, err)
	}
}

// maxJSONDepth bounds how deep upstream may nest, here and so in every reader after this one.
const maxJSONDepth = 32

// CheckJSON checks free JSON (variables, data, attributes) for repeated members and for nesting.
func CheckJSON(raw, path string, p *Problems) { checkNested(raw, path, 1, p) }

func checkNested(raw, path string, depth int, p *Problems) {
	if raw == "" || (raw[0] != '{' && raw[0] != '[') {
		return
	}
	if depth > maxJSONDepth {
		p.Add(WordTooLarge, "%s is nested deeper than %d levels", Cut(path), maxJSONDepth)
		return
	}
	c := NewCursor(raw)
	if raw[0] == '[' {
		for v, ok := c.Item(); ok; v, ok = c.Item() {
			if _, err := Text(v); err != nil && v[0] == '"' {
				p.Add(WordMalformed, "%s %v", Cut(path+"[]"), err)
			}
			checkNested(v, path+"[]", depth+1, p)
		}
		return
	}
	seen := map[string]bool{}
	for k, v, ok := c.Member(); ok; k, v, ok = c.Member() {
		name, err := Text(k)
		if err != nil {
			p.Add(WordMalformed, "a name in %s %v", Cut(path), err)
			continue
		}
		if seen[name] {
			p.Add(WordDuplicateField, "%s has %s twice", Cut(path), Cited(name))
		}
		seen[name] = true
		switch v[0] {
		case '{', '[':
			checkNested(v, path+"."+name, depth+1, p)
		case '"':
			if _, err := Text(v); err != nil {
				p.Add(WordMalformed, "%s %v", Cut(path+"."+name), err)
			}
		}
	}
}

// Cut shortens a path that contains names of upstream, so that it fits into a sentence.
func Cut(path string) string {
	const most = 128
	path = strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f {
			return '?'
		}
		return r
	}, path)
	if len(path) <= most {
		return path
	}
	return strings.ToValidUTF8(path[:most], "") + "…"
}

// Text reads a field that must be a string.
func (p *Problems) Text(path, raw string) string {
	s, err := Text(raw)
	switch {
	case err == nil:
		return s
	case raw[0] == '"':
		p.Add(WordMalformed, "%s %v", path, err)
	default:
		p.Add(WordWrongType, "%s %v", path, err)
	}
	return ""
}

// Object checks that a field is an object, and checks what is in it.
func (p *Problems) Object(path, raw string) bool {
	if raw[0] != '{' {
		p.Add(WordWrongType, "%s must be an object, not %s", path, Kind(raw))
		return false
	}
	return true
}

// Free reads a field that must be an object with any members, of at most so many bytes.
func (p *Problems) Free(path, raw string, most int) []byte {
	if !p.Object(path, raw) {
		return nil
	}
	p.Limit(WordTooLarge, path, len(raw), most)
	CheckJSON(raw, path, p)
	return []byte(raw)
}

// Fields are the members that an object may have. It finds unknown and repeated ones.
type Fields struct {
	Path  string // "" for the record itself
	Known []string
	seen  uint32
}

// Take returns the name of a member and its index among the known ones, or -1 after a problem: the member is unknown or
// was taken before.
func (f *Fields) Take(key string, p *Problems) (at int, name string) {
	name, err := Text(key)
	if err != nil {
		p.Add(WordMalformed, "a field's name %v", err)
		return -1, ""
	}
	for i, k := range f.Known {
		if k != name {
			continue
		}
		if f.seen&(1<<i) != 0 {
			p.Add(WordDuplicateField, "%s is there twice", f.Name(name))
			return -1, name
		}
		f.seen |= 1 << i
		return i, name
	}
	hint := ""
	if f.Path == "" && name == "lane" {
		hint = " (the topic is the lane: whisper.requests.high, .normal or .low)"
	}
	p.Add(WordUnknownField, "unknown field %s%s%s; known are %s", Cited(name), f.in(), hint, strings.Join(f.Known, ", "))
	return -1, name
}

// Has reports whether the member at this index was taken.
func (f *Fields) Has(at int) bool { return f.seen&(1<<at) != 0 }

func (f *Fields) in() string {
	if f.Path == "" {
		return ""
	}
	return " in " + f.Path
}

// Name is a member with its path, as problems name it.
func (f *Fields) Name(field string) string {
	if f.Path == "" {
		return field
	}
	return f.Path + "." + field
}
