package liquid

import (
	"encoding/json"
	"strings"
)

// Variables and attributes stay JSON texts, as upstream wrote them. Most texts read a few of them, and decoding all for
// every user would cost more than rendering. A text that is not JSON reads as missing; it never panics.

// cursor steps through one JSON object or list.
type cursor struct {
	s string
	i int
}

// member is the next member of an object, as written.
func (c *cursor) member() (key, raw string, ok bool) {
	if key, ok = c.item(); !ok || key[0] != '"' {
		return "", "", false
	}
	c.space()
	if c.i >= len(c.s) || c.s[c.i] != ':' {
		return "", "", false
	}
	c.i++
	c.space()
	raw = c.value()
	return key, raw, raw != ""
}

// item is the next value of a list.
func (c *cursor) item() (raw string, ok bool) {
	c.space()
	if c.i >= len(c.s) || c.s[c.i] == ']' || c.s[c.i] == '}' {
		return "", false
	}
	c.i++ // the bracket or the comma
	c.space()
	raw = c.value()
	return raw, raw != ""
}

func (c *cursor) space() {
	for c.i < len(c.s) && strings.IndexByte(blanks, c.s[c.i]) >= 0 {
		c.i++
	}
}

func (c *cursor) value() string {
	start := c.i
	for depth := 0; c.i < len(c.s); c.i++ {
		switch b := c.s[c.i]; b {
		case '"':
			c.text()
			if depth == 0 {
				return c.s[start:c.i]
			}
			c.i--
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return c.s[start:c.i]
			}
			if depth--; depth == 0 {
				c.i++
				return c.s[start:c.i]
			}
		case ',', ':', ' ', '\t', '\r', '\n':
			if depth == 0 {
				return c.s[start:c.i]
			}
		}
	}
	return c.s[start:c.i]
}

// text skips a string, from quote to quote.
func (c *cursor) text() {
	for from := c.i + 1; from < len(c.s); {
		end := strings.IndexByte(c.s[from:], '"')
		if end < 0 {
			break
		}
		from += end
		escapes := 0
		for c.s[from-1-escapes] == '\\' {
			escapes++
		}
		from++
		if escapes%2 == 0 {
			c.i = from
			return
		}
	}
	c.i = len(c.s)
}

// memberOf is the value of a name in an object, or "".
func memberOf(object, name string) string {
	c := cursor{s: object}
	for key, raw, ok := c.member(); ok; key, raw, ok = c.member() {
		if key[1:len(key)-1] == name || strings.IndexByte(key, '\\') >= 0 && unquote(key) == name {
			return raw
		}
	}
	return ""
}

// unquote reads a JSON string. Without escapes it shares the memory of raw.
func unquote(raw string) string {
	if len(raw) < 2 || raw[len(raw)-1] != '"' {
		return ""
	}
	if strings.IndexByte(raw, '\\') < 0 {
		return raw[1 : len(raw)-1]
	}
	var s string
	if json.Unmarshal([]byte(raw), &s) != nil {
		return ""
	}
	return s
}
