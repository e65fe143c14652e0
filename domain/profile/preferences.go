package profile

import (
	"strings"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/record"
)

// PreferAll is the name that stands for all channels of a category, including those of versions to come: false is an
// unsubscribe. It is a name of its own, so that a patch about single channels, as apps send them, does not change it.
const PreferAll = "all"

// ChannelMask is a set of channels: a bit for each index in domain.ChannelNames.
type ChannelMask uint16

// ChannelBit is the bit of a channel. An unknown channel has none, and is never denied.
func ChannelBit(channel string) ChannelMask {
	for i, name := range domain.ChannelNames {
		if name == channel {
			return 1 << i
		}
	}
	return 0
}

// Has reports whether the channel is in the set. An unknown channel never is.
func (m ChannelMask) Has(channel string) bool { return m&ChannelBit(channel) != 0 }

// ReadDenied returns which channels a user refuses for a category, and whether the user unsubscribed from the whole
// category. A preference for transactions.card goes before one for transactions. Within one of them, a preference for a
// channel goes before one for push. An unsubscribe from either counts.
func ReadDenied(preferences, category string) (denied ChannelMask, unsubscribed bool) {
	if preferences == "" {
		return 0, false
	}
	// How precisely the preferences name each channel, and push as a whole, and what they say.
	var depths [len(domain.AllChannels)]int8
	var says ChannelMask
	c := record.NewCursor(preferences)
	for key, raw, ok := c.Member(); ok; key, raw, ok = c.Member() {
		depth := speaksOf(key, category)
		if depth == 0 || raw == "" || raw[0] != '{' {
			continue
		}
		channels := record.NewCursor(raw)
		for key, raw, ok := channels.Member(); ok; key, raw, ok = channels.Member() {
			if key == `"`+PreferAll+`"` {
				unsubscribed = unsubscribed || raw == "false"
				continue
			}
			for i, name := range domain.ChannelNames {
				if len(key) != len(name)+2 || key[1:len(key)-1] != name || raw == "null" || depth <= depths[i] {
					continue
				}
				depths[i] = depth
				if says &^= 1 << i; raw == "false" {
					says |= 1 << i
				}
			}
		}
	}
	if unsubscribed {
		return ^ChannelMask(0), true
	}
	return says.spread(depths), false
}

// spread gives what is said of push to the channels that push stands for.
func (says ChannelMask) spread(depths [len(domain.AllChannels)]int8) ChannelMask {
	denied := says
	const push = 1 // its place in AllChannels, before those that it stands for
	for i := push + 1; i <= push+len(domain.DeviceChannels); i++ {
		if depths[push] > depths[i] {
			if denied &^= 1 << i; says&(1<<push) != 0 {
				denied |= 1 << i
			}
		}
	}
	// Push as a whole is denied if each of its channels is.
	denied |= 1 << push
	for _, channel := range domain.PushChannels {
		if !denied.Has(channel) {
			denied &^= 1 << push
		}
	}
	return denied
}

// speaksOf says how precisely the name of a preference, as written, names a category: 0 if it does not, else the number
// of its parts.
func speaksOf(key, category string) int8 {
	name := key[1 : len(key)-1]
	if len(name) > len(category) || category[:len(name)] != name || len(name) < len(category) && category[len(name)] != '.' {
		return 0
	}
	return int8(1 + strings.Count(name, "."))
}
