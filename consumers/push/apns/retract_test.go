package apns

import (
	"strings"
	"testing"
	"time"

	"github.com/klivvr/whisper/consumers/push/apns/simulator"
	"github.com/klivvr/whisper/domain/whisperv1"
)

func retractionTo(token string) *whisperv1.Push {
	p := attemptTo(token)
	p.Content, p.Category, p.CollapseKey, p.Endpoint, p.Retract = nil, "", "", "iphone", true
	return p
}

func TestARetractionIsABackgroundPush(t *testing.T) {
	t.Parallel()
	f := setup(t)
	p := retractionTo(device(1))
	p.ExpiresAtMs = f.clock.now().Add(24 * time.Hour).UnixMilli()
	p.CollapseKey = "card-4417" // a newer notification's, too
	r := f.Retract(t.Context(), p)
	if !r.Sent() || r.ProviderID != retractID(p.DeliveryId, "iphone") {
		t.Fatalf("got %+v", r)
	}
	got := f.sim.Received()[0]
	if got.PushType != "background" || got.Priority != 5 || got.CollapseID != "pay-8812" || got.Topic != "com.klivvr.app" ||
		got.Expiration != p.ExpiresAtMs/1000 || got.ApnsID != r.ProviderID || got.Token != p.Token {
		t.Errorf("got %+v", got)
	}
	if want := `{"aps":{"content-available":1},"id":"pay-8812","retracted":true}`; string(got.Payload) != want {
		t.Errorf("got  %s\nwant %s", got.Payload, want)
	}
}

// TestAllAttemptsToRetractShareAnID: whichever attempt it is, and not that of any attempt which shows.
func TestAllAttemptsToRetractShareAnID(t *testing.T) {
	t.Parallel()
	cfg := Config{}
	p := retractionTo(device(1))
	first, err := cfg.request(p)
	if err != nil {
		t.Fatal(err)
	}
	p.Attempt = 7
	again, _ := cfg.request(p)
	p.Endpoint = "ipad"
	other, _ := cfg.request(p)
	p.Endpoint, p.Retract, p.Attempt = "iphone", false, 1
	shown, _ := cfg.request(p)
	if first.ApnsID != again.ApnsID || first.ApnsID == other.ApnsID || first.ApnsID == shown.ApnsID {
		t.Errorf("got %s, %s, %s, %s", first.ApnsID, again.ApnsID, other.ApnsID, shown.ApnsID)
	}
	p.Retract, p.NotificationId = true, strings.Repeat("\"", 128)
	long, err := cfg.request(p)
	if body, _ := long.Payload.([]byte); err != nil || len(body) > MaxPayloadBytes || len(long.CollapseID) != 64 {
		t.Errorf("got %+v, %v", long, err)
	}
}

func TestARetractionIsClassifiedAsAnyPush(t *testing.T) {
	t.Parallel()
	f := setup(t)
	since := time.UnixMilli(1_790_000_000_123)
	f.sim.Program(device(1), 1, simulator.Answer{Status: 410, Reason: "Unregistered", Timestamp: since})
	if r := f.Retract(t.Context(), retractionTo(device(1))); r.Class != prune || !r.InvalidSince.Equal(since) {
		t.Errorf("got %+v", r)
	}
	f.sim.Program(device(1), 1, simulator.Answer{Status: 429, Reason: "TooManyRequests"})
	if r := f.Retract(t.Context(), retractionTo(device(1))); r.Class != retry || r.RetryAfter != deviceDelay {
		t.Errorf("got %+v", r)
	}
}
