package push_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/consumers/push"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// retracter is a fake that can take back.
type retracter struct {
	*fake
	answer func(p *whisperv1.Push) push.Result
}

func (r *retracter) Retract(_ context.Context, p *whisperv1.Push) push.Result { return r.answer(p) }

func retraction(i int) *whisperv1.Push {
	p := attempt(i)
	p.Content, p.Retract, p.Attempt = nil, true, 2
	return p
}

// TestARetractionHasItsOwnFact: what the provider took, refused, was never asked or can't, none of it an attempt of the
// delivery.
func TestARetractionHasItsOwnFact(t *testing.T) {
	t.Parallel()
	f := setup(t)
	results := []push.Result{
		{Status: 200, ProviderID: "id-0"},
		{Class: whisperv1.FailureClass_FAILURE_CLASS_RETRY, Reason: "TooManyRequests", Status: 429, RetryAfter: time.Minute},
		{Class: whisperv1.FailureClass_FAILURE_CLASS_PRUNE, Reason: "BadDeviceToken", Status: 400},
	}
	cfg := f.config()
	cfg.Provider = &retracter{f.provider, func(p *whisperv1.Push) push.Result {
		var i int
		_, _ = fmt.Sscanf(p.GetNotificationId(), "n-%d", &i) // attempt made it
		return results[i]
	}}
	events := f.follow(consumers.TopicEvents)
	f.start(cfg)
	late := retraction(3)
	late.ExpiresAtMs = time.Now().UnixMilli()
	for _, p := range []*whisperv1.Push{retraction(0), retraction(1), retraction(2), late} {
		f.produce(f.record(domain.High, p))
	}
	eventually(t, "all facts", func() bool { return len(events.all()) == 4 })
	facts := events.facts(t)
	taken := facts["n-0"][0].GetDeliveryRetracted()
	if taken.GetChannel() != "apns" || taken.GetProvider() != "fake" || taken.GetEndpoint() != "iphone" || taken.GetProviderId() != "id-0" || taken.GetNode() != "" {
		t.Errorf("got %v", facts["n-0"][0])
	}
	for id, want := range map[string]string{"n-1": "TooManyRequests", "n-2": "BadDeviceToken", "n-3": "expired"} {
		got := facts[id][0].GetRetractFailed()
		if got.GetReason() != want || got.GetAttempt() != 2 || got.GetEndpoint() != "iphone" || got.GetChannel() != "apns" {
			t.Errorf("%s: %v", id, facts[id][0])
		}
	}
	if k := facts["n-1"][0].GetRetractFailed(); k.GetClass() != results[1].Class || k.GetRetryAfterMs() != 60_000 {
		t.Errorf("got %v", k)
	}
	if facts["n-2"][0].GetRetractFailed().GetInvalidSinceMs() == 0 {
		t.Error("nothing says since when the endpoint is dead")
	}
	if facts["n-3"][0].GetRetractFailed().GetClass() != whisperv1.FailureClass_FAILURE_CLASS_EXPIRED {
		t.Errorf("got %v", facts["n-3"][0])
	}
	for metric, want := range map[string]uint64{
		`whisper_push_retractions_total{channel="apns",outcome="sent"}`:     1,
		`whisper_push_retractions_total{channel="apns",outcome="retry"}`:    1,
		`whisper_delivery_attempts_total{channel="apns",outcome="sent"}`:    0,
		`whisper_delivery_attempts_total{channel="apns",outcome="expired"}`: 0,
	} {
		if got := f.set.GetOrCreateCounter(metric).Get(); got != want {
			t.Errorf("%s is %d, want %d", metric, got, want)
		}
	}
	if n := f.provider.times("n-0"); n != 0 {
		t.Errorf("it was shown %d times", n)
	}
}

// TestAProviderThatCannotRetractShowsNothing: an attempt without content is never sent as a notification.
func TestAProviderThatCannotRetractShowsNothing(t *testing.T) {
	t.Parallel()
	f := setup(t)
	events := f.follow(consumers.TopicEvents)
	f.start(f.config())
	f.produce(f.record(domain.Low, retraction(1)))
	eventually(t, "the fact", func() bool { return len(events.all()) == 1 })
	got := events.facts(t)["n-1"][0].GetRetractFailed()
	if got.GetClass() != whisperv1.FailureClass_FAILURE_CLASS_DROP || got.GetReason() != "no_retract" || f.provider.times("n-1") != 0 {
		t.Errorf("got %v, shown %d times", got, f.provider.times("n-1"))
	}
}
