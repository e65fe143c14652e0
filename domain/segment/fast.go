package segment

import (
	"math"
	"strconv"
	"strings"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"

	"github.com/klivvr/whisper/domain/profile"
	"github.com/klivvr/whisper/domain/record"
)

// Most segments are a few comparisons joined by && and ||. They are compiled to closures that read the encoded profile
// in place. CEL still parses and checks the expression, and a test holds both to the same answers, errors included.

// predicate is one node of an expression.
type predicate func(user string, profile profile.View) value

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
		return func(string, profile.View) value { return v }
	case ast.IdentKind:
		return field(e.AsIdent())
	case ast.SelectKind:
		return attribute(e.AsSelect())
	case ast.CallKind:
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
		return func(user string, _ profile.View) value { return value{kind: isText, text: user} }
	case "user.locale":
		return func(_ string, profile profile.View) value { return value{kind: isText, text: profile.Locale()} }
	case "user.timezone":
		return func(_ string, profile profile.View) value { return value{kind: isText, text: profile.Timezone()} }
	default:
		return nil
	}
}

// attribute is user.attributes.NAME, or has(user.attributes.NAME).
func attribute(e ast.SelectExpr) predicate {
	if e.Operand().Kind() != ast.IdentKind || e.Operand().AsIdent() != "user.attributes" {
		return nil
	}
	name := e.FieldName()
	if e.IsTestOnly() {
		return func(_ string, profile profile.View) value {
			return boolean(attributeText(profile.Attributes(), name) != "")
		}
	}
	return func(_ string, profile profile.View) value {
		return valueOf(attributeText(profile.Attributes(), name))
	}
}

// attributeText is the JSON text of a member, or "". Merged attributes have no blanks. Upstream can't write a member
// twice; CEL would take the last one.
func attributeText(object, name string) string {
	if len(object) < 2 || object[0] != '{' {
		return ""
	}
	c := record.NewCursor(object)
	for key, raw, ok := c.Member(); ok; key, raw, ok = c.Member() {
		if len(key) == len(name)+2 && key[1:len(key)-1] == name {
			return raw
		}
		if strings.IndexByte(key, '\\') >= 0 {
			if k, err := record.Text(key); err == nil && k == name {
				return raw
			}
		}
	}
	return ""
}

func valueOf(raw string) value {
	if raw == "" {
		return value{}
	}
	switch raw[0] {
	case '"':
		text, err := record.Text(raw)
		if err != nil {
			return value{}
		}
		return value{kind: isText, text: text}
	case 't':
		return boolean(true)
	case 'f':
		return boolean(false)
	case 'n':
		return value{kind: isNull}
	case '{', '[':
		return value{kind: isOther}
	default:
		if n, err := strconv.ParseInt(raw, 10, 64); err == nil {
			return value{kind: isInt, int: n}
		}
		f, err := strconv.ParseFloat(raw, 64)
		if err != nil {
			return value{}
		}
		return value{kind: isDouble, num: f}
	}
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
		return func(user string, profile profile.View) value {
			v := inner(user, profile)
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
	return func(user string, profile profile.View) value {
		result := boolean(!decides)
		for _, one := range all {
			switch v := one(user, profile); {
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
	if left == nil || args[0].Kind() == ast.SelectKind && args[1].Kind() == ast.SelectKind {
		return nil // two attributes may be lists, which are compared deeply
	}
	return func(user string, profile profile.View) value {
		a, b := left(user, profile), right(user, profile)
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
	return func(user string, profile profile.View) value {
		a, b := left(user, profile), right(user, profile)
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

// membership is `x in [literals]`.
func membership(args []ast.Expr) predicate {
	one := compilePredicate(args[0])
	if one == nil || args[1].Kind() != ast.ListKind {
		return nil
	}
	var list []value
	for _, item := range args[1].AsList().Elements() {
		if item.Kind() != ast.LiteralKind {
			return nil
		}
		v, ok := literal(item)
		if !ok {
			return nil
		}
		list = append(list, v)
	}
	return func(user string, profile profile.View) value {
		v := one(user, profile)
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

func textual(target, arg ast.Expr, name string) predicate {
	left, right := operands(target, arg)
	if left == nil {
		return nil
	}
	holds := map[string]func(string, string) bool{
		"startsWith": strings.HasPrefix, "endsWith": strings.HasSuffix, "contains": strings.Contains,
	}[name]
	return func(user string, profile profile.View) value {
		a, b := left(user, profile), right(user, profile)
		if a.kind != isText || b.kind != isText {
			return value{}
		}
		return boolean(holds(a.text, b.text))
	}
}
