package profile_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	_ "time/tzdata"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/klivvr/whisper/domain/profile"
	"github.com/klivvr/whisper/domain/record"
	"github.com/klivvr/whisper/domain/whisperv1"
)

const fullPatch = `{"locale": "AR-eg", "timezone": "Africa/Cairo", "attributes": {"name": "Mona", "country": "EG", "plan": "gold"},
 "endpoints": {"iphone": {"channel": "apns", "token": "t1", "app": "com.klivvr.app"}},
 "preferences": {"marketing": {"apns": false}}, "quiet_hours": {"from": "22:00", "to": "07:00"}}`

func parsePatch(t testing.TB, value string) profile.Patch {
	t.Helper()
	patch, err := profile.ParsePatch([]byte(value))
	if err != nil {
		t.Fatalf("%s: %v", value, err)
	}
	return patch
}

func apply(t testing.TB, old *whisperv1.Profile, value string, at, offset int64) *whisperv1.Profile {
	t.Helper()
	before := proto.Clone(old)
	merged, err := profile.Apply(old, parsePatch(t, value), time.UnixMilli(at), offset)
	if err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(old, before) {
		t.Errorf("the old profile was changed: %v", old)
	}
	return merged
}

func TestPatchesMakeAndChangeAProfile(t *testing.T) {
	t.Parallel()
	first := apply(t, nil, fullPatch, 1000, 0)
	want := &whisperv1.Profile{
		Locale: "ar-EG", Timezone: "Africa/Cairo",
		Attributes:    []byte(`{"country":"EG","name":"Mona","plan":"gold"}`),
		Preferences:   []byte(`{"marketing":{"apns":false}}`),
		QuietHours:    []byte(`{"from":"22:00","to":"07:00"}`),
		Endpoints:     []*whisperv1.Endpoint{{Name: "iphone", Channel: "apns", Token: "t1", App: "com.klivvr.app", RegisteredAtMs: 1000}},
		CreatedOffset: 1,
	}
	if !proto.Equal(first, want) {
		t.Fatalf("got  %v\nwant %v", first, want)
	}
	if again := apply(t, first, fullPatch, 9000, 0); again != first {
		t.Errorf("a redelivered patch made %v", again)
	}
	second := apply(t, first, `{"locale":null,"attributes":{"plan":null,"age":41.50},"endpoints":{"ipad":{"channel":"apns","token":"t2"},"iphone":{"channel":"apns","token":"t3"}},"quiet_hours":null}`, 2000, 5)
	want.Locale, want.QuietHours, want.ChangesOffset = "", nil, 5
	want.Attributes = []byte(`{"age":41.50,"country":"EG","name":"Mona"}`)
	want.Endpoints = []*whisperv1.Endpoint{
		{Name: "ipad", Channel: "apns", Token: "t2", RegisteredAtMs: 2000},
		{Name: "iphone", Channel: "apns", Token: "t3", App: "com.klivvr.app", RegisteredAtMs: 2000},
	}
	if !proto.Equal(second, want) {
		t.Errorf("got  %v\nwant %v", second, want)
	}
	third := apply(t, second, `{"endpoints":{"iphone":null,"other":null},"attributes":null}`, 3000, 6)
	if len(third.GetEndpoints()) != 1 || third.GetEndpoints()[0].GetRegisteredAtMs() != 2000 || third.GetAttributes() != nil {
		t.Errorf("got %v", third)
	}
	if fourth := apply(t, third, `{"endpoints":null}`, 4000, 7); len(fourth.GetEndpoints()) != 0 {
		t.Errorf("got %v", fourth)
	}
	again := apply(t, third, `{"endpoints":{"ipad":{"channel":"apns","token":"t2"}}}`, 5000, 8)
	if at := again.GetEndpoints()[0].GetRegisteredAtMs(); at != 5000 {
		t.Errorf("registered again with its token at 5000, but the profile says %d", at)
	}
}

// The examples of RFC 7396, appendix A, each as the value of one attribute.
func TestMergeIsThatOfRFC7396(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ original, patch, want string }{
		{`{"a":"b"}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"b"}`, `{"b":"c"}`, `{"a":"b","b":"c"}`},
		{`{"a":"b"}`, `{"a":null}`, `{}`},
		{`{"a":"b","b":"c"}`, `{"a":null}`, `{"b":"c"}`},
		{`{"a":["b"]}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"c"}`, `{"a":["b"]}`, `{"a":["b"]}`},
		{`{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`, `{"a":{"b":"d"}}`},
		{`{"a":[{"b":"c"}]}`, `{"a":[1]}`, `{"a":[1]}`},
		{`["a","b"]`, `["c","d"]`, `["c","d"]`},
		{`{"a":"b"}`, `["c"]`, `["c"]`},
		{`{"a":"foo"}`, `"bar"`, `"bar"`},
		{`{"e":null}`, `{"a":1}`, `{"a":1,"e":null}`},
		{`[1,2]`, `{"a":"b","c":null}`, `{"a":"b"}`},
		{`{}`, `{"a":{"bb":{"ccc":null}}}`, `{"a":{"bb":{}}}`},
	} {
		old := &whisperv1.Profile{Attributes: []byte(`{"x":` + tt.original + `}`)}
		got := apply(t, old, `{"attributes":{"x":`+tt.patch+`}}`, 0, 1)
		if want := `{"x":` + tt.want + `}`; string(got.GetAttributes()) != want {
			t.Errorf("%s + %s = %s, want %s", tt.original, tt.patch, got.GetAttributes(), want)
		}
	}
	old := &whisperv1.Profile{Attributes: []byte(`{"x":{"a":"foo"}}`)}
	if got := apply(t, old, `{"attributes":{"x":null}}`, 0, 1); got.GetAttributes() != nil {
		t.Errorf("a null leaves %s", got.GetAttributes())
	}
}

func TestParseProfilePatchSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, value, word, want string }{
		{"not JSON", `locale: ar`, "malformed", `the profile patch is not JSON: invalid character 'l' looking for beginning of value (byte 1)`},
		{"list", `[]`, "malformed", `the profile patch must be a JSON object, not a list`},
		{"too large", `{"attributes":{"a":"` + strings.Repeat("x", 64<<10) + `"}}`, "too_large", `the profile patch has 65559 bytes, at most 65536 are allowed`},
		{"unknown field", `{"name":"Mona"}`, "unknown_field", `unknown field "name"; known are locale, timezone, attributes, endpoints, preferences, quiet_hours`},
		{"twice", `{"locale":"ar","locale":null}`, "duplicate_field", `locale is there twice`},
		{"twice inside", `{"attributes":{"a":1,"a":2}}`, "duplicate_field", `attributes has "a" twice`},
		{
			"types", `{"locale":1,"timezone":[],"attributes":"x","endpoints":[],"preferences":true,"quiet_hours":"22:00"}`, "wrong_type",
			`locale must be a string, not a number; timezone must be a string, not a list; attributes must be an object, not a string; endpoints must be an object, not a list; ` +
				`preferences must be an object, not true; quiet_hours must be an object, not a string`,
		},
		{"locale", `{"locale":"Arabic (Egypt)"}`, "profile", `locale "Arabic (Egypt)" is not a BCP 47 locale such as "ar-EG"`},
		{"timezone", `{"timezone":"Africa/Cario"}`, "profile", `timezone "Africa/Cario" is not a time zone of the IANA database such as "Africa/Cairo"`},
		{"endpoint's fields", `{"endpoints":{"a":{"channel":"apns","token":"t","os":"ios"}}}`, "unknown_field", `unknown field "os" in endpoints.a; known are channel, token, app`},
		{
			"endpoint's parts", `{"endpoints":{"a":{},"b":{"channel":"socket","token":"t"},"c":7,"":null}}`, "profile",
			`endpoints.a has no channel: apns, fcm, webpush, email, sms, webhook; endpoints.a has no token; ` +
				`endpoints.b: unknown channel "socket" for an endpoint; known are apns, fcm, webpush, email, sms, webhook; endpoints.c must be an object, not a number; the name of endpoint "" is empty`,
		},
		{"10 KB", `{"endpoints":{"a":{"channel":"fcm","token":"` + strings.Repeat("t", 10<<10) + `"}}}`, "too_large", `endpoints.a.token has 10240 bytes, at most 4096 are allowed`},
		{"apple's token", `{"endpoints":{"a":{"channel":"fcm","token":"` + strings.Repeat("0A", 32) + `"}}}`, "profile", `endpoints.a.token is a device token of apns, not a registration token of fcm`},
		{"a subscription", `{"endpoints":{"a":{"channel":"fcm","token":"{\"endpoint\":\"https://x\"}"}}}`, "profile", `endpoints.a.token is a Web Push subscription, not a registration token of fcm`},
		{"malformed token", `{"endpoints":{"a":{"channel":"fcm","token":"a b"}}}`, "profile", `endpoints.a.token has a character that no registration token of fcm has`},
		{"google's token", `{"endpoints":{"a":{"channel":"apns","token":"dQw4w9:APA91bx"}}}`, "profile", `endpoints.a.token is a registration token of fcm, not a device token of apns`},
		{"token", `{"endpoints":{"a":{"channel":"apns","token":"` + strings.Repeat("t", 4097) + `"}}}`, "too_large", `endpoints.a.token has 4097 bytes, at most 4096 are allowed`},
		{
			"preferences", `{"preferences":{"Marketing":{},"a":{"apns":1,"fax":true},"b":false}}`, "category",
			`preferences: category "Marketing" has a character that is not allowed: lower-case letters, digits, _ and -, in parts separated by dots, such as transactions.card; ` +
				`preferences.a.apns must be true or false, not a number; preferences.a: unknown channel "fax"; known are socket, push, apns, fcm, webpush, email, sms, webhook, all; preferences.b must be an object, not false`,
		},
		{
			"quiet hours", `{"quiet_hours":{"from":"24:00","to":7,"days":[]}}`, "time",
			`quiet_hours.from "24:00" is not a time of day such as "22:00"; quiet_hours.to must be a string, not a number; unknown field "days" in quiet_hours; known are from, to`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := profile.ParsePatch([]byte(tt.value))
			var invalid *record.Invalid
			if !errors.As(err, &invalid) {
				t.Fatalf("error is %v", err)
			}
			if err.Error() != tt.want || invalid.Word != tt.word {
				t.Errorf("got  %s (%s)\nwant %s (%s)", err, invalid.Word, tt.want, tt.word)
			}
		})
	}
}

func TestMergedProfileIsBounded(t *testing.T) {
	t.Parallel()
	var merged *whisperv1.Profile
	var err error
	for i := range 3 {
		patch := parsePatch(t, fmt.Sprintf(`{"attributes":{"a%d":%q}}`, i, strings.Repeat("x", 30<<10)))
		merged, err = profile.Apply(merged, patch, time.UnixMilli(0), int64(i))
	}
	if err == nil || err.Error() != "the merged profile has 92194 bytes, at most 65536 are allowed: the patch is not applied" {
		t.Errorf("got %v", err)
	}
	if merged.GetChangesOffset() != 2 || strings.Contains(string(merged.GetAttributes()), "a2") {
		t.Errorf("the profile has offset %d and %d bytes of attributes", merged.GetChangesOffset(), len(merged.GetAttributes()))
	}
}

func TestKnownTimezonesCanBeLoaded(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"UTC", "Africa/Cairo", "America/Argentina/Buenos_Aires", "Asia/Riyadh", "Europe/Berlin"} {
		if _, err := time.LoadLocation(name); err != nil {
			t.Error(err)
		}
		parsePatch(t, fmt.Sprintf(`{"timezone":%q}`, name))
	}
}

// Whatever is redelivered, in whole runs as Kafka does, the profile is as if each patch had come once.
func TestRedeliveredPatchesChangeNothing(t *testing.T) {
	t.Parallel()
	patches := []string{
		fullPatch, `{}`, `{"locale":"en"}`, `{"attributes":{"name":null,"x":{"y":1}}}`, `{"attributes":{"x":{"z":2}}}`, `{"attributes":null}`,
		`{"endpoints":{"iphone":null}}`, `{"endpoints":{"ipad":{"channel":"apns","token":"t9"}}}`, `{"endpoints":null}`, `{"quiet_hours":{"to":"08:00"}}`,
	}
	rapid.Check(t, func(rt *rapid.T) {
		log := rapid.SliceOfN(rapid.SampledFrom(patches), 1, 12).Draw(rt, "log")
		var once, redelivered *whisperv1.Profile
		for i, p := range log {
			once = apply(t, once, p, int64(i), int64(i))
		}
		for i := 0; i < len(log); i++ {
			redelivered = apply(t, redelivered, log[i], int64(i), int64(i))
			if rapid.IntRange(0, 3).Draw(rt, "crash") == 0 {
				back := rapid.IntRange(0, i).Draw(rt, "committed")
				for j := back; j <= i; j++ {
					redelivered = apply(t, redelivered, log[j], int64(j), int64(j))
				}
			}
		}
		if !proto.Equal(once, redelivered) {
			rt.Errorf("once        %v\nredelivered %v", once, redelivered)
		}
	})
}

func FuzzParseProfilePatch(f *testing.F) {
	f.Add([]byte(fullPatch))
	f.Add([]byte(`{"endpoints":{"a":null},"preferences":null,"attributes":{"x":[1,{}]}}`))
	f.Add([]byte(`{"quiet_hours":{"from":"22:00"`))
	f.Fuzz(func(t *testing.T, value []byte) {
		patch, err := profile.ParsePatch(value)
		if err != nil {
			if len(err.Error()) > 8_000 || strings.ContainsAny(err.Error(), "\n\r") {
				t.Errorf("a reason that no header should carry: %q", err)
			}
			return
		}
		old := &whisperv1.Profile{Attributes: []byte(`{"x":{"y":1}}`), Endpoints: []*whisperv1.Endpoint{{Name: "a", Channel: "apns", Token: "t"}}, ChangesOffset: 1}
		merged, err := profile.Apply(old, patch, time.UnixMilli(1), 2)
		if err != nil {
			return
		}
		if _, err := proto.Marshal(merged); err != nil {
			t.Error(err)
		}
		again, err := profile.Apply(merged, patch, time.UnixMilli(2), 2)
		if err != nil || !proto.Equal(again, merged) {
			t.Errorf("redelivered: %v, %v", again, err)
		}
	})
}

func BenchmarkProfilePatch(b *testing.B) {
	value := []byte(fullPatch)
	old := apply(b, nil, fullPatch, 0, 0)
	b.Run("parse", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := profile.ParsePatch(value); err != nil {
				b.Fatal(err)
			}
		}
	})
	patch := parsePatch(b, fullPatch)
	b.Run("apply", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := profile.Apply(old, patch, time.UnixMilli(1), 1); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func TestAnUnsubscribeSticks(t *testing.T) {
	t.Parallel()
	before := apply(t, nil, `{"preferences":{"marketing":{"all":false,"push":false},"news":{"socket":false},"chat":{"all":true}}}`, 1, 1)
	for patch, want := range map[string]string{
		`{"preferences":{"marketing":{"socket":true}}}`:              `{"chat":{"all":true},"marketing":{"all":false,"push":false,"socket":true},"news":{"socket":false}}`,
		`{"preferences":{"marketing":null}}`:                         `{"chat":{"all":true},"marketing":{"all":false},"news":{"socket":false}}`,
		`{"preferences":null}`:                                       `{"marketing":{"all":false}}`,
		`{"preferences":{"marketing":{"all":null}}}`:                 `{"chat":{"all":true},"marketing":{"push":false},"news":{"socket":false}}`,
		`{"preferences":{"marketing":{"all":true},"news":null}}`:     `{"chat":{"all":true},"marketing":{"all":true,"push":false}}`,
		`{"preferences":{"marketing":{"all":null,"push":null}}}`:     `{"chat":{"all":true},"marketing":{},"news":{"socket":false}}`,
		`{"locale":"de"}`:                                            `{"chat":{"all":true},"marketing":{"all":false,"push":false},"news":{"socket":false}}`,
		`{"preferences":{"chat":null,"news":null,"marketing":null}}`: `{"marketing":{"all":false}}`,
	} {
		if got := string(apply(t, before, patch, 2, 2).GetPreferences()); got != want {
			t.Errorf("%s\n got %s\nwant %s", patch, got, want)
		}
	}
}
