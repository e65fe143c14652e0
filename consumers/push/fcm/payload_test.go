package fcm

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/rivo/uniseg"
	"pgregory.net/rapid"

	"github.com/klivvr/whisper/domain/whisperv1"
)

var noon = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

func pushOf(body string) *whisperv1.Push {
	return &whisperv1.Push{
		DeliveryId: make([]byte, 16), NotificationId: "pay-8812", UserId: "mona", Attempt: 1, Lane: whisperv1.Lane_LANE_HIGH,
		Channel: Channel, Token: "dQw4:APA91b-_x", Category: "transactions.card", ExpiresAtMs: noon.Add(time.Hour).UnixMilli(),
		Content: &whisperv1.Content{Title: "Card payment", Body: body, Url: "klivvr://card/1?a=b&c=d"},
	}
}

func TestBodies(t *testing.T) {
	t.Parallel()
	with := func(change func(*whisperv1.Push)) *whisperv1.Push {
		p := pushOf("120.50 EGP at <Café>")
		change(p)
		return p
	}
	const shown = `"notification":{"title":"Card payment","body":"120.50 EGP at <Café>",`
	for name, c := range map[string]struct {
		format Format
		push   *whisperv1.Push
		want   string
	}{
		"notification": {
			Format{Sound: "default"},
			with(func(p *whisperv1.Push) {
				p.Content.Data, p.Content.Image = []byte(` { "from" : 4417 } `), "https://i.example/1.png"
			}),
			`{"message":{"token":"dQw4:APA91b-_x","data":{"category":"transactions.card","data":"{\"from\":4417}","id":"pay-8812",` +
				`"url":"klivvr://card/1?a=b&c=d"},"android":{"priority":"HIGH","ttl":"3600s",` + shown +
				`"image":"https://i.example/1.png","sound":"default","tag":"pay-8812","channelId":"transactions.card","notificationCount":1}}}}`,
		},
		"low, collapsed, by installation id, one channel": {
			Format{Target: TargetFID, ChannelID: "all", Sound: "default"},
			with(func(p *whisperv1.Push) {
				p.Lane, p.CollapseKey, p.ExpiresAtMs = whisperv1.Lane_LANE_LOW, "balance", 0
			}),
			`{"message":{"fid":"dQw4:APA91b-_x","data":{"category":"transactions.card","id":"pay-8812","url":"klivvr://card/1?a=b&c=d"},` +
				`"android":{"collapseKey":"balance","priority":"NORMAL",` + shown + `"tag":"balance","channelId":"all","notificationCount":1}}}}`,
		},
		"data": {
			Format{DataCategories: []string{"marketing", "transactions"}},
			with(func(p *whisperv1.Push) { p.Lane = whisperv1.Lane_LANE_NORMAL }),
			`{"message":{"token":"dQw4:APA91b-_x","data":{"body":"120.50 EGP at <Café>","category":"transactions.card","id":"pay-8812",` +
				`"tag":"pay-8812","title":"Card payment","url":"klivvr://card/1?a=b&c=d"},"android":{"priority":"HIGH","ttl":"3600s"}}}`,
		},
		"a category is not one that begins with the same letters": {
			Format{DataCategories: []string{"trans"}},
			with(func(p *whisperv1.Push) { p.Content.Url, p.Category = "", "transit" }),
			`{"message":{"token":"dQw4:APA91b-_x","data":{"category":"transit","id":"pay-8812"},"android":{"priority":"HIGH","ttl":"3600s",` +
				shown + `"tag":"pay-8812","channelId":"transit","notificationCount":1}}}}`,
		},
		"retraction": {
			Format{},
			with(func(p *whisperv1.Push) { p.Content, p.Retract = nil, true }),
			`{"message":{"token":"dQw4:APA91b-_x","data":{"id":"pay-8812","retracted":"true","tag":"pay-8812"},` +
				`"android":{"priority":"NORMAL","ttl":"3600s"}}}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := c.format.Body(c.push, noon)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestTTL(t *testing.T) {
	t.Parallel()
	for left, want := range map[time.Duration]string{
		time.Hour:               "3600s",
		1999 * time.Millisecond: "1s",
		500 * time.Millisecond:  "0s",
		-time.Hour:              "0s",
		400 * 24 * time.Hour:    "2419200s",
	} {
		if got := ttl(noon.Add(left).UnixMilli(), noon); got != want {
			t.Errorf("%s before the end: got %s, want %s", left, got, want)
		}
	}
	if got := ttl(0, noon); got != "" {
		t.Errorf("without an end: got %s", got)
	}
}

func TestWhatCannotBeAsked(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*whisperv1.Push)
		want   string
	}{
		"no token":        {func(p *whisperv1.Push) { p.Token = "" }, "malformed_token"},
		"a token with /":  {func(p *whisperv1.Push) { p.Token = "a/b" }, "malformed_token"},
		"a long token":    {func(p *whisperv1.Push) { p.Token = strings.Repeat("x", 10<<10) }, "malformed_token"},
		"a list as data":  {func(p *whisperv1.Push) { p.Content.Data = []byte(`[1]`) }, "malformed_data"},
		"no JSON as data": {func(p *whisperv1.Push) { p.Content.Data = []byte(`{`) }, "malformed_data"},
		"space as data":   {func(p *whisperv1.Push) { p.Content.Data = []byte(` `) }, "malformed_data"},
		"large data": {func(p *whisperv1.Push) {
			p.Content.Data = []byte(`{"a":"` + strings.Repeat("x", 4096) + `"}`)
		}, "payload_too_large"},
		"a large title": {func(p *whisperv1.Push) { p.Content.Title = strings.Repeat("x", 4096) }, "payload_too_large"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := pushOf("text")
			c.change(p)
			_, err := Format{}.Body(p, noon)
			if err == nil || refusal(err) != c.want {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

// read is a body as whoever counts its bytes reads it.
type read struct {
	Message struct {
		Data    map[string]string `json:"data"`
		Android struct {
			Notification map[string]any `json:"notification"`
		} `json:"android"`
	} `json:"message"`
}

func (r read) text() (body string, size int) {
	for key, value := range r.Message.Data {
		size += len(key) + len(value)
	}
	body = r.Message.Data["body"]
	for key, value := range r.Message.Android.Notification {
		text, is := value.(string)
		if size += len(key) + len(text); is && key == "body" {
			body = text
		}
	}
	return body, size
}

// A body that fits is whole. Another is the longest that fits, give or take what the sizes of keys may be, and ends where
// a character does.
func TestALongTextIsCutBetweenCharacters(t *testing.T) {
	t.Parallel()
	units := []string{"x", "one two ", "é", "e\u0301", "مَرْحَبًا ", "漢", "😀", "👍🏽", "👨‍👩‍👧‍👦", "🇪🇬", "น้ำ", `"`, "<&>", "\n", "\r\n"}
	rapid.Check(t, func(t *rapid.T) {
		var text strings.Builder
		for range rapid.IntRange(1, 12).Draw(t, "runs") {
			unit := rapid.SampledFrom(units).Draw(t, "unit")
			text.WriteString(strings.Repeat(unit, rapid.IntRange(1, 1600/len(unit)).Draw(t, "times")))
		}
		format := Format{}
		if rapid.Bool().Draw(t, "as data") {
			format.DataCategories = []string{"transactions"}
		}
		raw, err := format.Body(pushOf(text.String()), noon)
		if err != nil {
			t.Fatal(err)
		}
		var got read
		if err := json.Unmarshal(raw, &got); err != nil {
			t.Fatal(err)
		}
		body, size := got.text()
		if size > MaxPayloadBytes {
			t.Fatalf("%d bytes", size)
		}
		if body == text.String() {
			return
		}
		kept, was := strings.CutSuffix(body, ellipsis)
		if !was || !utf8.ValidString(kept) || !strings.HasPrefix(text.String(), kept) {
			t.Fatalf("%q is not a beginning of the text with an ellipsis", body)
		}
		after := text.String()[len(kept):]
		space := len(after) - len(strings.TrimLeftFunc(after, unicode.IsSpace))
		if size+space < MaxPayloadBytes-250 {
			t.Fatalf("%d bytes: too much was cut", size)
		}
		at := 0
		for g := uniseg.NewGraphemes(text.String()); at < len(kept) && g.Next(); {
			_, at = g.Positions()
		}
		if at != len(kept) {
			t.Fatalf("the cut is inside a character: %q", kept[max(0, len(kept)-20):])
		}
	})
}

func TestOneEndlessCharacterIsCutBetweenRunes(t *testing.T) {
	t.Parallel()
	if got := cut("e"+strings.Repeat("\u0301", 5000), 100); !utf8.ValidString(got) || len(got) == 0 || len(got) > 100 {
		t.Errorf("got %d bytes, valid: %t", len(got), utf8.ValidString(got))
	}
}

// FCM refuses messages whose data has keys that it uses itself. A notification's own data may have them all the same.
func TestNoDataMakesAReservedKey(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		own := rapid.MapOf(rapid.SampledFrom([]string{"from", "message_type", "google.x", "gcm.notification.y", "id", "z"}), rapid.String()).Draw(t, "data")
		p := pushOf("text")
		p.Content.Data, _ = json.Marshal(own)
		raw, err := Format{}.Body(p, noon)
		if err != nil {
			t.Fatal(err)
		}
		var got read
		if err := json.Unmarshal(raw, &got); err != nil {
			t.Fatal(err) // a value that is no string
		}
		for key := range got.Message.Data {
			if key == "from" || key == "message_type" || strings.HasPrefix(key, "google") || strings.HasPrefix(key, "gcm") {
				t.Fatalf("the data has the key %s", key)
			}
		}
		var back map[string]string
		if err := json.Unmarshal([]byte(got.Message.Data["data"]), &back); err != nil || got.Message.Data["id"] != "pay-8812" {
			t.Fatalf("the data came as %q, %v", got.Message.Data["data"], err)
		}
		for key, value := range own {
			if back[key] != strings.ToValidUTF8(value, "\ufffd") {
				t.Fatalf("%s came as %q", key, back[key])
			}
		}
	})
}

func TestRefusalWordsAreStable(t *testing.T) {
	t.Parallel()
	if got := refusal(errors.New("else")); got != "unencodable" {
		t.Errorf("got %s", got)
	}
}
