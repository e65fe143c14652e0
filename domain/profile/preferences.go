package profile

import (
	"strings"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/record"
)

// PreferAll stands for all channels of a category, those included that a version to come will have: false
// is an unsubscribe. It is a name of its own, so that a patch about single channels, as apps send them,
// leaves it as it is.
const PreferAll = "all"

// ChannelMask is a set of channels, by their place in ChannelNames.
type ChannelMask uint16

// ChannelBit is the channel's own; an unknown one has none and is never denied.
func ChannelBit(channel string) ChannelMask {
	for i, name := range domain.ChannelNames {
		if name == channel {
			return 1 << i
		}
	}
	return 0
}

// Has says whether the channel is in the set; an unknown one never is.
func (m ChannelMask) Has(channel string) bool { return m&ChannelBit(channel) != 0 }

// ReadDenied is which channels a user does not want for a category, and whether the user unsubscribed from
// it as a whole. What is said of transactions.card goes before what is said of transactions; within one of
// them, what is said of a channel goes before what is said of push. An unsubscribe of either stands.
func ReadDenied(preferences, category string) (denied ChannelMask, unsubscribed bool) {
	if preferences == "" {
		return 0, false
	}
	// How precisely something is said of each channel, and of push as a whole, and what.
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

// spread gives what is said of push to the channels that it stands for.
func (says ChannelMask) spread(depths [len(domain.AllChannels)]int8) ChannelMask {
	denied := says
	const push, last = 1, 4 // places in ChannelNames: push, then apns, fcm and webpush
	for i := push + 1; i <= last; i++ {
		if depths[push] > depths[i] {
			if denied &^= 1 << i; says&(1<<push) != 0 {
				denied |= 1 << i
			}
		}
	}
	// Push as a whole is denied where each of its channels is.
	denied |= 1 << push
	for _, channel := range domain.PushChannels {
		if !denied.Has(channel) {
			denied &^= 1 << push
		}
	}
	return denied
}

// speaksOf is how precisely a preference's name, as written, speaks of a category: 0 not at all, then the
// number of its parts.
func speaksOf(key, category string) int8 {
	name := key[1 : len(key)-1]
	if len(name) > len(category) || category[:len(name)] != name || len(name) < len(category) && category[len(name)] != '.' {
		return 0
	}
	return int8(1 + strings.Count(name, "."))
}
