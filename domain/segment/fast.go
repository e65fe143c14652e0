package segment

import (
	"math"
	"strings"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"

	"github.com/klivvr/whisper/domain/record"
)

// Most segments are a few comparisons joined by && and ||. They are compiled to closures that read the encoded profile
// in place. CEL still parses and checks the expression, and a test holds both to the same answers, errors included.

// predicate is one node of an expression.
type predicate func(u *subject) value

// value is the result of a node. The zero value is an error: && and || of CEL ignore an error if the other side
// decides.
type value struct {
	kind valueKind
	yes  bool
	text string
	num  float64
	int  int64
}

type valueKind uint8

const (
	isError valueKind = iota
	isBool
	isText
	isInt
	isDouble
	isNull
	isOther // a list or an object, which nothing here compares
)

func boolean(yes bool) value { return value{kind: isBool, yes: yes} }

// compilePredicate returns nil if a part of the expression has no closure here.
func compilePredicate(e ast.Expr) predicate {
	switch e.Kind() { //nolint:exhaustive // everything else is CEL's own
	case ast.LiteralKind:
		v, ok := literal(e)
		if !ok {
			return nil
		}
		return func(*subject) value { return v }
	case ast.IdentKind:
		return field(e.AsIdent())
	case ast.SelectKind:
		return attribute(e)
	case ast.CallKind:
		if e.AsCall().FunctionName() == operators.Index {
			return attribute(e)
		}
		return call(e.AsCall())
	default:
		return nil
	}
}

func literal(e ast.Expr) (value, bool) {
	switch v := e.AsLiteral().(type) {
	case types.String:
		return value{kind: isText, text: string(v)}, true
	case types.Bool:
		return boolean(bool(v)), true
	case types.Int:
		return value{kind: isInt, int: int64(v)}, true
	case types.Double:
		return value{kind: isDouble, num: float64(v)}, true
	case types.Null:
		return value{kind: isNull}, true
	default:
		return value{}, false
	}
}

func field(name string) predicate {
	switch name {
	case "user.id":
		return func(u *subject) value { return value{kind: isText, text: u.user} }
	case "user.locale":
		return func(u *subject) value { return value{kind: isText, text: u.profile.Locale()} }
	case "user.timezone":
		return func(u *subject) value { return value{kind: isText, text: u.profile.Timezone()} }
	default:
		return nil
	}
}

// attribute is user.attributes.NAME, as deep as it goes, or has() of it.
func attribute(e ast.Expr) predicate {
	names, ok := path(e)
	if !ok {
		return nil
	}
	if e.Kind() == ast.SelectKind && e.AsSelect().IsTestOnly() {
		return func(u *subject) value { return u.has(names) }
	}
	return func(u *subject) value {
		if m := u.find(names); m != nil {
			return u.valueOf(m.raw)
		}
		return value{}
	}
}

// path is the names that lead to an attribute: of user.attributes.a['b'].c these are a, b and c.
func path(e ast.Expr) (names []string, ok bool) {
	var inner ast.Expr
	var name string
	switch e.Kind() { //nolint:exhaustive // nothing else leads to an attribute
	case ast.SelectKind:
		inner, name = e.AsSelect().Operand(), e.AsSelect().FieldName()
	case ast.CallKind:
		args := e.AsCall().Args()
		if e.AsCall().FunctionName() != operators.Index || args[1].Kind() != ast.LiteralKind {
			return nil, false
		}
		text, is := args[1].AsLiteral().(types.String)
		if !is {
			return nil, false
		}
		inner, name = args[0], string(text)
	default:
		return nil, false
	}
	if inner.Kind() == ast.IdentKind && inner.AsIdent() == "user.attributes" {
		return []string{name}, true
	}
	if names, ok = path(inner); !ok {
		return nil, false
	}
	return append(names, name), true
}

// find is the member that the names lead to, or nil.
func (u *subject) find(names []string) *member {
	o := u.attributes()
	for i, name := range names {
		m := o.member(name)
		if m == nil || i == len(names)-1 {
			return m
		}
		if o = m.object(u); o == nil {
			return nil
		}
	}
	return nil
}

// has answers as CEL does: what leads to the last name must be there, and must not be a list.
func (u *subject) has(names []string) value {
	o, last := u.attributes(), len(names)-1
	if last > 0 {
		m := u.find(names[:last])
		if m == nil || m.raw[0] == '[' || u.valueOf(m.raw).kind == isError {
			return value{}
		}
		if o = m.object(u); o == nil {
			return boolean(false)
		}
	}
	there := o.member(names[last]) != nil
	if !there && u.exhausted() {
		return value{}
	}
	return boolean(there)
}

func call(e ast.CallExpr) predicate {
	args := e.Args()
	switch name := e.FunctionName(); name {
	case operators.LogicalAnd, operators.LogicalOr:
		return logic(args, name == operators.LogicalOr)
	case operators.LogicalNot:
		inner := compilePredicate(args[0])
		if inner == nil {
			return nil
		}
		return func(u *subject) value {
			v := inner(u)
			if v.kind != isBool {
				return value{}
			}
			return boolean(!v.yes)
		}
	case operators.Equals, operators.NotEquals:
		return equality(args, name == operators.NotEquals)
	case operators.Less, operators.LessEquals, operators.Greater, operators.GreaterEquals:
		return ordering(args, name)
	case operators.In:
		return membership(args)
	case "startsWith", "endsWith", "contains":
		if e.IsMemberFunction() && len(args) == 1 {
			return textual(e.Target(), args[0], name)
		}
	}
	return nil
}

// logic is && and ||: the side that decides does, whatever the other side is.
func logic(args []ast.Expr, decides bool) predicate {
	all := make([]predicate, len(args))
	for i, arg := range args {
		if all[i] = compilePredicate(arg); all[i] == nil {
			return nil
		}
	}
	return func(u *subject) value {
		result := boolean(!decides)
		for _, one := range all {
			switch v := one(u); {
			case v.kind != isBool:
				result = value{}
			case v.yes == decides:
				return v
			}
		}
		return result
	}
}

func operands(a, b ast.Expr) (left, right predicate) {
	left, right = compilePredicate(a), compilePredicate(b)
	if left == nil || right == nil {
		return nil, nil
	}
	return left, right
}

func equality(args []ast.Expr, not bool) predicate {
	left, right := operands(args[0], args[1])
	if left == nil || isAttribute(args[0]) && isAttribute(args[1]) {
		return nil // both may be lists, which are compared deeply
	}
	return func(u *subject) value {
		a, b := left(u), right(u)
		if a.kind == isError || b.kind == isError {
			return value{}
		}
		return boolean(a.equals(b) != not)
	}
}

// equals: values of different kinds differ, but numbers are numbers.
func (v value) equals(o value) bool {
	switch {
	case v.kind == isInt && o.kind == isDouble || v.kind == isDouble && o.kind == isInt:
		order, comparable := v.compareNumbers(o)
		return comparable && order == 0
	case v.kind != o.kind:
		return false
	case v.kind == isText:
		return v.text == o.text
	case v.kind == isInt:
		return v.int == o.int
	case v.kind == isDouble:
		return v.num == o.num
	default:
		return v.yes == o.yes
	}
}

func (v value) compareNumbers(o value) (order int, comparable bool) {
	switch {
	case v.kind == isInt && o.kind == isInt:
		return compare(v.int, o.int), true
	case v.kind == isInt:
		order, ok := o.compareNumbers(v)
		return -order, ok
	case math.IsNaN(v.num):
		return 0, false
	case o.kind == isDouble:
		return compare(v.num, o.num), !math.IsNaN(o.num)
	case v.num < math.MinInt64:
		return -1, true
	case v.num >= math.MaxInt64:
		return 1, true
	default:
		whole := int64(v.num) // towards zero
		if c := compare(whole, o.int); c != 0 {
			return c, true
		}
		return compare(v.num, math.Trunc(v.num)), true
	}
}

func compare[T int64 | float64](a, b T) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	default:
		return 0
	}
}

func ordering(args []ast.Expr, name string) predicate {
	left, right := operands(args[0], args[1])
	if left == nil {
		return nil
	}
	holds := map[string]func(int) bool{
		operators.Less:          func(c int) bool { return c < 0 },
		operators.LessEquals:    func(c int) bool { return c <= 0 },
		operators.Greater:       func(c int) bool { return c > 0 },
		operators.GreaterEquals: func(c int) bool { return c >= 0 },
	}[name]
	return func(u *subject) value {
		a, b := left(u), right(u)
		numbers := (a.kind == isInt || a.kind == isDouble) && (b.kind == isInt || b.kind == isDouble)
		switch {
		case numbers:
			c, ok := a.compareNumbers(b)
			return boolean(ok && holds(c))
		case a.kind == isText && b.kind == isText:
			return boolean(holds(strings.Compare(a.text, b.text)))
		case a.kind == isBool && b.kind == isBool:
			c := 0
			if a.yes != b.yes {
				c = 1
				if b.yes {
					c = -1
				}
			}
			return boolean(holds(c))
		default:
			return value{}
		}
	}
}

// isAttribute reports whether e may be a list or an object.
func isAttribute(e ast.Expr) bool {
	_, is := path(e)
	return is
}

// membership is `x in [literals]`, `x in user.endpoints` or, where x is no list itself, `x in user.attributes.NAME`.
func membership(args []ast.Expr) predicate {
	one := compilePredicate(args[0])
	if one == nil {
		return nil
	}
	switch e := args[1]; e.Kind() { //nolint:exhaustive // everything else is CEL's own
	case ast.ListKind:
		return amongLiterals(one, e.AsList().Elements())
	case ast.IdentKind:
		if e.AsIdent() == "user.endpoints" {
			return amongEndpoints(one)
		}
	case ast.SelectKind, ast.CallKind:
		if names, is := path(e); is && !isAttribute(args[0]) && (e.Kind() != ast.SelectKind || !e.AsSelect().IsTestOnly()) {
			return amongItems(one, names)
		}
	}
	return nil
}

func amongLiterals(one predicate, items []ast.Expr) predicate {
	var list []value
	for _, item := range items {
		if item.Kind() != ast.LiteralKind {
			return nil
		}
		v, ok := literal(item)
		if !ok {
			return nil
		}
		list = append(list, v)
	}
	return func(u *subject) value {
		v := one(u)
		if v.kind == isError {
			return value{}
		}
		for i := range list {
			if v.equals(list[i]) {
				return boolean(true)
			}
		}
		return boolean(false)
	}
}

func amongEndpoints(one predicate) predicate {
	return func(u *subject) value {
		v := one(u)
		if v.kind == isError {
			return value{}
		}
		return boolean(v.kind == isText && u.profile.HasChannel(v.text))
	}
}

// amongItems: the items of a list, or the names of an object.
func amongItems(one predicate, names []string) predicate {
	return func(u *subject) value {
		v, m := one(u), u.find(names)
		if v.kind == isError || m == nil {
			return value{}
		}
		if o := m.object(u); o != nil {
			return boolean(v.kind == isText && o.member(v.text) != nil)
		}
		if m.raw[0] != '[' {
			return value{}
		}
		c := record.NewCursor(m.raw)
		for raw, ok := c.Item(); ok && !u.exhausted(); raw, ok = c.Item() {
			u.read += len(raw)
			if u.valueOf(raw).equals(v) {
				return boolean(true)
			}
		}
		return boolean(false)
	}
}

func textual(target, arg ast.Expr, name string) predicate {
	left, right := operands(target, arg)
	if left == nil {
		return nil
	}
	holds := map[string]func(string, string) bool{
		"startsWith": strings.HasPrefix, "endsWith": strings.HasSuffix, "contains": strings.Contains,
	}[name]
	return func(u *subject) value {
		a, b := left(u), right(u)
		if a.kind != isText || b.kind != isText {
			return value{}
		}
		u.touch(len(a.text))
		return boolean(holds(a.text, b.text))
	}
}
