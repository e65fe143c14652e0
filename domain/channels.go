package domain

// The channels that exist.
const (
	ChannelSocket = "socket"
	ChannelPush   = "push" // whatever endpoints the user has
	ChannelAPNs   = "apns"
	ChannelFCM    = "fcm"
)

var (
	// All channels that the contract names, and those that this version can send over.
	ChannelNames     = AllChannels[:]
	AllChannels      = [...]string{ChannelSocket, ChannelPush, ChannelAPNs, ChannelFCM, "webpush", "email", "sms", "webhook"}
	ChannelsThatWork = []string{ChannelSocket, ChannelPush, ChannelAPNs, ChannelFCM}
	DefaultChannels  = []string{ChannelSocket, ChannelPush}
)

// PushChannels are the channels that have a push role. A profile may name endpoints of other channels; they are kept
// for a version that can reach them.
var PushChannels = []string{ChannelAPNs, ChannelFCM}
