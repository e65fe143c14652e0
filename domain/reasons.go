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
	ReasonCancelled      = "cancelled"
	ReasonSegment        = "segment" // a broadcast had begun with the user, whom its segment does not mean any more

	// Reasons of the policy, in the order of the checks.
	ReasonPreference   = "preference"   // the user allows none of the channels
	ReasonUnsubscribed = "unsubscribed" // from the category as a whole
	ReasonQuietHours   = "quiet_hours"
	ReasonCap          = "cap"
	ReasonCollapsed    = "collapsed" // a newer one of the same collapse key came
	ReasonDigest       = "digest"    // gathered for one
	ReasonDigested     = "digested"  // told of in one
	ReasonSmartTiming  = "smart_timing"
	ReasonErased       = "erased"
	ReasonInternal     = "internal_error" // a decision about it met a bug of Whisper's; the dead letters have it
)

// PolicyReasons are the reasons for which the policy defers or suppresses a delivery.
var PolicyReasons = []string{
	ReasonPreference, ReasonUnsubscribed, ReasonQuietHours, ReasonCap, ReasonCollapsed, ReasonDigest, ReasonDigested,
	ReasonSmartTiming, ReasonErased,
}
