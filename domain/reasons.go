package domain

// PushChannels are the channels that have a push role. A profile may name endpoints of others, which
// wait for a version that can reach them.
var PushChannels = []string{ChannelAPNs}

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
