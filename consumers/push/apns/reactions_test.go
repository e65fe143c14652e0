package apns

import (
	"context"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/klivvr/whisper/consumers/push/apns/simulator"
	"github.com/klivvr/whisper/consumers/push/gate"
	"github.com/klivvr/whisper/domain/whisperv1"
)

func TestRefusedCredentialStopsUntilAProbeIsTaken(t *testing.T) {
	t.Parallel()
	f := setup(t)
	if r := f.send(t, device(0)); !r.Sent() {
		t.Fatalf("got %+v", r)
	}
	f.sim.Program("", 0, simulator.Answer{Status: 403, Reason: "InvalidProviderToken"})
	f.send(t, device(1))
	asked := f.sim.Counts().Refused["InvalidProviderToken"]
	for range 5 {
		r := f.send(t, device(2))
		if r.Class != stop || r.Reason != "stopped:InvalidProviderToken" || r.Status != 0 || r.RetryAfter <= 0 || r.RetryAfter > 5*time.Minute {
			t.Fatalf("got %+v", r)
		}
	}
	if f.sim.Counts().Refused["InvalidProviderToken"] != asked || asked != 1 {
		t.Error("APNs was asked with a refused credential")
	}
	if f.Ready() == nil || f.watch.Stopped.Get() != 1 {
		t.Error("nobody hears of it")
	}
	f.clock.advance(6 * time.Minute)
	if r := f.send(t, device(3)); r.Class != stop || r.Status != 403 {
		t.Fatalf("the probe: %+v", r)
	}
	f.sim.Forget("")
	if r := f.send(t, device(4)); r.Class != stop || r.Status != 0 {
		t.Fatalf("right after the probe: %+v", r)
	}
	f.clock.advance(6 * time.Minute)
	for range 3 {
		if r := f.send(t, device(5)); !r.Sent() {
			t.Fatalf("after the mending: %+v", r)
		}
	}
	if f.Ready() != nil || f.watch.Stopped.Get() != 0 {
		t.Error("still stopped")
	}
}

func TestRefusedTopicStopsOnlyItself(t *testing.T) {
	t.Parallel()
	f := setup(t, func(_ *Config, s *simulator.Config) { s.Topics = []string{"com.klivvr.app"} })
	other := attemptTo(device(1))
	other.App = "com.klivvr.other"
	for i, reason := range []string{"TopicDisallowed", "stopped:TopicDisallowed"} {
		if r := f.Send(t.Context(), other); r.Class != stop || r.Reason != reason {
			t.Fatalf("attempt %d: %+v", i, r)
		}
	}
	if r := f.send(t, device(2)); !r.Sent() || f.Ready() != nil {
		t.Errorf("another topic: %+v, %v", r, f.Ready())
	}
}

func TestExpiredProviderTokenIsRefreshed(t *testing.T) {
	t.Parallel()
	f := setup(t)
	// 25 minutes into a slot.
	now := f.clock.now()
	f.clock.advance(now.Truncate(tokenSlot).Add(tokenSlot + 25*time.Minute).Sub(now))
	f.sim.Program("", 1, simulator.Answer{Status: 403, Reason: "ExpiredProviderToken"})
	if r := f.send(t, device(1)); !r.Sent() {
		t.Fatalf("got %+v", r)
	}
	if f.Ready() != nil {
		t.Error(f.Ready())
	}
}

// Of an attempt that expires while it has a new token made, nobody knows whether that one is refused as well.
func TestWhatExpiresBeforeItsSecondTryStopsNothing(t *testing.T) {
	t.Parallel()
	f := setup(t)
	now := f.clock.now()
	f.clock.advance(now.Truncate(tokenSlot).Add(tokenSlot + 25*time.Minute).Sub(now))
	f.send(t, device(1))
	f.sim.Program("", 1, simulator.Answer{Status: 403, Reason: "ExpiredProviderToken", Delay: 200 * time.Millisecond})
	p := attemptTo(device(1))
	p.ExpiresAtMs = f.clock.now().Add(150 * time.Millisecond).UnixMilli()
	if r := f.Send(t.Context(), p); r.Class != whisperv1.FailureClass_FAILURE_CLASS_EXPIRED {
		t.Errorf("got %+v", r)
	}
	if r := f.send(t, device(2)); !r.Sent() || f.Ready() != nil {
		t.Errorf("afterwards: %+v, %v", r, f.Ready())
	}
}

func TestAYoungTokenThatIsExpiredMeansAWrongClock(t *testing.T) {
	t.Parallel()
	f := setup(t)
	now := f.clock.now()
	f.clock.advance(now.Truncate(tokenSlot).Add(tokenSlot + 5*time.Minute).Sub(now))
	f.sim.Program("", 0, simulator.Answer{Status: 403, Reason: "ExpiredProviderToken"})
	if r := f.send(t, device(1)); r.Class != stop || f.Ready() == nil || !f.logs.has("clock") {
		t.Errorf("got %+v", r)
	}
}

func TestTokensRollOver(t *testing.T) {
	t.Parallel()
	f := setup(t)
	for range 30 { // five hours; the simulator refuses tokens too old, too new and too many
		if r := f.send(t, device(1)); !r.Sent() {
			t.Fatalf("got %+v", r)
		}
		f.clock.advance(10 * time.Minute)
	}
}

func TestSpikeOfBadTokensPrunesNothing(t *testing.T) {
	t.Parallel()
	f := setup(t)
	for i := range 100 {
		if r := f.send(t, device(i)); !r.Sent() {
			t.Fatalf("got %+v", r)
		}
	}
	if r := f.send(t, "bad-one"); r.Class != prune {
		t.Fatalf("one bad token: %+v", r)
	}
	for i := range 30 {
		r := f.send(t, "bad-another")
		if want := prune; i < 23 && r.Class != want || i >= 25 && r.Class != drop {
			t.Fatalf("bad token %d: %+v", i, r)
		}
	}
	if !f.logs.has("none is forgotten") || f.counter(`whisper_push_prune_suspended_total{provider="apns"}`) == 0 {
		t.Error("nobody hears of it")
	}
	if r := f.send(t, "gone-phone"); r.Class != prune {
		t.Errorf("a 410 is Apple's own word and stays: %+v", r)
	}
	f.clock.advance(12 * time.Minute)
	f.send(t, device(1))
	if r := f.send(t, "bad-one"); r.Class != prune {
		t.Errorf("long after: %+v", r)
	}
}

func TestBreaker(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.sim.Program("", 0, simulator.Answer{Status: 503, Reason: "ServiceUnavailable"})
	for i := range gate.Streak {
		if r := f.send(t, device(i)); r.Class != retry || r.RetryAfter != 15*time.Minute {
			t.Fatalf("got %+v", r)
		}
	}
	asked := f.sim.Counts().Refused["ServiceUnavailable"]
	for range 10 {
		r := f.send(t, device(1))
		if r.Class != retry || r.Reason != "breaker:ServiceUnavailable" || r.RetryAfter <= 0 || r.RetryAfter > time.Minute {
			t.Fatalf("got %+v", r)
		}
	}
	if f.sim.Counts().Refused["ServiceUnavailable"] != asked {
		t.Error("APNs was asked while the breaker was open")
	}
	f.clock.advance(31 * time.Second)
	if r := f.send(t, device(1)); r.Status != 503 {
		t.Fatalf("the probe: %+v", r)
	}
	if r := f.send(t, device(1)); r.Status != 0 {
		t.Fatalf("after a failed probe: %+v", r)
	}
	f.sim.Forget("")
	f.clock.advance(31 * time.Second)
	for range 3 {
		if r := f.send(t, device(1)); !r.Sent() {
			t.Fatalf("after it came back: %+v", r)
		}
	}
	if f.watch.Breaker.Get() != 0 {
		t.Error("still open")
	}
}

func TestManyAtOnceKeepToFewConnections(t *testing.T) {
	t.Parallel()
	for name, streams := range map[string]uint32{"as many streams as APNs gives": 1000, "fewer streams than we use": 20, "one stream": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := setup(t, func(c *Config, s *simulator.Config) { s.MaxConcurrentStreams = streams; s.Latency = time.Millisecond })
			var wg sync.WaitGroup
			for i := range 300 {
				wg.Go(func() {
					if r := f.send(t, device(i)); !r.Sent() {
						t.Errorf("got %+v", r)
					}
				})
			}
			wg.Wait()
			c := f.sim.Counts()
			if c.Connections > 2 || c.Accepted != 300 {
				t.Errorf("%d connections for %d pushes", c.Connections, c.Accepted)
			}
		})
	}
}

func TestGoAwayInTheMiddleLosesNothing(t *testing.T) {
	t.Parallel()
	f := setup(t, func(_ *Config, s *simulator.Config) { s.Latency = 2 * time.Millisecond })
	var wg sync.WaitGroup
	for worker := range 20 {
		wg.Go(func() {
			for i := range 30 {
				if worker == 0 && i%10 == 9 {
					f.sim.Disconnect()
				}
				r := f.send(t, device(i))
				// Who meets two goodbyes, one with each try, certainly reached nobody: dispatch asks again.
				for again := 0; again < 3 && r.Class == retry && r.Status == 0; again++ {
					r = f.send(t, device(i))
				}
				if !r.Sent() {
					t.Errorf("got %+v", r)
				}
			}
		})
	}
	wg.Wait()
}

func TestLanesShareNoConnection(t *testing.T) {
	t.Parallel()
	f := setup(t, func(c *Config, _ *simulator.Config) { c.Connections, c.Streams = 1, 2 })
	f.sim.Program("low", 0, simulator.Answer{Fault: simulator.Silent})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			p := attemptTo("low")
			p.Lane = 3
			f.Send(t.Context(), p)
		})
	}
	for f.sim.Counts().Unanswered == 0 {
		if r := f.send(t, device(1)); !r.Sent() {
			t.Fatalf("got %+v", r)
		}
	}
	for range 20 {
		if r := f.send(t, device(1)); !r.Sent() {
			t.Fatalf("high waits for low: %+v", r)
		}
	}
	f.Close()
	wg.Wait()
}

func TestACancelledAttemptReturnsAtOnceAndChangesNothing(t *testing.T) {
	t.Parallel()
	f := setup(t, func(c *Config, _ *simulator.Config) { c.RequestTimeout = time.Hour })
	f.sim.Program("", 0, simulator.Answer{Fault: simulator.Silent})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for i := range 2 * gate.Streak {
		wg.Go(func() {
			if r := f.Send(ctx, attemptTo(device(i))); r.Sent() || r.Reason != "abandoned" {
				t.Errorf("got %+v", r)
			}
		})
	}
	for f.sim.Counts().Unanswered == 0 {
		runtime.Gosched()
	}
	cancel()
	wg.Wait()
	if f.watch.Breaker.Get() != 0 || f.guard.Failures() != 0 {
		t.Error("giving up counts as APNs's failure")
	}
}
