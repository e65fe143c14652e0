package domain

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
