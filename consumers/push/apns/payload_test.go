package apns

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/rivo/uniseg"
	"github.com/sideshow/apns2"
	"pgregory.net/rapid"

	"github.com/klivvr/whisper/domain/whisperv1"
)

func pushOf(body string) *whisperv1.Push {
	return &whisperv1.Push{
		DeliveryId: make([]byte, 16), NotificationId: "pay-8812", UserId: "mona", Attempt: 1, Lane: whisperv1.Lane_LANE_HIGH,
		Token: "00ff", App: "com.klivvr.app", Category: "transactions.card",
		Content: &whisperv1.Content{Title: "Card payment", Body: body, Url: "klivvr://card/1?a=b&c=d"},
	}
}

func TestPayloadHasWhatTheAppNeeds(t *testing.T) {
	t.Parallel()
	p := pushOf("120.50 EGP at <Café> & more")
	p.Content.Data = []byte(`{ "card" : 4417 }`)
	p.Content.Image = "https://i.example/1.png"
	got, err := encodePayload(p, "default")
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"aps":{"alert":{"title":"Card payment","body":"120.50 EGP at \u003cCafé\u003e \u0026 more"},"sound":"default",` +
		`"thread-id":"transactions.card","mutable-content":1},"id":"pay-8812","url":"klivvr://card/1?a=b\u0026c=d",` +
		`"image":"https://i.example/1.png","data":{"card":4417}}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	p.Lane = whisperv1.Lane_LANE_LOW
	if low, _ := encodePayload(p, "default"); bytes.Contains(low, []byte("sound")) {
		t.Errorf("a low push makes a sound: %s", low)
	}
}

func TestPayloadIsCutAtACharacter(t *testing.T) {
	t.Parallel()
	for name, unit := range map[string]string{
		"ascii":            "x",
		"words":            "one two ",
		"two bytes":        "é",
		"decomposed":       "e\u0301",
		"arabic":           "مرحبا بك ",
		"arabic vowels":    "مَرْحَبًا",
		"hebrew":           "שלום ",
		"three bytes":      "漢",
		"emoji":            "😀",
		"skin tone":        "👍🏽",
		"family":           "👨‍👩‍👧‍👦",
		"flags":            "🇪🇬",
		"heart":            "❤️",
		"keycap":           "1️⃣",
		"escaped to six":   "<>&",
		"escaped to two":   "\"\\\n",
		"control":          "\x01",
		"line separator":   "\u2028",
		"region flag":      "🏴󠁧󠁢󠁥󠁮󠁧󠁿",
		"crlf":             "a\r\n",
		"mixed directions": "abc אבג 123 ",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for shift := range 12 { // so that the cut falls on each byte of a unit
				body := strings.Repeat("y", shift) + strings.Repeat(unit, 5000/len(unit)+1)
				b, err := encodePayload(pushOf(body), "default")
				if err != nil {
					t.Fatal(err)
				}
				checkCut(t, b, body)
				kept := strings.TrimSuffix(bodyOf(t, b), ellipsis)
				// Whole units, but for those that are several characters or end in space.
				if rest := strings.TrimPrefix(kept, strings.Repeat("y", shift)); characterLen(unit) == len(unit) && strings.TrimSpace(unit) == unit && len(rest)%len(unit) != 0 {
					t.Fatalf("shift %d: the last character was cut: %q", shift, rest[len(rest)-len(rest)%len(unit):])
				}
				if strings.TrimSpace(unit) != "" && MaxPayloadBytes-len(b) > 6*len(unit)+6 {
					t.Fatalf("shift %d: %d bytes were given away", shift, MaxPayloadBytes-len(b))
				}
			}
		})
	}
}

func bodyOf(t interface{ Fatal(...any) }, b []byte) string {
	var p payload
	if err := json.Unmarshal(b, &p); err != nil {
		t.Fatal(err)
	}
	return p.APS.Alert.Body
}

// checkCut holds for every cut: it fits, also as apns2 encodes it, and is a prefix and an ellipsis.
func checkCut(t interface {
	Fatal(...any)
	Fatalf(string, ...any)
}, b []byte, body string,
) {
	if len(b) > MaxPayloadBytes {
		t.Fatalf("%d bytes", len(b))
	}
	wire, err := json.Marshal(&apns2.Notification{Payload: b})
	if err != nil || !bytes.Equal(wire, b) {
		t.Fatalf("apns2 changes the payload: %v", err)
	}
	got := bodyOf(t, b)
	kept := strings.TrimSuffix(got, ellipsis)
	if kept == got || !strings.HasPrefix(body, kept) || !utf8.ValidString(got) {
		t.Fatalf("not a clean prefix: %q", got[max(0, len(got)-20):])
	}
}

func TestPayloadCutOfAnything(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		body := strings.Repeat(rapid.StringN(20, 200, -1).Draw(rt, "body"), 300)
		if escapedLen(body) < MaxPayloadBytes {
			return
		}
		b, err := encodePayload(pushOf(body), "default")
		if err != nil {
			rt.Fatal(err)
		}
		checkCut(rt, b, body)
	})
}

func TestEscapedLenIsEncodingJSONs(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		s := rapid.OneOf(rapid.String(), rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) })).Draw(rt, "s")
		b, err := json.Marshal(s)
		if err != nil {
			rt.Fatal(err)
		}
		if got := escapedLen(s); got != len(b)-2 {
			rt.Fatalf("%q: got %d, want %d", s, got, len(b)-2)
		}
	})
}

func TestPayloadThatCannotFit(t *testing.T) {
	t.Parallel()
	big := pushOf(strings.Repeat("long body ", 500))
	big.Content.Data = []byte(`{"blob":"` + strings.Repeat("x", 4000) + `"}`)
	for name, c := range map[string]struct {
		p    *whisperv1.Push
		want error
	}{
		"data too large":  {big, errPayloadTooLarge},
		"title too large": {&whisperv1.Push{Content: &whisperv1.Content{Title: strings.Repeat("t", 5000)}}, errPayloadTooLarge},
		"data an array":   {&whisperv1.Push{Content: &whisperv1.Content{Data: []byte(`[1]`)}}, errDataNotJSON},
		"data truncated":  {&whisperv1.Push{Content: &whisperv1.Content{Data: []byte(`{"a":`)}}, errDataNotJSON},
		"data blank":      {&whisperv1.Push{Content: &whisperv1.Content{Data: []byte(`  `)}}, errDataNotJSON},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := encodePayload(c.p, ""); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

// TestACutEndsBetweenCharacters: wherever it falls, what is kept is whole grapheme clusters of Unicode.
func TestACutEndsBetweenCharacters(t *testing.T) {
	t.Parallel()
	pieces := []string{"a", "น้ำ", "กำ", "👨‍👩‍👧‍👦", "🇪🇬", "e\u0301", "क्षि", "\u1112\u1161\u11ab", "👍🏽", "<", "\"", "مً", "한", "1️⃣"}
	rapid.Check(t, func(rt *rapid.T) {
		var body strings.Builder
		for body.Len() < 4200 {
			body.WriteString(rapid.SampledFrom(pieces).Draw(rt, "piece"))
		}
		b, err := encodePayload(pushOf(body.String()), "default")
		if err != nil {
			rt.Fatal(err)
		}
		kept := strings.TrimSuffix(bodyOf(rt, b), ellipsis)
		checkCut(rt, b, body.String())
		ends := 0
		for g := uniseg.NewGraphemes(body.String()); ends < len(kept) && g.Next(); {
			_, ends = g.Positions()
		}
		if ends != len(kept) {
			rt.Fatalf("the last character was cut: …%+q", kept[max(0, len(kept)-30):])
		}
	})
}

func TestOneCharacterWithThousandsOfMarksIsCut(t *testing.T) {
	t.Parallel()
	body := "a" + strings.Repeat("\u0301", 3000)
	b, err := encodePayload(pushOf(body), "default")
	if err != nil {
		t.Fatal(err)
	}
	checkCut(t, b, body)
	if kept := strings.TrimSuffix(bodyOf(t, b), ellipsis); len(kept) < 3000 {
		t.Errorf("%d bytes are left", len(kept))
	}
}
