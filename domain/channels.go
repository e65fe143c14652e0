package domain

// The channels that exist.
const (
	ChannelSocket = "socket"
	ChannelPush   = "push" // whatever endpoints the user has
	ChannelAPNs   = "apns"
)

var (
	// The vocabulary of the contract, and what of it this version can do.
	ChannelNames     = AllChannels[:]
	AllChannels      = [...]string{ChannelSocket, ChannelPush, ChannelAPNs, "fcm", "webpush", "email", "sms", "webhook"}
	ChannelsThatWork = []string{ChannelSocket, ChannelPush, ChannelAPNs}
	DefaultChannels  = []string{ChannelSocket, ChannelPush}
)

// PushChannels are the channels that have a push role. A profile may name endpoints of others, which
// wait for a version that can reach them.
var PushChannels = []string{ChannelAPNs}
