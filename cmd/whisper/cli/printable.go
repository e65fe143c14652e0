package cli

import (
	"fmt"
	"io"
	"slices"
	"sync"
	"unicode/utf8"
)

// printableWriter is what every command prints through. Much of what is printed was written by others (titles,
// ids, dead letters, errors that quote them), and a terminal takes some characters for commands: to set its title, to
// answer as if somebody had typed, to show text in another order. They come out as \u001b is written here, which
// within JSON means the same character.
type printableWriter struct {
	w io.Writer

	mu   sync.Mutex
	rest []byte // the beginning of a character whose end was not written yet
}

// Printable wraps a writer so that nothing written through it can command a terminal.
func Printable(w io.Writer) io.Writer { return &printableWriter{w: w} }

// Raw is the writer below, for a command's own control characters and to look whether it is a terminal.
func Raw(w io.Writer) io.Writer {
	if p, ok := w.(*printableWriter); ok {
		return p.w
	}
	return w
}

// Write implements io.Writer.
func (p *printableWriter) Write(text []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.rest) == 0 && !slices.ContainsFunc(text, suspicious) {
		return p.w.Write(text)
	}
	var out []byte
	all := append(p.rest, text...)
	p.rest = nil
	for len(all) > 0 {
		r, n := utf8.DecodeRune(all)
		switch {
		case r == utf8.RuneError && n == 1 && !utf8.FullRune(all):
			p.rest, n = slices.Clone(all), len(all)
		case r == utf8.RuneError && n == 1:
			out = fmt.Appendf(out, `\x%02x`, all[0])
		case commands(r):
			out = fmt.Appendf(out, `\u%04x`, r)
		default:
			out = append(out, all[:n]...)
		}
		all = all[n:]
	}
	if _, err := p.w.Write(out); err != nil {
		return 0, err
	}
	return len(text), nil
}

func suspicious(b byte) bool { return b < 0x20 && b != '\n' && b != '\t' || b >= 0x7f }

// commands says that a terminal may do something else with a character than show it. The marks that Arabic
// and Hebrew texts have between words (U+200E, U+200F, U+061C) change the place of nothing but their neighbours.
func commands(r rune) bool {
	switch {
	case r == '\n', r == '\t':
		return false
	case r < 0x20, r >= 0x7f && r <= 0x9f:
		return true
	case r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069: // embeddings, overrides and isolates
		return true
	default:
		return r == 0x2028 || r == 0x2029
	}
}
