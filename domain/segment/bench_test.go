package segment

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/klivvr/whisper/domain/profile"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// BenchmarkSegment is what a segment costs a user. "worst" are the dearest that Compile takes, asked about a profile of
// 64 KiB that is made for it.
func BenchmarkSegment(b *testing.B) {
	usual := viewOf(b, &whisperv1.Profile{
		Locale: "ar-EG", Timezone: "Africa/Cairo",
		Attributes: []byte(`{"address":{"city":"Cairo","zip":"11511"},"age":31,"country":"EG","name":"Mona 123456","plan":"gold","since":"2021","tags":["new","vip"]}`),
		Endpoints:  []*whisperv1.Endpoint{{Name: "iphone", Channel: "apns", Token: strings.Repeat("0", 64), App: "com.klivvr.app", RegisteredAtMs: 1_700_000_000_000}},
	})
	for name, segment := range map[string]string{
		"three comparisons":    `user.attributes.country == 'EG' && user.attributes.plan in ['gold', 'platinum'] && user.locale.startsWith('ar')`,
		"one nested attribute": `user.attributes.address.city == 'Cairo'`,
		"five conditions": `user.attributes.address.city == 'Cairo' && 'vip' in user.attributes.tags && 'apns' in user.endpoints && ` +
			`has(user.attributes.age) && user.attributes.address.zip.startsWith('11')`,
		"a macro": `user.attributes.tags.exists(t, t == 'vip')`,
	} {
		for way, fast := range map[string]bool{"closures": true, "cel": false} {
			b.Run(name+"/"+way, func(b *testing.B) {
				s, err := Compile(segment)
				if err != nil {
					b.Fatal(err)
				}
				if fast && s.fast == nil {
					b.Skip("CEL evaluates it")
				}
				if !fast {
					s = &Segment{program: s.program}
				}
				match(b, s, usual, true)
			})
		}
	}
	for name, c := range worstSegments() {
		b.Run("worst/"+name, func(b *testing.B) {
			s, err := Compile(c.segment)
			if err != nil {
				b.Fatal(err)
			}
			view := viewOf(b, &whisperv1.Profile{Attributes: []byte(c.attributes)})
			match(b, s, view, false)
		})
	}
}

// match asks again and again, and reports the processor's time: others may use the machine.
func match(b *testing.B, s *Segment, view profile.View, want bool) {
	b.Helper()
	b.ReportAllocs()
	began := cpuTime(b)
	for b.Loop() {
		if yes, _ := s.Match("mona", view); yes != want {
			b.Fatalf("it says %v", yes)
		}
	}
	b.ReportMetric(float64(cpuTime(b)-began)/float64(b.N), "cpu-ns/op")
}

func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

type hostile struct{ segment, attributes string }

// worstSegments are tries to have a user cost much: each repeats something as often as 4 KiB and the estimate allow.
func worstSegments() map[string]hostile {
	nested := func(leaf string) string { return strings.Repeat("[", 24) + leaf + strings.Repeat("]", 24) }
	long := func(item string, bytes int) string {
		return strings.TrimSuffix(strings.Repeat(item+",", bytes/(len(item)+1)), ",")
	}
	text := strings.Repeat("a", 30<<10)
	many := func(part string) string { return allowed(part, " || ", "false") }
	var members []string
	for i := range 4000 {
		members = append(members, fmt.Sprintf(`"k%05d":1`, i))
	}
	object := "{" + strings.Join(members, ",") + `,"x":1}`
	return map[string]hostile{
		"one attribute of many":       {many("user.attributes.x == 2"), object},
		"one nested attribute":        {many("user.attributes.a.x.y == 2"), `{"a":` + object + `}`},
		"a missing one":               {many("has(user.attributes.z)"), object},
		"a macro for each":            {many("user.attributes.a.exists(x, x == 2)"), `{"a":[` + long("1", 60<<10) + `]}`},
		"two lists":                   {many("user.attributes.a != user.attributes.b"), `{"a":[` + long("1", 30<<10) + `],"b":[` + long("1", 30<<10) + `]}`},
		"two nested lists":            {many("user.attributes.a != user.attributes.b"), `{"a":` + nested(long("[1]", 30<<10)) + `,"b":` + nested(long("[1]", 30<<10)) + `}`},
		"two objects":                 {many("user.attributes.a != user.attributes.b"), `{"a":` + object[:len(object)/2-len(object)/2%10] + `"x":1},"b":` + object[:len(object)/2-len(object)/2%10] + `"x":1}}`},
		"nested lists, in a macro":    {`user.attributes.l.exists(x, user.attributes.a != user.attributes.b)`, `{"a":[` + long("[1]", 25<<10) + `],"b":[` + long("[1]", 25<<10) + `],"l":[` + long("1", 5<<10) + `]}`},
		"lists of lists":              {`user.attributes.l.map(x, user.attributes.l) != user.attributes.l.map(x, user.attributes.l)`, `{"l":[` + long("1", 4<<10) + `]}`},
		"items":                       {many("2 in user.attributes.a"), `{"a":[` + long("1", 60<<10) + `]}`},
		"few items":                   {many("2 in user.attributes.a"), `{"a":[` + long("1", 2<<10) + `]}`},
		"items that are objects":      {many("user.attributes.b in user.attributes.a"), `{"a":[` + long(`{"a":[1,2]}`, 60<<10) + `],"b":{"a":[1,3]}}`},
		"texts in texts":              {many("user.attributes.a.contains(user.attributes.b)"), `{"a":"` + text + `","b":"` + text[1:] + `b"}`},
		"texts, compared":             {many("user.attributes.a < user.attributes.b"), `{"a":"` + text + `","b":"` + text + `"}`},
		"texts with escapes":          {many("user.attributes.a == 'x'"), `{"a":"` + strings.Repeat(`\u00e9`, 10<<10) + `"}`},
		"a short pattern":             {many("user.attributes.a.matches('a*b')"), `{"a":"` + text + `"}`},
		"a pattern with alternatives": {many("user.attributes.a.matches('(a|aa|a?a)*b')"), `{"a":"` + text + `"}`},
		"a pattern of repetitions":    {many("user.attributes.a.matches('(a?){500}b')"), `{"a":"` + text + `"}`},
		"the same, of a short text":   {many("user.attributes.a.matches('(a?){500}b')"), `{"a":"` + text[:50] + `"}`},
		"a text in pieces":            {many("(user.attributes.a + user.attributes.a).size() == 1"), `{"a":"` + text + `"}`},
	}
}

// allowed joins as many parts as Compile takes.
func allowed(part, by, last string) string {
	for n := MaxSegmentBytes / (len(part) + len(by)); n > 1; n = n * 9 / 10 {
		segment := strings.Repeat(part+by, n) + last
		if _, err := Compile(segment); err == nil {
			return segment
		}
	}
	return part
}

// TestTheWorstSegmentIsBounded: no segment that Compile takes costs a user more than its bounds together, and it always
// costs the same.
func TestTheWorstSegmentIsBounded(t *testing.T) {
	for name, c := range worstSegments() {
		t.Run(name, func(t *testing.T) {
			s, err := Compile(c.segment)
			if err != nil {
				t.Fatal(err)
			}
			view := viewOf(t, &whisperv1.Profile{Attributes: []byte(c.attributes)})
			if got := s.Ask("mona", view).Units; got > 3*maxSegmentCost {
				t.Errorf("it costs %d units, more than three times %d", got, maxSegmentCost)
			}
			if got, again := s.Ask("mona", view), s.Ask("mona", view); got != again {
				t.Errorf("it says %+v, and %+v when it is asked again", got, again)
			}
		})
	}
}
