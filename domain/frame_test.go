package domain_test

import (
	"encoding/json"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// TestAFrameIsWhatEncodingJSONMakesOfIt, byte for byte.
func TestAFrameIsWhatEncodingJSONMakesOfIt(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"", "a<b>&c", "line\u2028separator\u2029", "مرحبا", "\xff\xfe", "\"\\\n", "€ –"}))
		ms := rapid.Int64Range(0, 4_000_000_000_000)
		acc := &whisperv1.DeliveryAccepted{Category: text.Draw(t, "category"), AcceptedAtMs: ms.Draw(t, "at"), ExpiresAtMs: ms.Draw(t, "expires")}
		content := &whisperv1.Content{
			Title: text.Draw(t, "title"), Body: text.Draw(t, "body"), Url: text.Draw(t, "url"), Image: text.Draw(t, "image"),
			Data: rapid.SampledFrom([][]byte{nil, []byte(`{ "a": "<", "b": [1, 2] }`), []byte("{}")}).Draw(t, "data"),
		}
		note := text.Draw(t, "note")
		got, err := domain.NotificationFrame(note, domain.Normal, acc, content)
		if err != nil {
			t.Fatal(err)
		}
		want, err := json.Marshal(domain.Frame{
			Type: "notification", ID: note, Lane: "normal", Category: acc.GetCategory(),
			Title: content.GetTitle(), Body: content.GetBody(), URL: content.GetUrl(), Image: content.GetImage(), Data: content.GetData(),
			At: time.UnixMilli(acc.GetAcceptedAtMs()).UTC(), ExpiresAt: time.UnixMilli(acc.GetExpiresAtMs()).UTC(),
			Receipt: domain.Receipt(domain.NewDeliveryID(time.UnixMilli(acc.GetAcceptedAtMs()), domain.DeliveryHash{})),
		})
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != string(want) {
			t.Fatalf("\n got %s\nwant %s", got, want)
		}
	})
}
