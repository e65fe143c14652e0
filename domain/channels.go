package domain

// Channels, in the words of the contract. `push` stands for whatever endpoints the user has.
const (
	ChannelSocket = "socket"
	ChannelPush   = "push"
	ChannelAPNs   = "apns"
)

// Reasons of facts, as analysts see them.
const (
	ReasonAway           = "away"
	ReasonUnacknowledged = "unacknowledged"
	ReasonRetry          = "retry"
	ReasonNoEndpoint     = "no_endpoint"
	ReasonUnknownUser    = "unknown_user"
	ReasonDuplicate      = "duplicate"
	ReasonTTL            = "ttl"
)
