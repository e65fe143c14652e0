package gateway

// plainFrame reads the acknowledgements and reads that clients send: one object of type, ids and receipts, each once,
// whose texts have no escapes. That is a fifth of what it costs to read any JSON strictly. false: it is not such a frame,
// or something is wrong with it; [decodeFrame] says what. b is UTF-8.
func plainFrame(b []byte) (f clientFrame, ok bool) {
	p := plainReader{text: string(b)}
	if !p.next('{') {
		return f, false
	}
	for more := true; more; more = p.next(',') {
		name, ok := p.string()
		if !ok || !p.next(':') {
			return f, false
		}
		switch {
		case name == "type" && f.Type == "":
			f.Type, ok = p.string()
			ok = ok && f.Type != ""
		case name == "ids" && f.IDs == nil:
			f.IDs, ok = p.strings()
		case name == "receipts" && f.Receipts == nil:
			f.Receipts, ok = p.strings()
		default:
			ok = false
		}
		if !ok {
			return f, false
		}
	}
	if !p.next('}') || p.more() {
		return f, false
	}
	known := f.Type == "ack" || f.Type == "read"
	return f, known && len(f.IDs) > 0 && (f.Receipts == nil || len(f.Receipts) == len(f.IDs))
}

// plainReader reads from the start of text. What it returns is a part of text.
type plainReader struct{ text string }

// more skips white space; false: nothing is left.
func (p *plainReader) more() bool {
	i := 0
	for i < len(p.text) && (p.text[i] == ' ' || p.text[i] == '\t' || p.text[i] == '\n' || p.text[i] == '\r') {
		i++
	}
	p.text = p.text[i:]
	return p.text != ""
}

func (p *plainReader) next(c byte) bool {
	if !p.more() || p.text[0] != c {
		return false
	}
	p.text = p.text[1:]
	return true
}

func (p *plainReader) string() (s string, ok bool) {
	if !p.next('"') {
		return "", false
	}
	for i := range len(p.text) {
		switch c := p.text[i]; {
		case c == '"':
			s, p.text = p.text[:i], p.text[i+1:]
			return s, true
		case c == '\\' || c < ' ':
			return "", false
		}
	}
	return "", false
}

// strings is never nil where it is ok, and not empty.
func (p *plainReader) strings() (all []string, ok bool) {
	if !p.next('[') {
		return nil, false
	}
	for more := true; more; more = p.next(',') {
		s, ok := p.string()
		if !ok {
			return nil, false
		}
		all = append(all, s)
	}
	return all, p.next(']')
}
