package gateway

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func TestAPlainFrameIsReadAsStrictlyAsAnyOther(t *testing.T) {
	t.Parallel()
	for text, plain := range map[string]bool{
		`{"type":"ack","ids":["a"]}`:                                 true,
		`{"ids":["a","b"],"type":"read","receipts":["x",""]}`:        true,
		" { \"type\" : \"ack\" , \"ids\" : [ \"a\" ,\t\"é\" ] }\r\n": true,
		`{"type":"ack","ids":["` + strings.Repeat("x", 200) + `"]}`:  true,
		`{"type":"ack","ids":[]}`:                                    false,
		`{"type":"ack","ids":["a"],"receipts":[]}`:                   false,
		`{"type":"ack","ids":["a"],"receipts":["x","y"]}`:            false,
		`{"type":"ack","type":"read","ids":["a"]}`:                   false,
		`{"type":"","type":"read","ids":["a"]}`:                      false,
		`{"type":"ack","ids":["a"],"ids":["b"]}`:                     false,
		`{"type":"ack","IDs":["b"],"ids":["a"]}`:                     false,
		`{"type":"ack","ids":["\u0061"]}`:                            false,
		`{"type":"ack","ids":["a"],"more":1}`:                        false,
		`{"type":"ack","ids":["a",]}`:                                false,
		`{"type":"ack","ids":["a"],}`:                                false,
		`{"type":"ack","ids":["a"]}}`:                                false,
		`{"type":"ack","ids":["a"]} {}`:                              false,
		`{"type":"ack","ids":["a"]`:                                  false,
		`{"type":"ack","ids":null}`:                                  false,
		`{"type":"refresh","token":"t"}`:                             false,
		`{"type":"refresh","ids":["t"]}`:                             false,
		"{\"type\":\"ack\",\"ids\":[\"a\nb\"]}":                      false,
		`[]`:                                                         false, ``: false, `{}`: false, `null`: false, `{"type":"ack","ids":["a"`: false, `"`: false,
	} {
		_, ok := plainFrame([]byte(text))
		if ok != plain {
			t.Errorf("%s: plain is %t", text, ok)
		}
		sameAsStrict(t, []byte(text))
	}
}

func TestWhateverIsPlainIsTheSameFrame(t *testing.T) {
	t.Parallel()
	texts := rapid.OneOf(rapid.StringMatching(`[a-z0-9-]{0,20}`), rapid.String(), rapid.SampledFrom([]string{"ack", "read", "\u2028", "\x7f", "\\", `"`}))
	list := rapid.Custom(func(t *rapid.T) string {
		var all []string
		for _, s := range rapid.SliceOfN(texts, 0, 3).Draw(t, "list") {
			all = append(all, fmt.Sprintf("%q", s))
		}
		return "[" + strings.Join(all, ",") + "]"
	})
	rapid.Check(t, func(t *rapid.T) {
		var members []string
		for range rapid.IntRange(0, 4).Draw(t, "members") {
			name := rapid.SampledFrom([]string{"type", "ids", "receipts", "token", "Type", "x"}).Draw(t, "name")
			value := rapid.OneOf(list, rapid.SampledFrom([]string{`"ack"`, `"read"`, `"refresh"`, "null", "1", "{}"})).Draw(t, "value")
			members = append(members, fmt.Sprintf("%q:%s", name, value))
		}
		text := []byte("{" + strings.Join(members, ",") + "}")
		for range rapid.IntRange(0, 2).Draw(t, "changes") { // somebody's own idea of JSON
			at := rapid.IntRange(0, len(text)-1).Draw(t, "at")
			text[at] = rapid.SampledFrom([]byte(`{}[]",:\ a`+"\n")).Draw(t, "byte")
		}
		sameAsStrict(t, text)
	})
}

func FuzzPlainFrame(f *testing.F) {
	f.Add([]byte(`{"type":"ack","ids":["a","b"],"receipts":["x",""]}`))
	f.Fuzz(func(t *testing.T, b []byte) { sameAsStrict(t, b) })
}

func sameAsStrict(t interface{ Errorf(string, ...any) }, b []byte) {
	if !utf8.Valid(b) {
		return // never comes so far
	}
	got, ok := plainFrame(b)
	if !ok {
		return
	}
	want, bad := decodeStrictly(b)
	if bad != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%q: %+v, strictly %+v, %v", b, got, want, bad)
	}
}

func BenchmarkFrame(b *testing.B) {
	text := []byte(`{"type":"ack","ids":["b1-000000017"]}`)
	for name, read := range map[string]func([]byte) (clientFrame, *protocolError){"any": decodeStrictly, "plain": decodeFrame} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for range b.N {
				if _, bad := read(text); bad != nil {
					b.Fatal(bad)
				}
			}
		})
	}
}
