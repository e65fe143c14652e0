package liquid

import (
	"fmt"
	"strings"
)

// lexeme is a part of an expression. The end of the expression has kind 0.
type lexeme struct {
	kind byte // 'a' a name, '1' a number, '"' a string, else the mark's first byte
	text string
}

func (l lexeme) is(mark string) bool {
	return l.kind != 'a' && l.kind != '1' && l.kind != '"' && l.text == mark
}

func (l lexeme) word(name string) bool { return l.kind == 'a' && l.text == name }

// String is the lexeme as error texts have it.
func (l lexeme) String() string {
	switch l.kind {
	case 0:
		return "the end"
	case '"':
		return `"` + quoted(l.text) + `"`
	default:
		return quoted(l.text)
	}
}

// marks, the longer ones first.
var marks = []string{"..", "==", "!=", "<>", "<=", ">=", "<", ">", "=", "|", ":", ",", ".", "[", "]", "(", ")"}

// lex divides an expression into lexemes.
func lex(s string) ([]lexeme, error) {
	var all []lexeme
	for {
		s = strings.TrimLeft(s, blanks)
		if s == "" {
			return all, nil
		}
		l, rest, err := next(s)
		if err != nil {
			return nil, err
		}
		all, s = append(all, l), rest
	}
}

func next(s string) (lexeme, string, error) {
	switch c := s[0]; {
	case c == '"' || c == '\'':
		end := strings.IndexByte(s[1:], c)
		if end < 0 {
			return lexeme{}, "", fmt.Errorf("a quote is not closed: %s", quoted(s))
		}
		return lexeme{'"', s[1 : 1+end]}, s[2+end:], nil
	case nameStart(c):
		n := 1
		for n < len(s) && (nameStart(s[n]) || isDigit(s[n]) || s[n] == '-') {
			n++
		}
		return lexeme{'a', s[:n]}, s[n:], nil
	case isDigit(c) || c == '-' && len(s) > 1 && isDigit(s[1]):
		n := 1
		for n < len(s) && (isDigit(s[n]) || s[n] == '.' && n+1 < len(s) && isDigit(s[n+1]) && !strings.Contains(s[:n], ".")) {
			n++
		}
		if n > maxDigits || n < len(s) && nameStart(s[n]) {
			return lexeme{}, "", fmt.Errorf("%s is not a number or a name", quoted(s))
		}
		return lexeme{'1', s[:n]}, s[n:], nil
	}
	for _, mark := range marks {
		if strings.HasPrefix(s, mark) {
			return lexeme{mark[0], mark}, s[len(mark):], nil
		}
	}
	return lexeme{}, "", fmt.Errorf("%s is not understood", quoted(s))
}

func nameStart(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' }
func isDigit(c byte) bool   { return c >= '0' && c <= '9' }
