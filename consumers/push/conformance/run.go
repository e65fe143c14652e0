package conformance

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klivvr/whisper/consumers/push"
	"github.com/klivvr/whisper/consumers/push/gate"
)

// Run runs all that a provider must do, as subtests.
func Run(t *testing.T, start Start) {
	for name, test := range map[string]func(*testing.T, Start){
		"accepted":                        accepts,
		"a retraction":                    retracts,
		"an outage is retried":            retries,
		"Retry-After is honoured":         honours,
		"a dead endpoint is pruned":       prunes,
		"a spike prunes nothing":          suspects,
		"a refused credential stops":      stops,
		"a failing provider is not asked": breaks,
		"what is expired is not tried":    expires,
		"a cancelled attempt":             cancels,
		"bounded connections":             bounds,
		"a closed provider":               closes,
	} {
		t.Run(name, func(t *testing.T) { test(t, start) })
	}
	for _, b := range []Behavior{HTML, Empty, Half, ErrorInside, Cut, Silent} {
		t.Run("answers: "+string(b), func(t *testing.T) { survives(t, start, b) })
	}
}

func accepts(t *testing.T, start Start) {
	f := setup(t, start)
	if f.Provider.Channel() == "" || f.Provider.Name() == "" || f.Provider.Ready() != nil {
		t.Errorf("%q, %q, %v", f.Provider.Channel(), f.Provider.Name(), f.Provider.Ready())
	}
	f.accepted("at first")
	f.accepted("again")
	if f.Asked() != 2 {
		t.Errorf("asked %d times", f.Asked())
	}
}

func retracts(t *testing.T, start Start) {
	f := setup(t, start)
	retracter, can := f.Provider.(push.Retracter)
	if !can {
		return // the role answers no_retract
	}
	p := f.attempt(1)
	p.Content, p.Retract = nil, true
	if r := retracter.Retract(t.Context(), p); !r.Sent() || f.Asked() != 1 {
		t.Errorf("got %+v, asked %d times", r, f.Asked())
	}
}

func retries(t *testing.T, start Start) {
	f := setup(t, start)
	f.Behave(Outage)
	if r := f.failed("during an outage", retry); r.Status < 500 || r.Bug {
		t.Errorf("got %+v", r)
	}
	f.Behave(Accept)
	f.accepted("after it")
}

func honours(t *testing.T, start Start) {
	f := setup(t, start)
	f.Behave(Later)
	if r := f.failed("asked to wait", retry); r.RetryAfter < RetryAfter {
		t.Errorf("waits only %v", r.RetryAfter)
	}
	f.Behave(Accept)
	f.advance(RetryAfter + time.Minute)
	f.accepted("after the wait")
}

func prunes(t *testing.T, start Start) {
	f := setup(t, start)
	for range 30 {
		f.accepted("a device that lives")
	}
	f.Behave(Dead)
	f.failed("a dead device", prune)
	f.Behave(Accept)
	f.accepted("another device")
}

// suspects: most endpoints are called dead at once, so it is our fault.
func suspects(t *testing.T, start Start) {
	f := setup(t, start)
	for range 30 {
		f.accepted("before")
	}
	f.Behave(Dead)
	pruned := 0
	for range 100 {
		if f.failed("in a spike", prune, drop).Class == prune {
			pruned++
		}
	}
	if pruned > 15 {
		t.Errorf("%d of 100 endpoints were pruned", pruned)
	}
	if n := f.counter("prune_suspended_total"); n != uint64(100-pruned) {
		t.Errorf("%d are counted, %d were not pruned", n, 100-pruned)
	}
	if n := strings.Count(f.logged(), "none is forgotten"); n != 1 {
		t.Errorf("told %d times", n)
	}
	f.Behave(Accept)
	f.advance(gate.SpikeRest + 3*time.Minute)
	f.accepted("after it")
	f.Behave(Dead)
	f.failed("long after the spike", prune)
}

func stops(t *testing.T, start Start) {
	f := setup(t, start)
	f.accepted("before")
	f.Behave(RefuseCredential)
	f.failed("refused", stop)
	if f.Provider.Ready() == nil || f.gauge("credential_stopped") != 1 {
		t.Error("nobody hears of it")
	}
	asked := f.Asked()
	for range 10 {
		if r := f.failed("while it is stopped", stop); r.Status != 0 || r.RetryAfter <= 0 {
			t.Errorf("got %+v", r)
		}
	}
	if f.Asked() != asked {
		t.Errorf("asked %d times with a refused credential", f.Asked()-asked)
	}
	f.advance(f.s.Rest + time.Second)
	f.failed("the probe", stop)
	f.failed("after a failed probe", stop)
	f.Behave(Accept)
	f.advance(f.s.Rest + time.Second)
	f.accepted("the probe of a mended credential")
	f.accepted("after it")
	if f.Provider.Ready() != nil || f.gauge("credential_stopped") != 0 {
		t.Error("it still counts as stopped")
	}
	if n := strings.Count(f.logged(), "refuses the credential"); n != 1 {
		t.Errorf("told %d times", n)
	}
}

func breaks(t *testing.T, start Start) {
	f := setup(t, start)
	f.accepted("before")
	f.Behave(Outage)
	tripped := false
	for range 3 * gate.Streak {
		if r := f.failed("during an outage", retry); strings.HasPrefix(r.Reason, "breaker:") {
			tripped = true
			if r.RetryAfter <= 0 || r.Status != 0 {
				t.Errorf("put off with %+v", r)
			}
		}
	}
	asked := f.Asked()
	f.failed("while the breaker is open", retry)
	if !tripped || f.Asked() != asked || f.gauge("breaker_open") != 1 {
		t.Errorf("tripped: %v, asked %d times more, the gauge is %v", tripped, f.Asked()-asked, f.gauge("breaker_open"))
	}
	if f.Provider.Ready() != nil {
		t.Error("a provider that is down makes the process not ready")
	}
	f.advance(f.s.BreakerRest + time.Second)
	f.failed("the probe", retry)
	if asked == f.Asked() {
		t.Error("nothing probes")
	}
	f.Behave(Accept)
	f.advance(f.s.BreakerRest + time.Second)
	f.accepted("the probe of a provider that works again")
	f.accepted("after it")
	if f.gauge("breaker_open") != 0 {
		t.Error("the breaker is still open")
	}
}

// survives: the attempt has a class that prunes nothing and lets dispatch try again, and the next one is sent.
func survives(t *testing.T, start Start, b Behavior) {
	f := setup(t, start, func(s *Settings) {
		if b == Silent {
			s.RequestTimeout = time.Second
		}
	})
	f.eventually("before")
	f.Behave(b)
	doubtful := 0
	for range 4 {
		r := f.failed(string(b), retry, unknown)
		if r.Bug {
			t.Errorf("it counts as our bug: %+v", r)
		}
		if r.Class == unknown && r.Status == 0 {
			doubtful++
		}
	}
	if (b == Silent || b == Cut) && doubtful == 0 {
		t.Error("requests that may have arrived count as not sent")
	}
	f.Behave(Accept)
	f.advance(2 * time.Minute) // beyond any freeze without a Retry-After
	f.eventually("after it")
}

// expires: an attempt that has expired during its first try gets no second one.
func expires(t *testing.T, start Start) {
	f := setup(t, start, func(s *Settings) { s.RequestTimeout = 500 * time.Millisecond })
	f.eventually("before")
	f.Behave(Silent)
	asked, p := f.Asked(), f.attempt(2)
	p.ExpiresAtMs = f.now().Add(250 * time.Millisecond).UnixMilli()
	if r := f.Provider.Send(bounded(t), p); r.Sent() {
		t.Errorf("got %+v", r)
	}
	if n := f.Asked() - asked; n > 1 {
		t.Errorf("asked %d times", n)
	}
}

// cancels: whoever gives an attempt up gets it back at once, and that says nothing about the provider.
func cancels(t *testing.T, start Start) {
	f := setup(t, start)
	f.accepted("before")
	f.Behave(Silent)
	asked := f.Asked()
	ctx, cancel := context.WithCancel(bounded(t))
	var all sync.WaitGroup
	const many = 2 * gate.Streak
	for device := range many {
		p := f.attempt(device)
		all.Go(func() {
			if r := f.Provider.Send(ctx, p); r.Sent() {
				t.Errorf("got %+v", r)
			}
		})
	}
	for f.Asked() < asked+many && ctx.Err() == nil { // until all are under way
		<-time.After(time.Millisecond)
	}
	began := time.Now()
	cancel()
	all.Wait()
	if took := time.Since(began); took > f.s.RequestTimeout/2 {
		t.Errorf("they came back after %v", took)
	}
	f.Behave(Accept)
	f.accepted("after it")
}

func bounds(t *testing.T, start Start) {
	f := setup(t, start, func(s *Settings) { s.Connections, s.Streams = 2, 10 })
	var all sync.WaitGroup
	ctx := bounded(t)
	for device := range 300 {
		p := f.attempt(device)
		all.Go(func() {
			if r := f.Provider.Send(ctx, p); !r.Sent() {
				t.Errorf("got %+v", r)
			}
		})
	}
	all.Wait()
	if n := f.Connections(); n > 3 { // the lane's, and one to where access tokens come from
		t.Errorf("%d connections", n)
	}
	if f.Asked() != 300 {
		t.Errorf("asked %d times", f.Asked())
	}
}

func closes(t *testing.T, start Start) {
	f := setup(t, start)
	f.accepted("before")
	f.Behave(RefuseCredential)
	f.failed("refused", stop)
	f.Provider.Close()
	f.Provider.Close() // twice is once
	if f.gauge("credential_stopped") != 0 || f.gauge("connections") != 0 {
		t.Errorf("its gauges are %v, %v", f.gauge("credential_stopped"), f.gauge("connections"))
	}
}
