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

// The limits of a segment. Cost is in CEL's own units, roughly a comparison each; what is measured is at worst some
// 50 ns a unit, so a user can't cost more than half a millisecond, and only a segment that does something
// with every character of every attribute comes near.
const (
	MaxSegmentBytes = 4 << 10
	maxSegmentCost  = 10_000
)

// Segment says who of the users is meant: a CEL expression over
//
//	user.id, user.locale, user.timezone   strings; "" where the profile does not say
//	user.attributes                       what upstream put there; one that is missing is an error
//	user.endpoints                        the channels of the user's endpoints, a list of strings
//
// A user about whom it can't be answered (a missing attribute, a number where a text is asked for) is not meant.
// The nil Segment means everyone. It is never changed once made.
type Segment struct {
	// fast answers expressions of comparisons and logic without an allocation; nil where there is more to it.
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

// CompileSegment compiles and checks an expression, and bounds what it may cost a user; the empty one is everyone.
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

// oneLine keeps what the compiler says of the first error; its drawings of the place take several lines.
func oneLine(err error) string {
	text := strings.TrimPrefix(err.Error(), "ERROR: ")
	first, _, _ := strings.Cut(text, "\n")
	return record.Cut(strings.TrimSpace(first))
}

// sizes are what the estimate takes a profile to be at most; what is larger runs into the cost limit and is an error
// then.
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

// Match asks about one user; failed: it can't be answered, and the user is not meant.
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

// evaluate asks CEL itself.
func (s *Segment) evaluate(user string, profile profile.View) (match, failed bool) {
	out, _, err := s.program.Eval(&celUser{user: user, profile: profile})
	if err != nil {
		return false, true
	}
	yes, ok := out.(types.Bool)
	return bool(yes), !ok
}

// celUser gives CEL what it asks of one user, and parses only that.
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

// attributesOf gives whole numbers as such: they compare with both kinds of literals.
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
