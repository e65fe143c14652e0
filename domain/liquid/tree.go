package liquid

import (
	"errors"
	"fmt"
	"strings"
)

// node is a part of a text. The set is closed: the types below.
type node interface{ node() }

type (
	literalNode string
	// outputNode is {{ … }}.
	outputNode struct {
		chain
		written string
	}
	// branchNode is if, unless and case: the first branch whose condition holds.
	branchNode struct {
		branches []branch
		subject  *operand // of case
	}
	// loopNode is for.
	loopNode struct {
		list           operand
		from, to       *operand // of (from..to), instead of list
		limit, offset  *operand
		reversed       bool
		variable, loop int // slots
		body, none     []node
	}
	assignNode struct {
		chain
		slot int
	}
	captureNode struct {
		body []node
		slot int
	}
	// jumpNode is break and continue.
	jumpNode struct{ again bool }
)

func (literalNode) node()  {}
func (*outputNode) node()  {}
func (*branchNode) node()  {}
func (*loopNode) node()    {}
func (*assignNode) node()  {}
func (*captureNode) node() {}
func (jumpNode) node()     {}

type branch struct {
	cond condition
	when []operand // of case: any of them
	not  bool      // unless
	last bool      // else
	body []node
}

// parser builds the tree of one text.
type parser struct {
	expressions
	tokens []token
	depth  int
	loops  int
}

// nodes parses up to a tag that is one of ends, and returns that tag. "" is the end of the text.
func (p *parser) nodes(ends ...string) (body []node, end token, err error) {
	if p.depth++; p.depth > MaxDepth {
		return nil, token{}, fmt.Errorf("blocks are nested deeper than %d levels", MaxDepth)
	}
	defer func() { p.depth-- }()
	for len(p.tokens) > 0 {
		t := p.tokens[0]
		p.tokens = p.tokens[1:]
		switch t.kind {
		case literalToken:
			body = append(body, literalNode(t.text))
		case outputToken:
			n, err := p.output(t)
			if err != nil {
				return nil, t, err
			}
			body = append(body, n)
		case tagToken:
			name, args := tagName(t.text)
			for _, e := range ends {
				if e == name {
					if strings.HasPrefix(name, "end") && args != "" || name == "else" && args != "" {
						return nil, t, fmt.Errorf("%s: %s stands alone", quoted(t.whole), name)
					}
					t.text = args
					t.whole = name
					return body, t, nil
				}
			}
			n, err := p.tag(t, name, args)
			if err != nil {
				return nil, t, err
			}
			body = append(body, n)
		}
	}
	if len(ends) > 0 {
		return nil, token{}, noEnd(ends[len(ends)-1])
	}
	return body, token{}, nil
}

func tagName(s string) (name, args string) {
	n := 0
	for n < len(s) && (nameStart(s[n]) || isDigit(s[n])) {
		n++
	}
	return s[:n], strings.Trim(s[n:], blanks)
}

func (p *parser) output(t token) (node, error) {
	err := p.begin(t.text)
	if err == nil && len(p.rest) == 0 {
		err = errors.New("there is nothing in it")
	}
	n := &outputNode{written: t.text}
	if err == nil {
		n.chain, err = p.chain()
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", quoted(t.whole), err)
	}
	return n, nil
}

// tagNames are those that exist, for complaints.
var tagNames = []string{"if", "unless", "case", "for", "assign", "capture", "comment", "raw", "break", "continue"}

func (p *parser) tag(t token, name, args string) (n node, err error) {
	if err := p.begin(args); err != nil {
		return nil, fmt.Errorf("%s: %w", quoted(t.whole), err)
	}
	switch name {
	case "if", "unless":
		n, err = p.branches(name)
	case "case":
		n, err = p.choice()
	case "for":
		n, err = p.loop()
	case "assign":
		n, err = p.assign()
	case "capture":
		return p.capture(t)
	case "break", "continue":
		if err = p.end(); err == nil && p.loops == 0 {
			err = fmt.Errorf("%s is only known inside of {%% for %%}", name)
		}
		n = jumpNode{again: name == "continue"}
	case "else", "elsif", "when":
		err = fmt.Errorf("%s is not inside of what it belongs to, or comes after else", name)
	case "":
		err = errors.New("a tag's name is expected")
	default:
		if strings.HasPrefix(name, "end") {
			return nil, fmt.Errorf("%s: there is no {%% %s %%} that it could end", quoted(t.whole), strings.TrimPrefix(name, "end"))
		}
		err = fmt.Errorf("unknown tag %s; known are %s", quoted(name), strings.Join(tagNames, ", "))
	}
	if err != nil && !isPlaced(err) {
		return nil, placed{fmt.Errorf("%s: %w", quoted(t.whole), err)}
	}
	return n, err
}

// placed is an error that already names its tag, the innermost one.
type placed struct{ error }

func (p placed) Unwrap() error { return p.error }

func isPlaced(err error) bool {
	var p placed
	return errors.As(err, &p)
}

// noEnd is the missing end tag of a block. The error also names the block's own tag.
type noEnd string

func (n noEnd) Error() string { return "{% " + string(n) + " %} is missing" }

// inside parses the body of a block. Problems in it name their own place.
func (p *parser) inside(ends ...string) ([]node, token, error) {
	body, end, err := p.nodes(ends...)
	var open noEnd
	if err != nil && !isPlaced(err) && !errors.As(err, &open) {
		err = placed{err}
	}
	return body, end, err
}

func (p *parser) branches(name string) (node, error) {
	n := &branchNode{}
	b := branch{not: name == "unless"}
	for {
		var err error
		if !b.last {
			if b.cond, err = p.condition(); err != nil {
				return nil, err
			}
		}
		ends := []string{"elsif", "else", "end" + name}
		if b.last {
			ends = ends[2:]
		}
		var end token
		if b.body, end, err = p.inside(ends...); err != nil {
			return nil, err
		}
		n.branches = append(n.branches, b)
		if end.whole == "end"+name {
			return n, nil
		}
		b = branch{last: end.whole == "else"}
		if err := p.begin(end.text); err != nil {
			return nil, err
		}
	}
}

func (p *parser) choice() (node, error) {
	subject, err := p.operand()
	if err == nil {
		err = p.end()
	}
	if err != nil {
		return nil, err
	}
	n := &branchNode{subject: &subject}
	before, end, err := p.inside("when", "else", "endcase")
	for _, b := range before {
		if l, ok := b.(literalNode); !ok || strings.Trim(string(l), blanks) != "" {
			return nil, errors.New("there is something between case and its first when")
		}
	}
	for err == nil && end.whole != "endcase" {
		b := branch{last: end.whole == "else"}
		if !b.last {
			if b.when, err = p.choices(end.text); err != nil {
				return nil, err
			}
		}
		ends := []string{"when", "else", "endcase"}
		if b.last {
			ends = ends[2:]
		}
		if b.body, end, err = p.inside(ends...); err == nil {
			n.branches = append(n.branches, b)
		}
	}
	return n, err
}

func (p *parser) choices(source string) ([]operand, error) {
	if err := p.begin(source); err != nil {
		return nil, err
	}
	var all []operand
	for {
		o, err := p.operand()
		if err != nil {
			return nil, fmt.Errorf("when: %w", err)
		}
		all = append(all, o)
		if p.peek().word("or") {
			p.take()
		} else if !p.accept(",") {
			return all, p.end()
		}
	}
}

func (p *parser) loop() (node, error) {
	n := &loopNode{}
	name, in := p.take(), p.take()
	if name.kind != 'a' || !in.word("in") {
		return nil, errors.New("{% for NAME in LIST %} is expected")
	}
	if err := p.loopList(n); err != nil {
		return nil, err
	}
	if err := p.loopModifiers(n); err != nil {
		return nil, err
	}
	if err := freeName(name.text); err != nil {
		return nil, err
	}
	n.variable, n.loop = p.text.slot(), p.text.slot()
	scope := len(p.scope)
	p.scope = append(p.scope, local{name.text, n.variable}, local{loopName, n.loop})
	p.loops++
	body, end, err := p.inside("else", "endfor")
	p.loops--
	p.scope = append(p.scope[:scope:scope], p.scope[scope+2:]...)
	if err != nil {
		return nil, err
	}
	n.body = body
	if end.whole == "else" {
		n.none, _, err = p.inside("endfor")
		n.none = append([]node{}, n.none...) // there is one, if empty
	}
	return n, err
}

func (p *parser) loopList(n *loopNode) (err error) {
	if !p.accept("(") {
		n.list, err = p.operand()
		return err
	}
	from, err := p.operand()
	if err != nil {
		return err
	}
	if !p.accept("..") {
		return errors.New("a range is written (1..5)")
	}
	to, err := p.operand()
	if err == nil && !p.accept(")") {
		err = errors.New("a range is written (1..5)")
	}
	n.from, n.to = &from, &to
	return err
}

func (p *parser) loopModifiers(n *loopNode) error {
	for p.peek().kind != 0 {
		word := p.take()
		var place **operand
		switch {
		case word.word("reversed"):
			n.reversed = true
			continue
		case word.word("limit"):
			place = &n.limit
		case word.word("offset"):
			place = &n.offset
		default:
			return fmt.Errorf("%s is not known there: limit: N, offset: N and reversed are", word)
		}
		if !p.accept(":") {
			return fmt.Errorf("%s is written %s: N", word, word)
		}
		o, err := p.operand()
		if err != nil {
			return err
		}
		*place = &o
	}
	return nil
}

func (p *parser) assign() (node, error) {
	name := p.take()
	if name.kind != 'a' || !p.accept("=") {
		return nil, errors.New("{% assign NAME = VALUE %} is expected")
	}
	c, err := p.chain()
	if err != nil {
		return nil, err
	}
	slot, err := p.local(name.text)
	return &assignNode{chain: c, slot: slot}, err
}

func (p *parser) capture(t token) (node, error) {
	name := p.take()
	err := p.end()
	if name.kind != 'a' || err != nil {
		return nil, fmt.Errorf("%s: {%% capture NAME %%} is expected", quoted(t.whole))
	}
	body, _, err := p.inside("endcapture")
	if err != nil {
		return nil, err
	}
	slot, err := p.local(name.text)
	return &captureNode{body: body, slot: slot}, err
}

// local is the slot of a name that is assigned. From here to the end of the text, it does not refer to the request.
func (p *parser) local(name string) (int, error) {
	if err := freeName(name); err != nil {
		return 0, err
	}
	for i := len(p.scope) - 1; i >= 0; i-- {
		if p.scope[i].name == name {
			return p.scope[i].slot, nil
		}
	}
	slot := p.text.slot()
	p.scope = append(p.scope, local{name, slot})
	return slot, nil
}

func freeName(name string) error {
	switch name {
	case "user", loopName, "true", "false", "nil", "null", "empty", "blank":
		return fmt.Errorf("%s has a meaning of its own: choose another name", name)
	}
	return nil
}
