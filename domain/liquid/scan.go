package liquid

import (
	"fmt"
	"strings"
)

// token is a literal, an output {{ … }} or a tag {% … %}.
type token struct {
	kind  tokenKind
	text  string // the literal; what is between the brackets, without blanks
	whole string // as it was written, for complaints
}

type tokenKind uint8

const (
	literalToken tokenKind = iota
	outputToken
	tagToken
)

// scan divides a source into tokens. A dash inside brackets ({{- x -}}) removes the blanks of the literal on its side.
// Brackets inside quotes are text.
func scan(source string) ([]token, error) {
	var tokens []token
	trim := false // the next literal's beginning
	literal := func(text string, trimEnd bool) {
		if trim {
			text = strings.TrimLeft(text, blanks)
		}
		if trimEnd {
			text = strings.TrimRight(text, blanks)
		}
		trim = false
		if text != "" {
			tokens = append(tokens, token{kind: literalToken, text: text})
		}
	}
	for source != "" {
		open := nextOpen(source)
		if open < 0 {
			literal(source, false)
			break
		}
		inside, length, err := bracket(source[open:])
		if err != nil {
			return nil, err
		}
		whole := source[open : open+length]
		dashed := strings.HasPrefix(inside, "-")
		literal(source[:open], dashed)
		inside = strings.TrimPrefix(inside, "-")
		if strings.HasSuffix(inside, "-") {
			trim, inside = true, inside[:len(inside)-1]
		}
		t := token{kind: outputToken, text: strings.Trim(inside, blanks), whole: whole}
		source = source[open+length:]
		if whole[1] == '%' {
			t.kind = tagToken
			switch t.text {
			case "raw":
				verbatim, rest, err := until(source, "raw")
				if err != nil {
					return nil, err
				}
				trim = false
				literal(verbatim, false)
				source = rest
				continue
			case "comment":
				_, rest, err := until(source, "comment")
				if err != nil {
					return nil, err
				}
				source = rest
				continue
			}
		}
		tokens = append(tokens, t)
	}
	return tokens, nil
}

const blanks = " \t\r\n"

func nextOpen(s string) int {
	for from := 0; ; {
		i := strings.IndexByte(s[from:], '{')
		if i < 0 || from+i+1 >= len(s) {
			return -1
		}
		from += i
		if s[from+1] == '{' || s[from+1] == '%' {
			return from
		}
		from++
	}
}

// bracket returns what is inside the brackets at the beginning of s, and the length with the brackets.
func bracket(s string) (inside string, length int, err error) {
	end, name := "}}", "{{ without }}"
	if s[1] == '%' {
		end, name = "%}", "{% without %}"
	}
	quote := byte(0)
	for i := 2; i < len(s); i++ {
		switch c := s[i]; {
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '"' || c == '\'':
			quote = c
		case strings.HasPrefix(s[i:], end):
			return s[2:i], i + 2, nil
		case (c == '{' && i+1 < len(s)) && (s[i+1] == '{' || s[i+1] == '%'):
			return "", 0, fmt.Errorf("a placeholder or tag is not closed before the next begins: %s: %s", quoted(s[:i]), name)
		}
	}
	if quote != 0 {
		return "", 0, fmt.Errorf("a quote is not closed: %s", quoted(s))
	}
	return "", 0, fmt.Errorf("a placeholder or tag is not closed: %s: %s", quoted(s), name)
}

// until finds the end of raw or comment: {% endraw %}.
func until(s, name string) (inside, rest string, err error) {
	for from := 0; ; {
		i := strings.Index(s[from:], "{%")
		if i < 0 {
			return "", "", fmt.Errorf("{%% %s %%} is not closed: there is no {%% end%s %%}", name, name)
		}
		from += i
		tag, after, closed := strings.Cut(s[from+2:], "%}")
		tag = strings.TrimSuffix(strings.TrimPrefix(tag, "-"), "-")
		if closed && strings.Trim(tag, blanks) == "end"+name {
			return s[:from], after, nil
		}
		from += 2
	}
}

// quoted shortens what the author of a text wrote, to fit into a sentence.
func quoted(s string) string {
	const most = 60
	s = strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f {
			return ' '
		}
		return r
	}, s)
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
