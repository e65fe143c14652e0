package liquid

import (
	"errors"
	"fmt"
	"html"
	"strconv"
	"strings"
)

// exec renders one text once.
type exec struct {
	run       *Run
	text      *Text
	out       []byte
	captured  int // captures that are open
	from      int // where the innermost of them begins in out
	most      int
	registers []register
	problems  []string
	over      bool // nothing more can come of it
}

// register is a local variable or the state of a loop.
type register struct {
	value         value
	set           bool
	index, length int
}

// jump says how the nodes of a loop's body ended.
type jump uint8

const (
	onward jump = iota
	breaking
	continuing
)

var (
	errNoList = errors.New("is not a list")
	errSteps  = fmt.Sprintf("needs more than %d steps: a loop or a value is too long", MaxSteps)
)

func (x *exec) problem(format string, args ...any) {
	if x.over {
		return
	}
	x.problems = append(x.problems, fmt.Sprintf(format, args...))
	x.over = len(x.problems) >= maxProblems
}

// step takes n steps from the budget. It returns false if the budget is used up.
func (x *exec) step(n int) bool {
	if x.run.used += n; x.run.used > MaxSteps {
		x.problem("%s", errSteps)
		x.over = true
	}
	return !x.over
}

func (x *exec) nodes(body []node) jump {
	for _, n := range body {
		if !x.step(1) {
			return breaking
		}
		switch n := n.(type) {
		case literalNode:
			x.write(string(n))
		case *outputNode:
			x.output(n)
		case *assignNode:
			v, _ := x.chain(&n.chain)
			x.registers[n.slot] = register{value: v, set: true}
		case *captureNode:
			if j := x.capture(n); j != onward {
				return j
			}
		case *branchNode:
			if body := x.branch(n); body != nil {
				if j := x.nodes(body); j != onward {
					return j
				}
			}
		case *loopNode:
			x.loop(n)
		case jumpNode:
			if n.again {
				return continuing
			}
			return breaking
		}
		if x.over {
			return breaking
		}
	}
	return onward
}

func (x *exec) write(s string) {
	most := x.most
	if x.captured > 0 {
		most = MaxValueBytes
	}
	if len(x.out)-x.from+len(s) > most {
		x.problem("%s", tooLong(most))
		x.over = true
		return
	}
	x.out = append(x.out, s...)
}

func (x *exec) output(n *outputNode) {
	v, ok := x.chain(&n.chain)
	if !ok {
		return
	}
	s, err := v.print()
	if err != nil {
		x.problem("%s %v", quoted(n.written), err)
		return
	}
	if x.text.html && !v.safe {
		s = html.EscapeString(s)
	}
	x.write(s)
}

func (x *exec) capture(n *captureNode) jump {
	outer := x.from
	x.from = len(x.out)
	x.captured++
	j := x.nodes(n.body)
	made := textValue(string(x.out[x.from:]))
	made.safe = x.text.html
	x.out = x.out[:x.from]
	x.captured--
	x.from = outer
	x.step(len(made.text) / bytesPerStep)
	x.registers[n.slot] = register{value: made, set: true}
	return j
}

// branch is the body that is rendered, or nil.
func (x *exec) branch(n *branchNode) []node {
	var subject value
	if n.subject != nil {
		subject = x.operand(n.subject)
	}
	for i := range n.branches {
		b := &n.branches[i]
		holds := b.last
		switch {
		case holds:
		case n.subject == nil:
			holds = x.condition(&b.cond) != b.not
		default:
			for j := range b.when {
				if x.step(1) && equal(subject, x.operand(&b.when[j])) {
					holds = true
					break
				}
			}
		}
		if x.over {
			return nil
		}
		if holds {
			return b.body
		}
	}
	return nil
}

func (x *exec) condition(c *condition) bool {
	for i := range c.tests {
		if holds := x.test(&c.tests[i]); holds == c.any {
			return holds
		}
	}
	return !c.any
}

func (x *exec) test(t *test) bool {
	if !x.step(1) {
		return false
	}
	left := x.operand(&t.left)
	if t.op == "" {
		return left.truth()
	}
	right := x.operand(&t.right)
	x.step((len(left.text) + len(right.text)) / bytesPerStep)
	switch t.op {
	case "==":
		return equal(left, right)
	case "!=":
		return !equal(left, right)
	}
	for _, side := range []struct {
		o *operand
		v value
	}{{&t.left, left}, {&t.right, right}} {
		if side.v.kind == missingKind {
			x.problem("%s %v", quoted(side.o.written()), errMissing)
			return false
		}
	}
	if t.op == "contains" {
		return x.contains(t, left, right)
	}
	c, ok := compare(left, right)
	if !ok {
		x.problem("%s can't be compared with %s", quoted(t.left.written()), quoted(t.right.written()))
	}
	switch t.op {
	case "<":
		return c < 0
	case ">":
		return c > 0
	case "<=":
		return c <= 0
	default:
		return c >= 0
	}
}

func (x *exec) contains(t *test, all, one value) bool {
	if all.kind == textKind {
		s, err := one.print()
		if err != nil {
			x.problem("%s %v", quoted(t.right.written()), err)
		}
		return strings.Contains(all.text, s)
	}
	if all.kind != listKind {
		x.problem("%s is neither a text nor a list: it contains nothing", quoted(t.left.written()))
		return false
	}
	for _, item := range all.list() {
		if x.step(1) && equal(item, one) {
			return true
		}
	}
	return false
}

func (x *exec) loop(n *loopNode) {
	items, first, count, ok := x.items(n)
	if !ok {
		return
	}
	if count == 0 {
		x.nodes(n.none)
		return
	}
	outerVariable, outerLoop := x.registers[n.variable], x.registers[n.loop]
	for i := range count {
		if !x.step(1) {
			return
		}
		at := i
		if n.reversed {
			at = count - 1 - i
		}
		var v value
		if items != nil {
			v = items[at]
		} else {
			v = intValue(first + at)
		}
		x.registers[n.variable] = register{value: v, set: true}
		x.registers[n.loop] = register{index: i, length: count}
		if x.nodes(n.body) == breaking {
			break
		}
	}
	x.registers[n.variable], x.registers[n.loop] = outerVariable, outerLoop
}

// items are the values of a loop: those of a list, or the numbers from first.
func (x *exec) items(n *loopNode) (items []value, first, count int, ok bool) {
	if n.from != nil {
		last := 0
		if first, ok = x.whole(n.from); !ok {
			return nil, 0, 0, false
		}
		if last, ok = x.whole(n.to); !ok {
			return nil, 0, 0, false
		}
		count = max(0, last-first+1)
	} else {
		v := x.operand(&n.list)
		switch {
		case v.kind == missingKind && n.none != nil:
		case v.kind == missingKind:
			x.problem("%s %v", quoted(n.list.written()), errMissing)
			return nil, 0, 0, false
		case v.kind != listKind:
			x.problem("%s %v", quoted(n.list.written()), errNoList)
			return nil, 0, 0, false
		case !x.step(len(v.text) / searchedBytes):
			return nil, 0, 0, false
		}
		items = v.list()
		count = len(items)
	}
	skip, limit := 0, count
	if n.offset != nil {
		if skip, ok = x.whole(n.offset); !ok {
			return nil, 0, 0, false
		}
	}
	if n.limit != nil {
		if limit, ok = x.whole(n.limit); !ok {
			return nil, 0, 0, false
		}
	}
	skip = min(max(skip, 0), count)
	count = min(max(limit, 0), count-skip)
	if items != nil {
		items = items[skip : skip+count]
	}
	return items, first + skip, count, true
}

// whole is a number without a fraction, of a size that loops can have.
func (x *exec) whole(o *operand) (int, bool) {
	v := x.operand(o)
	if v.kind == missingKind {
		x.problem("%s %v", quoted(o.written()), errMissing)
		return 0, false
	}
	n, err := strconv.ParseInt(v.text, 10, 32)
	if err != nil || v.kind != numberKind && v.kind != textKind {
		x.problem("%s is not a whole number", quoted(o.written()))
		return 0, false
	}
	return int(n), true
}

// chain is the value of an operand after its filters. It returns false if there was a problem.
func (x *exec) chain(c *chain) (value, bool) {
	v := x.operand(&c.input)
	if len(c.calls) == 0 {
		if v.kind == missingKind && c.input.root != noRoot {
			x.problem("%s %v", quoted(c.input.written()), errMissing)
			return v, false
		}
		return v, true
	}
	for i := range c.calls {
		call := &c.calls[i]
		if !x.step(1 + len(v.text)/bytesPerStep) {
			return v, false
		}
		what := func() string {
			if i == 0 {
				return quoted(c.input.written())
			}
			return "what filter " + call.filter.name + " is given"
		}
		if v.kind == missingKind && !call.filter.optional {
			x.problem("%s %v", what(), errMissing)
			return v, false
		}
		args, ok := x.arguments(call)
		if !ok {
			return v, false
		}
		made, err := call.filter.apply(x, v, args)
		if err != nil {
			var whole describing
			if errors.As(err, &whole) {
				x.problem("filter %s: %v", call.filter.name, err)
			} else {
				x.problem("%s %v", what(), err)
			}
			return v, false
		}
		if len(made.text) > MaxValueBytes {
			x.problem("filter %s makes a value of more than %d bytes", call.filter.name, MaxValueBytes)
			x.over = true
		}
		if !x.step(len(made.text)/bytesPerStep + len(made.items)) {
			return v, false
		}
		v = made
	}
	return v, true
}

// describing is a filter's error that is a whole sentence. Other errors continue a sentence that begins with the name
// of the input.
type describing struct{ error }

func describe(format string, args ...any) error { return describing{fmt.Errorf(format, args...)} }

// arguments of a call, in their order; the named ones by name.
type arguments struct {
	all   []value
	named []namedValue
	ready any
}

type namedValue struct {
	name  string
	value value
}

// get is a named argument, or the missing value.
func (a arguments) get(name string) value {
	for _, n := range a.named {
		if n.name == name {
			return n.value
		}
	}
	return value{}
}

func (x *exec) arguments(c *call) (a arguments, ok bool) {
	a.ready = c.ready
	if len(c.args) > 0 {
		a.all = make([]value, len(c.args))
	}
	for i := range c.args {
		if a.all[i], ok = x.argument(&c.args[i]); !ok {
			return a, false
		}
	}
	if len(c.named) > 0 {
		a.named = make([]namedValue, len(c.named))
	}
	for i := range c.named {
		a.named[i].name = c.named[i].name
		if a.named[i].value, ok = x.argument(&c.named[i].value); !ok {
			return a, false
		}
	}
	return a, true
}

func (x *exec) argument(o *operand) (value, bool) {
	v := x.operand(o)
	if v.kind == missingKind {
		x.problem("%s %v", quoted(o.written()), errMissing)
		return v, false
	}
	return v, x.step(1)
}

// operand is the value of a literal, or of what a path leads to, or the missing value.
func (x *exec) operand(o *operand) value {
	steps := o.steps
	var v value
	switch o.root {
	case noRoot:
		return o.literal
	case userLocale:
		return present(x.run.Locale)
	case userTimezone:
		return present(x.run.Timezone)
	case userAttribute:
		v = object(x.run.Attributes)
	case loopRoot:
		return x.registers[o.slot].state(steps[0].literal.text)
	case localRoot:
		if r := &x.registers[o.slot]; r.set {
			v, steps = r.value, steps[1:]
			break
		}
		v = object(x.run.Variables)
	case variableRoot:
		v = object(x.run.Variables)
	}
	for i := range steps {
		index := steps[i].literal
		if steps[i].root != noRoot {
			index = x.operand(&steps[i])
		}
		cost := len(v.text) / searchedBytes
		if v.kind == textKind { // .size
			cost = countingSteps(v.text)
		}
		if !x.step(cost) {
			break
		}
		v = v.at(index)
	}
	return v
}

func present(s string) value {
	if s == "" {
		return value{}
	}
	return textValue(s)
}

// object is what a search begins in.
func object(raw string) value { return jsonValue(strings.TrimLeft(raw, blanks)) }

func (r *register) state(field string) value {
	switch field {
	case "index":
		return intValue(r.index + 1)
	case "index0":
		return intValue(r.index)
	case "rindex":
		return intValue(r.length - r.index)
	case "rindex0":
		return intValue(r.length - 1 - r.index)
	case "first":
		return boolValue(r.index == 0)
	case "last":
		return boolValue(r.index == r.length-1)
	default:
		return intValue(r.length)
	}
}
