package segment

import (
	"fmt"
	"regexp"
	"regexp/syntax"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/overloads"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/interpreter"
)

// costs adds to CEL's units what CEL takes to cost nothing: an operation whose kinds are known only when it is computed
// (every one on an attribute) is one unit there, whatever the texts' length; and a pattern costs by its length, not by what it
// becomes: `(a?){500}` has 9 characters and 1,500 instructions.
type costs struct{ patterns map[string]*pattern }

// pattern is a regular expression that is part of a segment.
type pattern struct {
	of           *regexp.Regexp
	instructions int
}

// CallCost implements CEL's estimator; nil leaves it to CEL.
func (c costs) CallCost(function, overload string, args []ref.Val, _ ref.Val) *uint64 {
	units := uint64(1)
	switch {
	case function == overloads.Matches && len(args) == 2:
		text, _ := args[0].(types.String)
		expr, _ := args[1].(types.String)
		units += c.patterns[string(expr)].units(string(text))
	case overload == "":
		for _, arg := range args {
			if text, is := arg.(types.String); is {
				units += uint64(len(text) / bytesPerUnit)
			}
		}
	default:
		return nil
	}
	return &units
}

// stepsPerUnit: one instruction looks at one byte in some 5 ns.
const stepsPerUnit = 8

func (p *pattern) units(text string) uint64 {
	if p == nil {
		return 0
	}
	return min(uint64(len(text)*p.instructions/stepsPerUnit), maxSegmentCost+1)
}

// optimizations has CEL match with the patterns that are compiled here, and not at all where that alone would cost more than a
// user may. There is one for each way to write it: CEL's own comes after them, and would replace one without an overload.
func (c costs) optimizations() []*interpreter.RegexOptimization {
	var all []*interpreter.RegexOptimization
	for _, overload := range []string{overloads.Matches, overloads.MatchesString} {
		all = append(all, &interpreter.RegexOptimization{
			Function: overloads.Matches, OverloadID: overload, RegexIndex: 1,
			Factory: func(call interpreter.InterpretableCall, expr string) (interpreter.InterpretableCall, error) {
				p, err := compilePattern(expr)
				if err != nil {
					return nil, err
				}
				c.patterns[expr] = p
				return interpreter.NewCall(call.ID(), call.Function(), call.OverloadID(), call.Args(), func(args ...ref.Val) ref.Val {
					text, is := args[0].(types.String)
					switch {
					case !is:
						return types.MaybeNoSuchOverloadErr(args[0])
					case p.units(string(text)) > maxSegmentCost:
						return types.NewErr("a text of %d bytes is too long for the pattern", len(text))
					}
					return types.Bool(p.of.MatchString(string(text)))
				}), nil
			},
		})
	}
	return all
}

func compilePattern(expr string) (*pattern, error) {
	of, err := regexp.Compile(expr)
	if err != nil {
		return nil, fmt.Errorf("compile a pattern: %w", err)
	}
	tree, err := syntax.Parse(expr, syntax.Perl)
	if err != nil {
		return nil, fmt.Errorf("parse a pattern: %w", err)
	}
	prog, err := syntax.Compile(tree.Simplify())
	if err != nil {
		return nil, fmt.Errorf("compile a pattern: %w", err)
	}
	return &pattern{of: of, instructions: len(prog.Inst)}, nil
}

// checkPatterns refuses a pattern that is not a text of the expression: nobody can say what it costs.
func checkPatterns(e ast.Expr) error {
	var err error
	ast.PostOrderVisit(e, ast.NewExprVisitor(func(e ast.Expr) {
		if e.Kind() != ast.CallKind || e.AsCall().FunctionName() != overloads.Matches {
			return
		}
		args := e.AsCall().Args()
		if args[len(args)-1].Kind() != ast.LiteralKind {
			err = errPattern
		}
	}))
	return err
}
