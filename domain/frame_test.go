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
		text := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{
			"", "a<b>&c", "line\u2028separator\u2029", "مرحبا", "\xff\xfe", "\"\\\n",
			"€ –",
		}))
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

// BenchmarkNotificationFrame compares the frame that is written by hand with encoding/json's, for the same bytes.
func BenchmarkNotificationFrame(b *testing.B) {
	acc := &whisperv1.DeliveryAccepted{Category: "transactions.card", AcceptedAtMs: 1_764_000_000_000, ExpiresAtMs: 1_764_086_400_000}
	for name, data := range map[string]string{"text": "", "text and data": `{"card":"4417"}`} {
		content := &whisperv1.Content{Title: "Card payment", Body: "You paid EGP 120.50 at Cilantro", Url: "app://cards/4417", Data: []byte(data)}
		b.Run(name+"/by hand", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := domain.NotificationFrame("pay-8812", domain.Normal, acc, content); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/encoding json", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := json.Marshal(domain.Frame{
					Type: "notification", ID: "pay-8812", Lane: "normal", Category: acc.GetCategory(),
					Title: content.GetTitle(), Body: content.GetBody(), URL: content.GetUrl(), Data: content.GetData(),
					At: time.UnixMilli(acc.GetAcceptedAtMs()).UTC(), ExpiresAt: time.UnixMilli(acc.GetExpiresAtMs()).UTC(),
					Receipt: domain.Receipt(domain.NewDeliveryID(time.UnixMilli(acc.GetAcceptedAtMs()), domain.DeliveryHash{})),
				}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
