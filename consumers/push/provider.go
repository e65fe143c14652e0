package push

import (
	"context"
	"time"

	"github.com/klivvr/whisper/domain/whisperv1"
)

// A Provider hands attempts to one push network. The role knows nothing else about the network, so a new channel is a
// new Provider.
type Provider interface {
	// Channel is the channel that it serves; it is part of the names of its topics.
	Channel() string
	// Name is the provider's name in facts.
	Name() string
	// Send makes one attempt and returns its result. It is called from many goroutines at once, never for an attempt
	// that has expired. It has a time limit of its own. If ctx ends first it returns at once, and the role ignores the
	// result: Kafka hands the record out again.
	Send(ctx context.Context, p *whisperv1.Push) Result
	// Ready returns why nothing can be sent (a refused credential), or nil. A provider that is only down is ready: its
	// attempts are to be retried.
	Ready() error
	// Close closes connections. Send must not be called after it.
	Close()
}

// A Retracter is a Provider that can remove a notification from a device without showing anything. For other providers
// the role answers DROP, no_retract.
type Retracter interface {
	// Retract makes one attempt to remove p's notification; p has no content. Otherwise it is like Send.
	Retract(ctx context.Context, p *whisperv1.Push) Result
}

// Result is the result of one attempt. The zero Class means that the provider accepted it.
type Result struct {
	Class whisperv1.FailureClass
	// Reason is the provider's own word, or ours; empty if it accepted the attempt.
	Reason string
	// Status is the provider's status code; 0 if it was not asked or did not answer.
	Status int
	// ProviderID is the provider's own id of the attempt.
	ProviderID string
	// RetryAfter is the least time until the next attempt; 0 leaves it to dispatch's schedule.
	RetryAfter time.Duration
	// InvalidSince is when the provider noticed that the endpoint is dead. If Class is PRUNE and the provider gives no
	// time, the role uses the time of the record, because an endpoint that was registered after dispatch read the token
	// is a newer one.
	InvalidSince time.Time
	// Bug asks for a dead letter beside the fact: the provider says that the request is malformed, which is a bug of
	// Whisper.
	Bug bool
}

// Retract makes one attempt to remove a notification, or answers for a provider that can't.
func Retract(ctx context.Context, by Provider, p *whisperv1.Push) Result {
	if retracter, can := by.(Retracter); can {
		return retracter.Retract(ctx, p)
	}
	return Result{Class: whisperv1.FailureClass_FAILURE_CLASS_DROP, Reason: "no_retract"}
}

// Expired is the result of an attempt whose time is over by now, which must not be made; nil for every other.
func Expired(p *whisperv1.Push, now time.Time) *Result {
	if ms := p.GetExpiresAtMs(); ms <= 0 || now.UnixMilli() < ms {
		return nil
	}
	return &Result{Class: whisperv1.FailureClass_FAILURE_CLASS_EXPIRED, Reason: "expired"}
}

// Sent says whether the provider accepted the attempt.
func (r Result) Sent() bool {
	return r.Class == whisperv1.FailureClass_FAILURE_CLASS_UNSPECIFIED
}
