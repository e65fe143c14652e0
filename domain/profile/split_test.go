package profile_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/klivvr/whisper/domain/profile"
	"github.com/klivvr/whisper/domain/whisperv1"
)

func TestTheGoodPartsOfAPatchAreTaken(t *testing.T) {
	t.Parallel()
	const phone = `"endpoints":{"a":{"channel":"apns","token":"t"}}`
	for _, tt := range []struct{ name, value, taken, refused, fields, problem string }{
		{"nothing wrong", `{ "locale": "ar-EG" }`, `{ "locale": "ar-EG" }`, "", "", ""},
		{"empty", `{}`, `{}`, "", "", ""},
		{"underscore", `{"locale":"pt_BR",` + phone + `}`, `{"locale":"pt-BR",` + phone + `}`, "", "", ""},
		{"out of use", `{"locale":"iw"}`, `{"locale":"he"}`, "", "", ""},
		{"locale", `{"locale":"Portuguese",` + phone + `}`, `{` + phone + `}`, `{"locale":"Portuguese"}`, "locale", `locale "Portuguese" is not a BCP 47 locale such as "ar-EG"`},
		{"zone", `{` + phone + `,"timezone":"UTC+3","locale":null}`, `{` + phone + `,"locale":null}`, `{"timezone":"UTC+3"}`, "timezone", `timezone "UTC+3" is not a time zone of the IANA database such as "Africa/Cairo"`},
		{"empty texts", `{"locale":"","timezone":"",` + phone + `}`, `{` + phone + `}`, `{"locale":"","timezone":""}`, "locale, timezone", `locale "" is not a BCP 47 locale such as "ar-EG"; timezone "" is not a time zone of the IANA database such as "Africa/Cairo"`},
		{"types", `{"locale":7,"attributes":"x","preferences":[],"quiet_hours":1,` + phone + `}`, `{` + phone + `}`, `{"locale":7,"attributes":"x","preferences":[],"quiet_hours":1}`, "locale, attributes, preferences, quiet_hours", `locale must be a string, not a number; attributes must be an object, not a string; preferences must be an object, not a list; quiet_hours must be an object, not a number`},
		{"unknown", `{"nick":"m",` + phone + `}`, `{` + phone + `}`, `{"nick":"m"}`, "nick", `unknown field "nick"; known are locale, timezone, attributes, endpoints, preferences, quiet_hours`},
		{"one endpoint of some", `{"endpoints":{"x":{"channel":"fax","token":"secret"},"y":null,"z":{"channel":"apns","token":"t"}}}`, `{"endpoints":{"y":null,"z":{"channel":"apns","token":"t"}}}`, `{"endpoints":{"x":{"channel":"fax","token":"secret"}}}`, "endpoints.x", `endpoints.x: unknown channel "fax" for an endpoint; known are apns, fcm, webpush, email, sms, webhook`},
		{"channel and token the wrong way round", `{"locale":"de","endpoints":{"x":{"channel":"0123456789abcdef0123456789abcdef","token":"apns"}}}`, `{"locale":"de"}`, `{"endpoints":{"x":{"channel":"0123456789abcdef0123456789abcdef","token":"apns"}}}`, "endpoints.x", `endpoints.x: unknown channel for an endpoint; known are apns, fcm, webpush, email, sms, webhook`},
		{"unknown in an endpoint", `{"endpoints":{"a":{"channel":"apns","os":"ios","token":"t"}}}`, `{` + phone + `}`, `{"endpoints":{"a":{"os":"ios"}}}`, "endpoints.a.os", `unknown field "os" in endpoints.a; known are channel, token, app`},
		{"unknown in a bad endpoint", `{"locale":"de","endpoints":{"a":{"channel":"apns","toekn":"t"}}}`, `{"locale":"de"}`, `{"endpoints":{"a":{"channel":"apns","toekn":"t"}}}`, "endpoints.a", `unknown field "toekn" in endpoints.a; known are channel, token, app`},
		{"attributes", `{"attributes":{"a":1,"b":{"c":1,"c":2},"d":null}}`, `{"attributes":{"a":1,"d":null}}`, `{"attributes":{"b":{"c":1,"c":2}}}`, "attributes.b", `attributes.b has "c" twice`},
		{"half a pair", `{"attributes":{"a":"\ud800","b":"x"}}`, `{"attributes":{"b":"x"}}`, `{"attributes":{"a":"\ud800"}}`, "attributes.a", `attributes.a has half of a surrogate pair (\ud800 to \udfff)`},
		{"preferences", `{"preferences":{"ads":{"all":false,"fax":true},"b":7,"c":null,"D":{"all":false,"push":false}}}`, `{"preferences":{"ads":{"all":false},"c":null}}`, `{"preferences":{"ads":{"fax":true},"b":7,"D":{"all":false,"push":false}}}`, "preferences.ads.fax, preferences.b, preferences.D.all, preferences.D.push", `preferences.ads: unknown channel "fax"; known are socket, push, apns, fcm, webpush, email, sms, webhook, all; preferences.b must be an object, not a number; preferences: category "D" has a character that is not allowed: lower-case letters, digits, _ and -, in parts separated by dots, such as transactions.card`},
		{"half of the quiet hours", `{"quiet_hours":{"from":"22:00","to":"7"},"locale":"de"}`, `{"locale":"de"}`, `{"quiet_hours":{"from":"22:00","to":"7"}}`, "quiet_hours", `quiet_hours.to "7" is not a time of day such as "22:00"`},
		{"unknown in the quiet hours", `{"quiet_hours":{"from":"22:00","days":[1]}}`, `{"quiet_hours":{"from":"22:00"}}`, `{"quiet_hours":{"days":[1]}}`, "quiet_hours.days", `unknown field "days" in quiet_hours; known are from, to`},
		{"twice", `{"locale":"de","timezone":"UTC","\u006cocale":"en"}`, `{"timezone":"UTC"}`, `{"locale":"de","\u006cocale":"en"}`, "locale", `locale is there twice`},
		{"endpoints twice", `{"endpoints":{"a":null},"endpoints":{"b":null},"locale":"de"}`, `{"locale":"de"}`, `{"endpoints":{"a":null},"endpoints":{"b":null}}`, "endpoints", `endpoints is there twice`},
		{"an endpoint twice", `{"endpoints":{"a":null,"b":{"channel":"apns","token":"t"},"a":{"channel":"apns","token":"t"}}}`, `{"endpoints":{"b":{"channel":"apns","token":"t"}}}`, `{"endpoints":{"a":null,"a":{"channel":"apns","token":"t"}}}`, "endpoints.a", `endpoints.a is there twice`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			split, err := profile.SplitProfilePatch([]byte(tt.value))
			if err != nil {
				t.Fatal(err)
			}
			problem := ""
			if split.Problem != nil {
				problem = split.Problem.Error()
			}
			if string(split.Taken) != tt.taken || string(split.Refused) != tt.refused || strings.Join(split.Fields, ", ") != tt.fields ||
				problem != tt.problem {
				t.Errorf("taken   %s\nrefused %s\nfields  %s\nproblem %s", split.Taken, split.Refused, split.Fields, problem)
			}
		})
	}
}

func TestAPatchIsRefusedAsAWhole(t *testing.T) {
	t.Parallel()
	for name, value := range map[string]string{
		"not JSON": `{"locale":"de"`, "a list": `[{"locale":"de"}]`, "not UTF-8": "{\"locale\":\"de\",\"attributes\":{\"a\":\"\xff\"}}",
		"too large": `{"locale":"de","attributes":{"a":"` + strings.Repeat("x", 64<<10) + `"}}`, "nothing right": `{"locale":"x_","nick":1}`,
	} {
		split, err := profile.SplitProfilePatch([]byte(value))
		_, whole := profile.ParsePatch([]byte(value))
		if err == nil || whole == nil || err.Error() != whole.Error() || split.Taken != nil || split.Refused != nil {
			t.Errorf("%s: %+v, %v; want %v", name, split, err, whole)
		}
	}
}

func TestMoreEndpointsThanAllowedAreRefusedTogether(t *testing.T) {
	t.Parallel()
	var names []string
	for i := range profile.MaxEndpoints + 1 {
		names = append(names, fmt.Sprintf(`"e%d":null`, i))
	}
	all := `{"endpoints":{` + strings.Join(names, ",") + `}}`
	split, err := profile.SplitProfilePatch([]byte(`{"locale":"de",` + all[1:]))
	if err != nil || string(split.Taken) != `{"locale":"de"}` || string(split.Refused) != all || split.Problem.Error() != "endpoints names 33 endpoints, at most 32 are allowed" || len(split.Fields) != profile.MaxRefusedFields {
		t.Errorf("%+v, %v", split, err)
	}
}

// patchParts are good and bad parts of patches, by their field.
var patchParts = map[string]struct{ good, bad []string }{
	"locale":      {[]string{`"de"`, `null`, `"pt_BR"`, `"no"`}, []string{`"x_"`, `1`, `"\ud800"`, `{}`}},
	"timezone":    {[]string{`"UTC"`, `null`}, []string{`"UTC+3"`, `[]`, `""`}},
	"quiet_hours": {[]string{`{"from":"22:00"}`, `null`, `{"from":"22:00","to":null}`}, []string{`{"from":"24:00"}`, `7`, `{"to":"1"}`}},
	"nick":        {nil, []string{`1`, `null`, `{"a":{}}`}},
}

var memberParts = map[string]struct{ good, bad []string }{
	"attributes":  {[]string{`1`, `null`, `"x"`, `{"y":[1,{}]}`}, []string{`"\udc00"`, `{"z":1,"z":2}`, strings.Repeat("[", 40) + strings.Repeat("]", 40)}},
	"endpoints":   {[]string{`null`, `{"channel":"apns","token":"t"}`, `{"channel":"email","token":"m@x","app":null}`}, []string{`{}`, `7`, `{"channel":"fax","token":"t"}`, `{"channel":"apns","token":"t","app":7}`}},
	"preferences": {[]string{`null`, `{"all":false}`, `{"push":true,"apns":null}`, `{}`}, []string{`7`, `{"fax":true}`, `{"push":1}`}},
}

// TestABadPartDoesNotSpoilTheGoodOnes: of any mixture all that is right is taken, as if the rest had not been there, and
// all that is wrong is in the dead letter and nothing else.
func TestABadPartDoesNotSpoilTheGoodOnes(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		good, bad, all := map[string]string{}, map[string]string{}, []string(nil)
		pick := func(label string, parts struct{ good, bad []string }) (raw string, right bool) {
			right = len(parts.good) > 0 && rapid.Bool().Draw(rt, label+" is right")
			if right {
				return rapid.SampledFrom(parts.good).Draw(rt, label), true
			}
			return rapid.SampledFrom(parts.bad).Draw(rt, label), false
		}
		for _, field := range rapid.Permutation([]string{
			"locale", "timezone", "quiet_hours", "nick", "attributes", "endpoints",
			"preferences",
		}).Draw(rt, "order") {
			if rapid.IntRange(0, 2).Draw(rt, field) == 0 {
				continue
			}
			if parts, flat := patchParts[field]; flat {
				raw, right := pick(field, parts)
				if all = append(all, `"`+field+`":`+raw); right {
					good[field] = raw
				} else {
					bad[field] = raw
				}
				continue
			}
			var members, goods, bads []string
			for _, name := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c", "d"}), 1, 4, rapid.ID).Draw(rt, field+"'s") {
				raw, right := pick(field+"."+name, memberParts[field])
				member := `"` + name + `":` + raw
				if members = append(members, member); right {
					goods = append(goods, member)
				} else {
					bads = append(bads, member)
				}
			}
			all = append(all, `"`+field+`":{`+strings.Join(members, ",")+`}`)
			if len(goods) > 0 {
				good[field] = "{" + strings.Join(goods, ",") + "}"
			}
			if len(bads) > 0 {
				bad[field] = "{" + strings.Join(bads, ",") + "}"
			}
		}
		split, err := profile.SplitProfilePatch([]byte("{" + strings.Join(all, ",") + "}"))
		if len(good) == 0 && len(bad) > 0 {
			if err == nil {
				rt.Fatalf("taken: %s", split.Taken)
			}
			return
		}
		if err != nil {
			rt.Fatal(err)
		}
		old := &whisperv1.Profile{Locale: "fr", Timezone: "Asia/Tokyo", Attributes: []byte(`{"a":2,"d":3}`), Endpoints: []*whisperv1.Endpoint{{Name: "b", Channel: "apns", Token: "old"}}, Preferences: []byte(`{"a":{"all":false}}`), ChangesOffset: 1}
		for what, pair := range map[string]struct {
			want map[string]string
			got  []byte
		}{"taken": {good, split.Taken}, "refused": {bad, split.Refused}} {
			if len(pair.want) == 0 && what == "refused" {
				if pair.got != nil {
					rt.Fatalf("refused: %s", pair.got)
				}
				continue
			}
			var fields []string
			for field, raw := range pair.want {
				fields = append(fields, `"`+field+`":`+raw)
			}
			want := []byte("{" + strings.Join(fields, ",") + "}")
			if what == "refused" {
				if !sameJSON(rt, pair.got, want) {
					rt.Fatalf("refused is %s, want %s", pair.got, want)
				}
				continue
			}
			if got, want := applied(rt, old, pair.got), applied(rt, old, want); !proto.Equal(got, want) {
				rt.Fatalf("taken is %s\n got %v\nwant %v", pair.got, got, want)
			}
		}
	})
}

func applied(t rapid.TB, old *whisperv1.Profile, value []byte) *whisperv1.Profile {
	t.Helper()
	patch, err := profile.ParsePatch(value)
	if err != nil {
		t.Fatalf("%s: %v", value, err)
	}
	merged, err := profile.Apply(old, patch, time.UnixMilli(5), 2)
	if err != nil {
		t.Fatal(err)
	}
	return merged
}

// sameJSON compares but for the order of members; of those that are there twice the last.
func sameJSON(t rapid.TB, a, b []byte) bool {
	t.Helper()
	var x, y any
	if err := errors.Join(json.Unmarshal(a, &x), json.Unmarshal(b, &y)); err != nil {
		t.Fatal(err)
	}
	return reflect.DeepEqual(x, y)
}

// FuzzSplitProfilePatch: what is taken can be taken, by itself and again; what is refused can be refused; no token is told.
func FuzzSplitProfilePatch(f *testing.F) {
	f.Add([]byte(fullPatch))
	f.Add([]byte(`{"locale":"pt_BR","timezone":"UTC+3","endpoints":{"a":{"channel":"apns","token":"t","os":1},"a":null},"x":{"y":1}}`))
	f.Add([]byte(`{"preferences":{"a":{"b":true,"all":false},"":{}},"attributes":{"a":[{"b":1,"b":2}]},"quiet_hours":{"from":"1","x":{}}}`))
	f.Add([]byte(`{"endpoints":{"\ud800":null,"b":{"channel":"apns","token":"t"}},"\ud800":1}`))
	f.Fuzz(func(t *testing.T, value []byte) {
		_, strict := profile.ParsePatch(value)
		split, err := profile.SplitProfilePatch(value)
		if err != nil {
			if strict == nil {
				t.Errorf("refused: %v", err)
			}
			return
		}
		if _, err := profile.ParsePatch(split.Taken); err != nil {
			t.Errorf("%s can't be taken: %v", split.Taken, err)
		}
		if again, err := profile.SplitProfilePatch(split.Taken); err != nil || string(again.Taken) != string(split.Taken) ||
			again.Refused != nil {
			t.Errorf("%s taken apart again: %+v, %v", split.Taken, again, err)
		}
		if (strict == nil) != (split.Refused == nil) || (split.Problem == nil) != (split.Refused == nil) ||
			(len(split.Fields) == 0) != (split.Refused == nil) {
			t.Errorf("the whole: %v; %+v", strict, split)
		}
		if split.Refused == nil {
			return
		}
		if !json.Valid(split.Refused) {
			t.Errorf("not JSON: %s", split.Refused)
		}
		if _, err := profile.ParsePatch(split.Refused); err == nil {
			t.Errorf("%s would be taken when it is put back", split.Refused)
		}
		if text := split.Problem.Error(); len(text) > 8_000 || strings.ContainsAny(text, "\n\r") {
			t.Errorf("a reason that no header should carry: %q", text)
		}
	})
}

// TestAProfileThatGetsTooLargeKeepsItsPhone: attributes that are too much do not take the token beside them along.
func TestAProfileThatGetsTooLargeKeepsItsPhone(t *testing.T) {
	t.Parallel()
	old := apply(t, nil, fmt.Sprintf(`{"attributes":{"a":%q}}`, strings.Repeat("x", 40<<10)), 1, 1)
	patch := parsePatch(t, fmt.Sprintf(`{"locale":"de","endpoints":{"p":{"channel":"apns","token":"t"}},"preferences":{"ads":{"all":false}},"attributes":{"b":%q}}`, strings.Repeat("y", 40<<10)))
	merged, err := profile.Apply(old, patch, time.UnixMilli(2), 2)
	if err == nil || !strings.HasSuffix(err.Error(), "the patch's attributes are not applied") {
		t.Errorf("error is %v", err)
	}
	if merged.GetLocale() != "de" || len(merged.GetEndpoints()) != 1 || string(merged.GetAttributes()) != string(old.GetAttributes()) ||
		len(merged.GetPreferences()) == 0 || merged.GetChangesOffset() != 2 {
		t.Errorf("the profile is %v", merged)
	}
}
