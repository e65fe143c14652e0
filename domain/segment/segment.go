package segment

import (
	"bytes"
	"encoding/json"
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

// The limits of a segment. The cost is in CEL's own units, roughly one for each comparison. A unit takes at most some
// 50 ns, so a user takes at most half a millisecond. Only a segment that uses every character of every attribute comes
// near that.
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
	program, err := env.Program(ast, cel.EvalOptions(cel.OptOptimize), cel.CostLimit(maxSegmentCost))
	if err != nil {
		return nil, fmt.Errorf("can't be used: %s", oneLine(err))
	}
	return &Segment{fast: compilePredicate(ast.NativeRep().Expr()), program: program}, nil
}

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

// Match evaluates the segment for one user. failed means that it could not be evaluated; the user does not match then.
func (s *Segment) Match(user string, profile profile.View) (match, failed bool) {
	if s == nil {
		return true, false
	}
	if s.fast != nil {
		v := s.fast(user, profile)
		return v.kind == isBool && v.yes, v.kind != isBool
	}
	return s.evaluate(user, profile)
}

// evaluate uses CEL's interpreter.
func (s *Segment) evaluate(user string, profile profile.View) (match, failed bool) {
	out, _, err := s.program.Eval(&celUser{user: user, profile: profile})
	if err != nil {
		return false, true
	}
	yes, ok := out.(types.Bool)
	return bool(yes), !ok
}

// celUser gives CEL the fields of one user that the expression reads, and parses only those.
type celUser struct {
	user    string
	profile profile.View
}

// ResolveName implements CEL's activation.
func (a *celUser) ResolveName(name string) (any, bool) {
	switch name {
	case "user.id":
		return a.user, true
	case "user.locale":
		return a.profile.Locale(), true
	case "user.timezone":
		return a.profile.Timezone(), true
	case "user.attributes":
		attributes, err := attributesOf(a.profile.Attributes())
		if err != nil {
			return types.NewErrFromString(err.Error()), true
		}
		return attributes, true
	case "user.endpoints":
		return a.profile.Channels(), true
	default:
		return nil, false
	}
}

// Parent implements CEL's activation.
func (a *celUser) Parent() cel.Activation { return nil }

var errNoAttributes = errors.New("the attributes are not a JSON object")

// attributesOf decodes attributes. Whole numbers become integers, which compare with both kinds of literals.
func attributesOf(text string) (map[string]any, error) {
	if text == "" {
		return map[string]any{}, nil
	}
	dec := json.NewDecoder(bytes.NewReader([]byte(text)))
	dec.UseNumber()
	var all map[string]any
	if err := dec.Decode(&all); err != nil {
		return nil, errNoAttributes
	}
	for name, value := range all {
		all[name] = celValue(value)
	}
	return all, nil
}

func celValue(value any) any {
	switch v := value.(type) {
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		f, err := v.Float64()
		if err != nil {
			return types.NewErrFromString("a number is too large")
		}
		return f
	case []any:
		for i := range v {
			v[i] = celValue(v[i])
		}
	case map[string]any:
		for name := range v {
			v[name] = celValue(v[name])
		}
	case nil:
		return types.NullValue
	}
	return value
}
