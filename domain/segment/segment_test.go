package segment

import (
	"fmt"
	"strings"
	"testing"

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

func TestSegmentsMeanWhoTheySay(t *testing.T) {
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
		strings.Repeat("(", 200) + "true" + strings.Repeat(")", 200):                               "does not compile",
	} {
		if _, err := Compile(expression); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%.40s: %v, want %q", expression, err, want)
		}
	}
}

// TestFastSegmentsAgreeWithCEL: whatever the expression and the profile, the closures answer as CEL does.
func TestFastSegmentsAgreeWithCEL(t *testing.T) {
	t.Parallel()
	operand := rapid.SampledFrom([]string{
		"user.id", "user.locale", "user.timezone", "user.attributes.a", "user.attributes.b", "user.attributes.gone",
		"'EG'", "'a'", "''", "1", "2", "-3", "1.0", "2.5", "true", "false", "null",
	})
	attribute := rapid.SampledFrom([]string{
		`1`, `2`, `2.5`, `1.0`, `1e400`, `-3`, `9007199254740993`, `9223372036854775808`, `"EG"`, `"a"`, `""`, `"é\n\""`, `true`, `false`, `null`, `[1]`, `{"a":1}`,
	})
	var expression func(t *rapid.T, depth int) string
	expression = func(t *rapid.T, depth int) string {
		of := rapid.IntRange(0, 8).Draw(t, "shape")
		if depth > 3 {
			of = min(of, 4)
		}
		a, b := operand.Draw(t, "a"), operand.Draw(t, "b")
		switch of {
		case 0, 1:
			return fmt.Sprintf("dyn(%s) %s dyn(%s)", a, rapid.SampledFrom([]string{"==", "!=", "<", "<=", ">", ">="}).Draw(t, "op"), b)
		case 2:
			return fmt.Sprintf("%s in [dyn('EG'), 1, 2.5, true]", a)
		case 3:
			return fmt.Sprintf("user.attributes.a.%s(user.%s)", rapid.SampledFrom([]string{"startsWith", "endsWith", "contains"}).Draw(t, "f"), rapid.SampledFrom([]string{"locale", "id", "attributes.b"}).Draw(t, "of"))
		case 4:
			return rapid.SampledFrom([]string{"user.attributes.a", "has(user.attributes.b)", "has(user.attributes.gone)", "user.attributes.gone"}).Draw(t, "bare")
		case 5:
			return "!(" + expression(t, depth+1) + ")"
		case 6:
			return "(" + expression(t, depth+1) + ") || (" + expression(t, depth+1) + ")"
		default:
			return "(" + expression(t, depth+1) + ") && (" + expression(t, depth+1) + ")"
		}
	}
	fast := 0
	rapid.Check(t, func(t *rapid.T) {
		s, err := Compile(strings.ReplaceAll(expression(t, 0), "dyn(", "("))
		if err != nil || s.fast == nil {
			return
		}
		fast++
		p := &whisperv1.Profile{Locale: rapid.SampledFrom([]string{"", "ar-EG", "EG"}).Draw(t, "locale")}
		p.Attributes = []byte(fmt.Sprintf(`{"a":%s,"b":%s}`, attribute.Draw(t, "a is"), attribute.Draw(t, "b is")))
		encoded, _ := proto.Marshal(p)
		match, failed := s.Match("a", profile.View(encoded))
		slowMatch, slowFailed := s.evaluate("a", profile.View(encoded))
		if match != slowMatch || failed != slowFailed {
			t.Fatalf("of %s the closures say %s, CEL %s", p.GetAttributes(), answer(match, failed), answer(slowMatch, slowFailed))
		}
	})
	if fast == 0 {
		t.Error("nothing was compiled to closures")
	}
}

const benchSegment = `user.attributes.country == 'EG' && user.attributes.plan in ['gold', 'platinum'] && user.locale.startsWith('ar')`

func BenchmarkSegment(b *testing.B) {
	v := viewOf(b, &whisperv1.Profile{
		Locale: "ar-EG", Timezone: "Africa/Cairo", Attributes: []byte(`{"country":"EG","name":"Mona 123456","plan":"gold","since":"2021"}`),
		Endpoints: []*whisperv1.Endpoint{{Name: "iphone", Channel: "apns", Token: strings.Repeat("0", 64), App: "com.klivvr.app", RegisteredAtMs: 1_700_000_000_000}},
	})
	s, err := Compile(benchSegment)
	if err != nil {
		b.Fatal(err)
	}
	for name, ask := range map[string]func(string, profile.View) (bool, bool){"closures": s.Match, "cel": s.evaluate} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if yes, _ := ask("mona", v); !yes {
					b.Fatal("no match")
				}
			}
		})
	}
}
