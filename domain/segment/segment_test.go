package segment

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"cel.dev/cel-go/common/types"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/klivvr/whisper/domain/profile"
	"github.com/klivvr/whisper/domain/whisperv1"
)

func viewOf(t testing.TB, p *whisperv1.Profile) profile.View {
	t.Helper()
	b, err := proto.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	return profile.View(b)
}

func TestSegmentsMatchWhomTheySay(t *testing.T) {
	t.Parallel()
	mona := viewOf(t, &whisperv1.Profile{
		Locale: "ar-EG", Timezone: "Africa/Cairo", Attributes: []byte(`{"age":31,"country":"EG","na\"me":"x","plan":"gold","score":4.5,"tags":["vip","new"],"vip":true}`),
		Endpoints: []*whisperv1.Endpoint{{Name: "iphone", Channel: "apns", Token: "t"}},
	})
	for expression, want := range map[string]string{
		`true`: "yes", `false`: "no",
		`user.attributes.country == 'EG' && user.locale.startsWith('ar')`: "yes",
		`user.attributes.country in ['SA', 'AE']`:                         "no",
		`user.attributes.age > 30 && user.attributes.age < 31.5`:          "yes",
		`user.attributes.score >= 4.5`:                                    "yes",
		`user.attributes.vip`:                                             "yes",
		`user.attributes.country`:                                         "failed", // not true or false
		`user.attributes.missing == 1`:                                    "failed",
		`user.attributes.missing == 1 || user.attributes.vip`:             "yes",
		`user.attributes.missing == 1 && user.attributes.age < 10`:        "no",
		`has(user.attributes.missing) && user.attributes.missing == 1`:    "no",
		`user.attributes.age > 'x'`:                                       "failed",
		`user.attributes.age == 'x'`:                                      "no",
		`'vip' in user.attributes.tags`:                                   "yes",
		`'apns' in user.endpoints`:                                        "yes",
		`user.endpoints.size() == 0`:                                      "no",
		`user.id.endsWith('na') && user.timezone != 'UTC'`:                "yes",
		`user.attributes.country.matches('^E.$')`:                         "yes",
		`user.attributes['na"me'] == 'x'`:                                 "yes",
	} {
		t.Run(expression, func(t *testing.T) {
			t.Parallel()
			s, err := Compile(expression)
			if err != nil {
				t.Fatal(err)
			}
			match, failed := s.Match("mona", mona)
			if got := answer(match, failed); got != want {
				t.Errorf("it says %s, want %s", got, want)
			}
		})
	}
}

func answer(match, failed bool) string {
	switch {
	case failed:
		return "failed"
	case match:
		return "yes"
	default:
		return "no"
	}
}

func TestBadSegmentsAreRefused(t *testing.T) {
	t.Parallel()
	for expression, want := range map[string]string{
		`user.attributes.country ==`:             "does not compile",
		`user.name == 'x'`:                       "undeclared reference",
		`user.locale == 5`:                       "no matching overload",
		`user.locale`:                            "is a string: it must be true or false",
		strings.Repeat("true || ", 600) + "true": "at most 4096 are allowed",
		`user.attributes.all(a, user.attributes.all(b, user.attributes.all(c, a != b && b != c)))`: "units a user",
		`user.locale.matches(user.attributes.pattern)`:                                             "between quotes",
		`matches(user.locale, user.attributes.pattern)`:                                            "between quotes",
		`user.locale.matches('(')`:                                                                 "pattern",
		strings.Repeat("(", 200) + "true" + strings.Repeat(")", 200):                               "does not compile",
	} {
		if _, err := Compile(expression); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%.40s: %v, want %q", expression, err, want)
		}
	}
}

// TestSegmentsAgreeWithCEL: whatever the expression and the profile, the closures and what is read lazily answer as CEL
// does on attributes that were decoded as a whole.
func TestSegmentsAgreeWithCEL(t *testing.T) {
	t.Parallel()
	operand := rapid.SampledFrom([]string{
		"user.id", "user.locale", "user.timezone", "user.attributes.a", "user.attributes.b", "user.attributes.gone",
		"user.attributes.a.b", "user.attributes['b'].a", "user.attributes.b.a.a", "user.attributes.b[0]", "user.endpoints",
		"'EG'", "'a'", "''", "1", "2", "-3", "1.0", "2.5", "true", "false", "null", "[1]", "{'a': 1}",
	})
	attribute := rapid.SampledFrom([]string{
		`1`, `2`, `2.5`, `1.0`, `1e400`, `-3`, `9007199254740993`, `9223372036854775808`, `"EG"`, `"a"`, `""`, `"é\n\""`, `true`, `false`, `null`, `[1]`, `{"a":1}`,
		`[]`, `["a","EG",[1],{"a":1}]`, `[1e400,1]`, `{}`, `{"b":2,"a":{"a":"EG"}}`, `{"a":[1],"b":null}`, `[[1,[2,{"a":"a"}]],2.0]`, `{"a":{"a":{"a":1e400}}}`,
	})
	var expression func(t *rapid.T, depth int) string
	expression = func(t *rapid.T, depth int) string {
		of := rapid.IntRange(0, 10).Draw(t, "shape")
		if depth > 3 {
			of = min(of, 6)
		}
		a, b := operand.Draw(t, "a"), operand.Draw(t, "b")
		switch of {
		case 0, 1:
			return fmt.Sprintf("dyn(%s) %s dyn(%s)", a, rapid.SampledFrom([]string{"==", "!=", "<", "<=", ">", ">="}).Draw(t, "op"), b)
		case 2:
			return fmt.Sprintf("%s in %s", a, rapid.SampledFrom([]string{
				"[dyn('EG'), 1, 2.5, true]", "user.endpoints", "user.attributes.a", "user.attributes.b.a", "user.attributes.b['b']", "user.attributes",
			}).Draw(t, "list"))
		case 3:
			return fmt.Sprintf("user.attributes.a.%s(user.%s)", rapid.SampledFrom([]string{"startsWith", "endsWith", "contains"}).Draw(t, "f"),
				rapid.SampledFrom([]string{"locale", "id", "attributes.b"}).Draw(t, "of"))
		case 4:
			return rapid.SampledFrom([]string{
				"user.attributes.a", "has(user.attributes.b)", "has(user.attributes.gone)", "user.attributes.gone",
				"has(user.attributes.a.a)", "has(user.attributes.b.a.a)", "has(user.attributes.gone.a)", "user.attributes.a.a", "has(user.attributes['a'].b)",
			}).Draw(t, "bare")
		case 5:
			return fmt.Sprintf("size(user.attributes.%s) > %d", rapid.SampledFrom([]string{"a", "b", "b.a", "gone"}).Draw(t, "of"),
				rapid.IntRange(0, 2).Draw(t, "than"))
		case 6:
			return fmt.Sprintf("user.attributes%s.%s(x, %s)", rapid.SampledFrom([]string{"", ".a", ".b", ".b.a"}).Draw(t, "of"),
				rapid.SampledFrom([]string{"all", "exists", "exists_one"}).Draw(t, "macro"),
				rapid.SampledFrom([]string{
					"x == 1", "x == user.attributes.a", "x == user.attributes.b", "x.a == 1", "x in user.attributes",
					"[x] + [1] == [1, 1]", "has(x.a)",
				}).Draw(t, "holds"))
		case 7:
			return "!(" + expression(t, depth+1) + ")"
		case 8:
			return "(" + expression(t, depth+1) + ") || (" + expression(t, depth+1) + ")"
		default:
			return "(" + expression(t, depth+1) + ") && (" + expression(t, depth+1) + ")"
		}
	}
	fast, answers := 0, map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		s, err := Compile(strings.ReplaceAll(expression(t, 0), "dyn(", "("))
		if err != nil {
			return
		}
		p := &whisperv1.Profile{Locale: rapid.SampledFrom([]string{"", "ar-EG", "EG"}).Draw(t, "locale")}
		p.Attributes = []byte(fmt.Sprintf(`{"a":%s,"b":%s}`, attribute.Draw(t, "a is"), attribute.Draw(t, "b is")))
		for _, channel := range rapid.SliceOfN(rapid.SampledFrom([]string{"a", "EG"}), 0, 2).Draw(t, "endpoints") {
			p.Endpoints = append(p.Endpoints, &whisperv1.Endpoint{Name: channel, Channel: channel})
		}
		encoded, _ := proto.Marshal(p)
		view := profile.View(encoded)
		want := decodedWhole(s, "a", view)
		if got := s.evaluate(newSubject("a", view)); answer(got.Match, got.Failed) != want {
			t.Fatalf("of %s what is read lazily says %s, CEL %s", p.GetAttributes(), answer(got.Match, got.Failed), want)
		}
		answers[want]++
		if s.fast == nil {
			return
		}
		fast++
		if got := answer(s.Match("a", view)); got != want {
			t.Fatalf("of %s the closures say %s, CEL %s", p.GetAttributes(), got, want)
		}
	})
	if fast == 0 || answers["yes"] == 0 || answers["no"] == 0 || answers["failed"] == 0 {
		t.Errorf("%d were compiled to closures, the answers were %v", fast, answers)
	}
}

// decodedWhole has CEL answer on its own maps and lists of all attributes.
func decodedWhole(s *Segment, user string, view profile.View) string {
	dec := json.NewDecoder(strings.NewReader(view.Attributes()))
	dec.UseNumber()
	var attributes map[string]any
	if err := dec.Decode(&attributes); err != nil {
		return err.Error()
	}
	for name, value := range attributes {
		attributes[name] = wholeValue(value)
	}
	out, _, err := s.program.Eval(map[string]any{
		"user.id": user, "user.locale": view.Locale(), "user.timezone": view.Timezone(), "user.attributes": attributes, "user.endpoints": view.Channels(),
	})
	if err != nil {
		return answer(false, true)
	}
	yes, is := out.(types.Bool)
	return answer(bool(yes), !is)
}

func wholeValue(value any) any {
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
			v[i] = wholeValue(v[i])
		}
	case map[string]any:
		for name := range v {
			v[name] = wholeValue(v[name])
		}
	case nil:
		return types.NullValue
	}
	return value
}
