package push

import (
	"context"
	"time"

	"github.com/klivvr/whisper/domain/whisperv1"
)

// A Provider hands attempts to one push network. The role knows nothing else of it, so a new channel
// is a new Provider.
type Provider interface {
	// Channel is the channel it serves: the middle of the name of its topics.
	Channel() string
	// Name is the provider in facts.
	Name() string
	// Send makes one attempt and says what came of it. It is called from many goroutines at once, and
	// never for an attempt whose time is over. It bounds itself in time; where ctx ends first it
	// returns at once, and the role then forgets the answer: Kafka hands the record out again.
	Send(ctx context.Context, p *whisperv1.Push) Result
	// Ready says why nothing can be sent (a refused credential), or nil. A provider that is merely
	// down is ready: its attempts are told to be tried again.
	Ready() error
	// Close ends what Send left open. No Send may follow.
	Close()
}

// A Retracter is a Provider that can take back what it showed, without showing anything. Of others the role says that
// they can't: DROP, no_retract.
type Retracter interface {
	// Retract makes one attempt to take p's notification back; p has no content. All else is as for Send.
	Retract(ctx context.Context, p *whisperv1.Push) Result
}

// Result is what came of one attempt. The zero Class means that the provider took it.
type Result struct {
	Class whisperv1.FailureClass
	// Reason is the provider's own word, or ours; empty where it was taken.
	Reason string
	// Status is the provider's status code, 0 where nothing was asked or no answer came.
	Status int
	// ProviderID is the provider's own id of the attempt.
	ProviderID string
	// RetryAfter is how long dispatch is to wait at least; 0: its own schedule.
	RetryAfter time.Duration
	// InvalidSince is when the provider noticed that the endpoint is dead. Where Class is PRUNE and
	// the provider gives no time, the role uses the time of the record: an endpoint that was
	// registered after dispatch had read the token is a newer one.
	InvalidSince time.Time
	// Bug asks for a dead letter beside the fact: the provider calls the request itself malformed, so
	// it is ours to mend.
	Bug bool
}

// Sent says whether the provider took it.
func (r Result) Sent() bool {
	return r.Class == whisperv1.FailureClass_FAILURE_CLASS_UNSPECIFIED
}
