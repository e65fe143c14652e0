package profile

import (
	"strings"
	"testing"

	"github.com/klivvr/whisper/domain"
)

func TestPreferences(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		preferences, category, denied string
		unsubscribed                  bool
	}{
		"nothing said":                        {``, "marketing", "", false},
		"of another category":                 {`{"news":{"apns":false}}`, "marketing", "", false},
		"of one that begins alike":            {`{"market":{"apns":false},"marketing2":{"socket":false}}`, "marketing", "", false},
		"one channel":                         {`{"marketing":{"apns":false,"socket":true}}`, "marketing", "apns", false},
		"each channel of push":                {`{"marketing":{"apns":false,"fcm":false}}`, "marketing", "apns fcm push", false},
		"push stands for all of them":         {`{"marketing":{"push":false}}`, "marketing", "apns push fcm webpush", false},
		"a channel goes before push":          {`{"marketing":{"apns":true,"push":false}}`, "marketing", "fcm webpush", false},
		"in any order":                        {`{"marketing":{"push":false,"apns":true}}`, "marketing", "fcm webpush", false},
		"of a parent":                         {`{"marketing":{"socket":false}}`, "marketing.cards.gold", "socket", false},
		"the child goes before the parent":    {`{"marketing":{"socket":false},"marketing.cards":{"socket":true}}`, "marketing.cards.gold", "", false},
		"push of the child before the parent": {`{"marketing":{"apns":false},"marketing.cards":{"push":true}}`, "marketing.cards", "", false},
		"null says nothing":                   {`{"marketing":{"socket":null},"news":null}`, "marketing", "", false},
		"unsubscribed":                        {`{"marketing":{"all":false}}`, "marketing", "", true},
		"unsubscribed from the parent":        {`{"marketing":{"all":false},"marketing.cards":{"apns":true,"all":true}}`, "marketing.cards", "", true},
		"unsubscribed, whatever else is said": {`{"marketing":{"all":false,"apns":true,"push":true,"socket":true}}`, "marketing", "", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			denied, unsubscribed := ReadDenied(c.preferences, c.category)
			if unsubscribed != c.unsubscribed {
				t.Fatalf("unsubscribed: %v", unsubscribed)
			}
			if unsubscribed {
				return
			}
			var want ChannelMask
			for _, channel := range domain.ChannelNames {
				for _, word := range strings.Fields(c.denied) {
					if word == channel {
						want |= ChannelBit(channel)
					}
				}
			}
			if denied != want {
				t.Errorf("denied %08b, want %08b", denied, want)
			}
		})
	}
}
