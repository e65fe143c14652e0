package profile

import (
	"slices"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

func TestProfileViewReadsWhatDecodingDoes(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(rapid.Just(""), rapid.StringN(0, 40, 300))
		p := &whisperv1.Profile{
			Locale: text.Draw(t, "locale"), Timezone: text.Draw(t, "timezone"),
			Attributes:  []byte(text.Draw(t, "attributes")),
			Preferences: []byte(text.Draw(t, "preferences")),
			QuietHours:  []byte(text.Draw(t, "quiet_hours")),
			// A varint, after all that is asked for.
			ChangesOffset: rapid.Int64().Draw(t, "offset"),
		}
		for range rapid.IntRange(0, 2).Draw(t, "endpoints") {
			p.Endpoints = append(p.Endpoints, &whisperv1.Endpoint{
				Name: "phone", Channel: rapid.SampledFrom([]string{"", domain.ChannelAPNs, "later"}).Draw(t, "channel"), Token: "t",
			})
		}
		encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		v := View(encoded)
		for _, f := range []struct{ name, got, want string }{
			{"locale", v.Locale(), p.GetLocale()},
			{"timezone", v.Timezone(), p.GetTimezone()},
			{"attributes", v.Attributes(), string(p.GetAttributes())},
			{"preferences", v.Preferences(), string(p.GetPreferences())},
			{"quiet_hours", v.QuietHours(), string(p.GetQuietHours())},
		} {
			if f.got != f.want {
				t.Fatalf("%s is %q, want %q", f.name, f.got, f.want)
			}
		}
		if v.Reachable() != (len(p.GetEndpoints()) > 0) {
			t.Fatalf("reachable is %v with %d endpoints", v.Reachable(), len(p.GetEndpoints()))
		}
		channels := []string{}
		for _, e := range p.GetEndpoints() {
			if !slices.Contains(channels, e.GetChannel()) {
				channels = append(channels, e.GetChannel())
			}
		}
		if !slices.Equal(v.Channels(), channels) {
			t.Fatalf("the channels are %q, want %q", v.Channels(), channels)
		}
		for _, channel := range []string{"", domain.ChannelAPNs, "later"} {
			if v.HasChannel(channel) != slices.Contains(channels, channel) {
				t.Fatalf("HasChannel(%q) is %v with %q", channel, v.HasChannel(channel), channels)
			}
		}
	})
}

// Whatever the bytes are, reading ends and stays within them.
func TestProfileViewSurvivesAnything(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		v := View(rapid.SliceOfN(rapid.Byte(), 0, 64).Draw(t, "bytes"))
		for number := range fieldEndpoints + 1 {
			if got := v.Field(protowire.Number(number)); len(got) > len(v) {
				t.Fatalf("%d bytes of %d", len(got), len(v))
			}
		}
	})
}
