package segment

import (
	"errors"
	"fmt"
	"strings"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/cost"
	"cel.dev/cel-go/common/types"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/profile"
	"github.com/klivvr/whisper/domain/record"
)

// The limits of a segment. The cost is in CEL's own units, roughly one for each comparison. What is computed may cost so
// much, and what is read of the profile for it as much again (see [subject]).
const (
	MaxSegmentBytes = 4 << 10
	maxSegmentCost  = 10_000
)

// Segment decides whether a user matches. It is a CEL expression over
//
//	user.id, user.locale, user.timezone   strings; "" if the profile does not say
//	user.attributes                       what upstream put there; a missing one is an error
//	user.endpoints                        the channels of the user's endpoints, a list of strings
//
// A user for whom the result is an error (a missing attribute, a number where a text is expected) does not match. The
// nil Segment matches everyone. A Segment is never changed once made.
type Segment struct {
	// fast evaluates comparisons and logic without an allocation. It is nil for other expressions.
	fast    predicate
	program cel.Program
}

// segmentEnv is made once: it costs milliseconds.
var segmentEnv = sync.OnceValues(func() (*cel.Env, error) {
	return cel.NewEnv(
		cel.Variable("user.id", cel.StringType),
		cel.Variable("user.locale", cel.StringType),
		cel.Variable("user.timezone", cel.StringType),
		cel.Variable("user.attributes", cel.MapType(cel.StringType, cel.DynType)),
		cel.Variable("user.endpoints", cel.ListType(cel.StringType)),
		cel.CrossTypeNumericComparisons(true),
		cel.ParserRecursionLimit(64),
		cel.ParserExpressionSizeLimit(MaxSegmentBytes),
	)
})

// Compile compiles and checks an expression, and bounds its cost for a user. The empty expression matches everyone.
func Compile(expression string) (*Segment, error) {
	if expression == "" {
		return nil, nil
	}
	if len(expression) > MaxSegmentBytes {
		return nil, fmt.Errorf("has %d bytes, at most %d are allowed", len(expression), MaxSegmentBytes)
	}
	env, err := segmentEnv()
	if err != nil {
		return nil, fmt.Errorf("the environment of segments: %w", err)
	}
	ast, issues := env.Compile(expression)
	if err := issues.Err(); err != nil {
		return nil, fmt.Errorf("does not compile: %s", oneLine(err))
	}
	if t := ast.OutputType(); !t.IsExactType(cel.BoolType) && !t.IsExactType(cel.DynType) {
		return nil, fmt.Errorf("is a %s: it must be true or false", t)
	}
	estimate, err := env.EstimateCost(ast, sizes{})
	if err != nil {
		return nil, fmt.Errorf("can't be estimated: %s", oneLine(err))
	}
	if estimate.Max > maxSegmentCost {
		return nil, fmt.Errorf("may cost %d units a user, at most %d are allowed: ask less of each attribute", estimate.Max, maxSegmentCost)
	}
	if err := checkPatterns(ast.NativeRep().Expr()); err != nil {
		return nil, err
	}
	more := costs{patterns: map[string]*pattern{}}
	program, err := env.Program(ast, cel.EvalOptions(cel.OptOptimize), cel.OptimizeRegex(more.optimizations()...), cel.CostTracking(more),
		cel.CostLimit(maxSegmentCost))
	if err != nil {
		return nil, fmt.Errorf("can't be used: %s", oneLine(err))
	}
	return &Segment{fast: compilePredicate(ast.NativeRep().Expr()), program: program}, nil
}

var errPattern = errors.New("has a pattern that is not a text: write what matches() looks for between quotes")

// oneLine is the text of the compiler's first error without the drawing of its place, which takes several lines.
func oneLine(err error) string {
	text := strings.TrimPrefix(err.Error(), "ERROR: ")
	first, _, _ := strings.Cut(text, "\n")
	return record.Cut(strings.TrimSpace(first))
}

// sizes are the largest sizes of a profile that the cost estimate assumes. A larger profile may reach the cost limit,
// which is an error.
type sizes struct{}

const (
	likelyText = 256 // bytes of an attribute
	likelyList = 32  // members of a list, or attributes of a user
)

func (sizes) EstimateCallCost(string, string, *cost.AstNode, []cost.AstNode) *cost.CallEstimate {
	return nil
}

func (sizes) EstimateSize(node cost.AstNode) *cost.SizeEstimate {
	path := node.Path()
	if len(path) == 0 {
		return nil
	}
	switch path[0] {
	case "user.id":
		return &cost.SizeEstimate{Max: domain.MaxIDBytes}
	case "user.locale", "user.timezone":
		return &cost.SizeEstimate{Max: 64}
	}
	if len(path) == 1 {
		return &cost.SizeEstimate{Max: likelyList}
	}
	return &cost.SizeEstimate{Max: likelyText}
}

// Answer is what a segment says of a user.
type Answer struct {
	// Match: the user is meant.
	Match bool
	// Failed: it could not be evaluated. The user is not meant then.
	Failed bool
	// Units is what it cost, in units of the segment's bound.
	Units int
}

// Ask evaluates the segment for one user.
func (s *Segment) Ask(user string, view profile.View) Answer {
	if s == nil {
		return Answer{Match: true}
	}
	u := newSubject(user, view)
	defer u.free()
	if s.fast == nil {
		return s.evaluate(u)
	}
	v := s.fast(u)
	yes, failed := v.kind == isBool && v.yes, v.kind != isBool || u.exhausted()
	return Answer{Match: yes && !failed, Failed: failed, Units: u.units()}
}

// Match is [Segment.Ask] without the cost.
func (s *Segment) Match(user string, view profile.View) (match, failed bool) {
	a := s.Ask(user, view)
	return a.Match, a.Failed
}

// evaluate uses CEL's interpreter.
func (s *Segment) evaluate(u *subject) Answer {
	out, details, err := s.program.Eval(u)
	a := Answer{Units: u.units()}
	if cost := details.ActualCost(); cost != nil {
		a.Units += int(*cost)
	}
	yes, is := out.(types.Bool)
	a.Failed = err != nil || !is || u.exhausted()
	a.Match = bool(yes) && !a.Failed
	return a
}
