package liquid

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// operand is a literal or a path.
type operand struct {
	literal value // where root is none
	root    root
	name    string // of the variable, for complaints the whole path as it was written
	slot    int    // of a local or a loop
	steps   []operand
}

// root says where a path begins.
type root uint8

const (
	noRoot        root = iota
	variableRoot       // of the request: steps[0] is its name
	localRoot          // assign, capture, the variable of a loop; the request's of that name until it is set
	loopRoot           // forloop
	userLocale         // user.locale
	userTimezone       // user.timezone
	userAttribute      // user.attributes.…
)

// chain is an operand through filters.
type chain struct {
	input operand
	calls []call
}

// call is one filter with its arguments.
type call struct {
	filter *filter
	args   []operand
	named  []namedArgument
	ready  any // what the filter made of its literal arguments while parsing
}

type namedArgument struct {
	name  string
	value operand
}

// condition is a list of tests joined by one word.
type condition struct {
	tests []test
	any   bool // or
}

type test struct {
	left, right operand
	op          string // "": the truth of left
}

// expressions parses the expressions of one text. It knows the names that are local at this point.
type expressions struct {
	text   *Text
	scope  []local
	rest   []lexeme
	source string
}

// local is a name and the slot of its value.
type local struct {
	name string
	slot int
}

func (e *expressions) begin(source string) error {
	e.source = source
	var err error
	e.rest, err = lex(source)
	return err
}

func (e *expressions) peek() lexeme {
	if len(e.rest) == 0 {
		return lexeme{}
	}
	return e.rest[0]
}

func (e *expressions) take() lexeme {
	l := e.peek()
	if len(e.rest) > 0 {
		e.rest = e.rest[1:]
	}
	return l
}

func (e *expressions) accept(mark string) bool {
	if e.peek().is(mark) {
		e.take()
		return true
	}
	return false
}

func (e *expressions) end() error {
	if l := e.peek(); l.kind != 0 {
		return fmt.Errorf("%s is not expected there", l)
	}
	return nil
}

// chain reads operand | filter: argument, … | filter.
func (e *expressions) chain() (chain, error) {
	input, err := e.operand()
	if err != nil {
		return chain{}, err
	}
	c := chain{input: input}
	for e.accept("|") {
		one, err := e.call()
		if err != nil {
			return chain{}, err
		}
		c.calls = append(c.calls, one)
	}
	return c, e.end()
}

func (e *expressions) call() (call, error) {
	name := e.take()
	f := filters[name.text]
	switch {
	case name.kind != 'a':
		return call{}, fmt.Errorf("a filter's name is expected after |, not %s", name)
	case f == nil:
		return call{}, fmt.Errorf("unknown filter %s%s", quoted(name.text), similar(name.text, filterNames()))
	}
	c := call{filter: f}
	if e.accept(":") {
		for {
			if err := e.argument(&c, name.text); err != nil {
				return call{}, err
			}
			if !e.accept(",") {
				break
			}
		}
	}
	if n := len(c.args); n < f.least || n > f.most {
		return call{}, fmt.Errorf("filter %s takes %s, not %d", name.text, countOf(f.least, f.most), n)
	}
	if f.prepare != nil {
		ready, err := f.prepare(e.text, &c)
		if err != nil {
			return call{}, fmt.Errorf("filter %s: %w", name.text, err)
		}
		c.ready = ready
	}
	return c, nil
}

func (e *expressions) argument(c *call, filter string) error {
	if len(e.rest) > 1 && e.rest[0].kind == 'a' && e.rest[1].is(":") {
		name := e.take().text
		e.take()
		if !slices.Contains(c.filter.named, name) {
			known := "it has no named arguments"
			if len(c.filter.named) > 0 {
				known = "known are " + strings.Join(c.filter.named, ", ")
			}
			return fmt.Errorf("filter %s: unknown argument %s; %s", filter, quoted(name), known)
		}
		if slices.ContainsFunc(c.named, func(a namedArgument) bool { return a.name == name }) {
			return fmt.Errorf("filter %s: argument %s is given twice", filter, name)
		}
		v, err := e.operand()
		c.named = append(c.named, namedArgument{name, v})
		return err
	}
	if len(c.named) > 0 {
		return fmt.Errorf("filter %s: an argument without a name comes after one that has one", filter)
	}
	v, err := e.operand()
	c.args = append(c.args, v)
	return err
}

func countOf(least, most int) string {
	switch {
	case most == 0:
		return "no argument"
	case least == most && most == 1:
		return "1 argument"
	case least == most:
		return fmt.Sprintf("%d arguments", most)
	default:
		return fmt.Sprintf("%d to %d arguments", least, most)
	}
}

// operand reads a literal or a path.
func (e *expressions) operand() (operand, error) {
	l := e.take()
	switch l.kind {
	case '"':
		return operand{literal: textValue(l.text)}, nil
	case '1':
		return operand{literal: value{kind: numberKind, text: l.text}}, nil
	case 'a':
	default:
		return operand{}, fmt.Errorf("a value is expected, not %s", l)
	}
	switch l.text {
	case "true", "false":
		return operand{literal: boolValue(l.text == "true")}, nil
	case "nil", "null":
		return operand{}, nil
	case "empty":
		return operand{literal: value{kind: emptyKind}}, nil
	case "blank":
		return operand{literal: value{kind: blankKind}}, nil
	}
	return e.path(l.text)
}

// path reads name.name["name"][index].
func (e *expressions) path(name string) (operand, error) {
	o := operand{root: variableRoot, name: name}
	steps := []operand{{literal: textValue(name)}}
	for {
		switch {
		case e.accept("."):
			l := e.take()
			if l.kind != 'a' {
				return o, fmt.Errorf("a name is expected after %s., not %s", o.name, l)
			}
			o.name += "." + l.text
			steps = append(steps, operand{literal: textValue(l.text)})
			continue
		case e.accept("["):
			index, err := e.operand()
			if err != nil {
				return o, err
			}
			if !e.accept("]") {
				return o, fmt.Errorf("] is expected, not %s", e.peek())
			}
			o.name += "[" + index.written() + "]"
			steps = append(steps, index)
			continue
		}
		break
	}
	o.steps = steps
	return o, e.resolve(&o)
}

// written is an operand as it is written in the text.
func (o operand) written() string {
	if o.root != noRoot {
		return o.name
	}
	switch o.literal.kind {
	case textKind:
		return `"` + o.literal.text + `"`
	case missingKind:
		return "nil"
	case emptyKind:
		return "empty"
	case blankKind:
		return "blank"
	case boolKind, numberKind, listKind, objectKind:
		return o.literal.text
	}
	return o.literal.text
}

// resolve finds out what a path refers to.
func (e *expressions) resolve(o *operand) error {
	name := o.steps[0].literal.text
	for i := len(e.scope) - 1; i >= 0; i-- {
		if e.scope[i].name != name {
			continue
		}
		o.root, o.slot = localRoot, e.scope[i].slot
		if name == loopName {
			o.root = loopRoot
			return checkLoop(o)
		}
		return nil
	}
	switch name {
	case loopName:
		return errors.New("forloop is only known inside of {% for %}")
	case "user":
		return e.user(o)
	}
	return nil
}

var errUser = "%s is not known: of the user there are user.locale, user.timezone and user.attributes.NAME"

func (e *expressions) user(o *operand) error {
	part := ""
	if len(o.steps) > 1 && o.steps[1].root == noRoot && o.steps[1].literal.kind == textKind {
		part = o.steps[1].literal.text
	}
	switch {
	case part == "locale" && len(o.steps) == 2:
		o.root, o.steps = userLocale, nil
	case part == "timezone" && len(o.steps) == 2:
		o.root, o.steps = userTimezone, nil
	case part == "attributes" && len(o.steps) > 2:
		o.root, o.steps = userAttribute, o.steps[2:]
	default:
		return fmt.Errorf(errUser, quoted(o.name))
	}
	e.text.perUser = true
	return nil
}

const loopName = "forloop"

var loopFields = []string{"index", "index0", "rindex", "rindex0", "first", "last", "length"}

func checkLoop(o *operand) error {
	if len(o.steps) != 2 || o.steps[1].root != noRoot || !slices.Contains(loopFields, o.steps[1].literal.text) {
		return fmt.Errorf("%s is not known: of forloop there are %s", quoted(o.name), strings.Join(loopFields, ", "))
	}
	o.steps = o.steps[1:]
	return nil
}

// condition reads tests joined by and, or by or.
func (e *expressions) condition() (condition, error) {
	var c condition
	for word := ""; ; {
		t, err := e.test()
		if err != nil {
			return c, err
		}
		c.tests = append(c.tests, t)
		l := e.peek()
		if !l.word("and") && !l.word("or") {
			break
		}
		if word != "" && word != l.text {
			// Liquids do not agree on which binds first, and there are no brackets to say.
			return c, errors.New("and and or stand in one condition: nest two {% if %} instead")
		}
		word = e.take().text
		c.any = word == "or"
	}
	return c, e.end()
}

var comparisons = []string{"==", "!=", "<>", "<", ">", "<=", ">="}

func (e *expressions) test() (test, error) {
	left, err := e.operand()
	if err != nil {
		return test{}, err
	}
	t := test{left: left}
	switch l := e.peek(); {
	case l.is("="):
		return t, errors.New("= does not compare: use ==")
	case l.is("|"):
		return t, errors.New("filters do not stand in a condition: use {% assign %} before it")
	case l.word("contains") || slices.ContainsFunc(comparisons, l.is):
		t.op = e.take().text
		if t.op == "<>" {
			t.op = "!="
		}
	default:
		return t, nil
	}
	t.right, err = e.operand()
	return t, err
}

// similar suggests what was meant: a name that begins alike, or differs in at most two letters.
func similar(name string, known []string) string {
	if len(name) > 2 && len(name) < 32 {
		for _, k := range known {
			if strings.HasPrefix(k, name) || strings.HasPrefix(name, k) || distance(strings.ToLower(name), k) <= 2 {
				return "; is " + k + " meant?"
			}
		}
	}
	return "; known are " + strings.Join(known, ", ")
}

// distance is the number of letters to change, insert or remove to turn a into b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
