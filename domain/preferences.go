package domain

import "strings"

// PreferAll stands for all channels of a category, those included that a version to come will have: false
// is an unsubscribe. It is a name of its own, so that a patch about single channels, as apps send them,
// leaves it as it is.
const PreferAll = "all"

// channelMask is a set of channels, by their place in channelNames.
type channelMask uint16

// channelBit is the channel's own; an unknown one has none and is never denied.
func channelBit(channel string) channelMask {
	for i, name := range channelNames {
		if name == channel {
			return 1 << i
		}
	}
	return 0
}

func (m channelMask) has(channel string) bool { return m&channelBit(channel) != 0 }

// readDenied is which channels a user does not want for a category, and whether the user unsubscribed from
// it as a whole. What is said of transactions.card goes before what is said of transactions; within one of
// them, what is said of a channel goes before what is said of push. An unsubscribe of either stands.
func readDenied(preferences, category string) (denied channelMask, unsubscribed bool) {
	if preferences == "" {
		return 0, false
	}
	// How precisely something is said of each channel, and of push as a whole, and what.
	var depths [len(namedChannels)]int8
	var says channelMask
	c := newCursor(preferences)
	for key, raw, ok := c.member(); ok; key, raw, ok = c.member() {
		depth := speaksOf(key, category)
		if depth == 0 || raw == "" || raw[0] != '{' {
			continue
		}
		channels := newCursor(raw)
		for key, raw, ok := channels.member(); ok; key, raw, ok = channels.member() {
			if key == `"`+PreferAll+`"` {
				unsubscribed = unsubscribed || raw == "false"
				continue
			}
			for i, name := range channelNames {
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
		return ^channelMask(0), true
	}
	return says.spread(depths), false
}

// spread gives what is said of push to the channels that it stands for.
func (says channelMask) spread(depths [len(namedChannels)]int8) channelMask {
	denied := says
	const push, last = 1, 4 // places in channelNames: push, then apns, fcm and webpush
	for i := push + 1; i <= last; i++ {
		if depths[push] > depths[i] {
			if denied &^= 1 << i; says&(1<<push) != 0 {
				denied |= 1 << i
			}
		}
	}
	// Push as a whole is denied where each of its channels is.
	denied |= 1 << push
	for _, channel := range PushChannels {
		if !denied.has(channel) {
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
