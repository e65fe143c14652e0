package gate

import (
	"slices"
	"testing"
	"time"
)

var t0 = time.Unix(1_790_000_000, 0)

func TestAGateLetsOneProbePassInEachRest(t *testing.T) {
	t.Parallel()
	var told []string
	g := New(Config{
		Rest:    time.Minute,
		OnClose: func(reason string) { told = append(told, "closed:"+reason) },
		OnOpen:  func() { told = append(told, "opened") },
	})
	if _, _, ok := Enter(t0, g); !ok {
		t.Fatal("a new gate is closed")
	}
	g.Close("BadKey", t0)
	g.Close("BadKey", t0)
	if _, refused, ok := Enter(t0.Add(20*time.Second), g); ok || refused.Reason != "BadKey" || refused.Wait != 40*time.Second {
		t.Fatalf("got %+v, %v", refused, ok)
	}
	probe, _, ok := Enter(t0.Add(time.Minute), g)
	if !ok {
		t.Fatal("no probe after the rest")
	}
	if _, refused, ok := Enter(t0.Add(time.Hour), g); ok || refused.Wait != time.Second {
		t.Fatalf("a second attempt passes beside the probe: %+v", refused)
	}
	probe.Abandon()
	if probe, _, ok = Enter(t0.Add(time.Hour), g); !ok {
		t.Fatal("an abandoned probe is not followed by another")
	}
	g.CloseFor("BadKey", t0.Add(time.Hour), time.Hour)
	probe.Abandon() // the probe's own answer closed it, so this is late and changes nothing
	if _, _, ok := Enter(t0.Add(90*time.Minute), g); ok {
		t.Fatal("a failed probe does not begin another rest")
	}
	probe, _, _ = Enter(t0.Add(2*time.Hour), g)
	probe.Answered()
	probe.Answered() // twice is once
	if _, _, ok := Enter(t0.Add(2*time.Hour), g); !ok || g.Why() != "" {
		t.Fatal("an answered probe does not open the gate")
	}
	if !slices.Equal(told, []string{"closed:BadKey", "opened"}) {
		t.Errorf("told %q", told)
	}
}

// An attempt that one gate refuses must not stay the probe of another.
func TestARefusedAttemptProbesNothing(t *testing.T) {
	t.Parallel()
	first, second := New(Config{Rest: time.Minute}), New(Config{Rest: time.Hour})
	first.Close("a", t0)
	second.Close("b", t0)
	for range 3 {
		if _, refused, ok := Enter(t0.Add(2*time.Minute), first, nil, second); ok || refused.Gate != 2 || refused.Reason != "b" {
			t.Fatalf("got %+v, %v", refused, ok)
		}
	}
	pass, _, ok := Enter(t0.Add(2*time.Hour), first, nil, second)
	if !ok {
		t.Fatal("refused after both rests")
	}
	pass.AnsweredAt(second)
	if second.Why() != "" || first.Why() != "a" {
		t.Errorf("the gates: %q, %q", first.Why(), second.Why())
	}
	if _, _, ok := Enter(t0.Add(2*time.Hour), first); !ok {
		t.Error("the first waits for a probe that has ended")
	}
}

func TestABreakerTripsOnFailuresInARow(t *testing.T) {
	t.Parallel()
	b := NewBreaker(3, Config{Rest: time.Minute})
	for _, failed := range []bool{true, true, false, true, true} {
		if failed {
			b.Failed("no_answer", t0)
		} else {
			b.Answered()
		}
	}
	if b.Why() != "" || b.Failures() != 2 {
		t.Fatalf("tripped by %q after %d", b.Why(), b.Failures())
	}
	b.Failed("no_answer", t0)
	if b.Why() != "no_answer" {
		t.Fatal("did not trip")
	}
	probe, _, ok := Enter(t0.Add(time.Minute), b.Gate)
	if !ok {
		t.Fatal("no probe")
	}
	b.Failed("no_answer", t0.Add(time.Minute))
	probe.Abandon()
	if _, _, ok := Enter(t0.Add(90*time.Second), b.Gate); ok {
		t.Error("a failed probe does not keep it closed")
	}
}

func TestKeyedGatesAreApartAndBounded(t *testing.T) {
	t.Parallel()
	k := NewKeyed(time.Minute, nil, nil)
	k.Close("com.a", "BadTopic", t0)
	if k.Of("com.a").Why() != "BadTopic" || k.Of("com.b") != nil {
		t.Error("keys are not apart")
	}
	for i := range 2 * maxKeys {
		k.Close(time.Duration(i).String(), "BadTopic", t0)
	}
	if len(k.gates) != maxKeys || k.Of("com.a") == nil {
		t.Errorf("%d gates", len(k.gates))
	}
}

func TestASpikeIsManyAndAShare(t *testing.T) {
	t.Parallel()
	var s Spike
	for range 100 { // few among many are no spike
		s.Answered(false, t0)
	}
	for range 24 {
		if suspect, _ := s.Answered(true, t0); suspect {
			t.Fatal("suspected below a fifth")
		}
	}
	if suspect, began := s.Answered(true, t0); !suspect || !began {
		t.Fatal("a fifth is no spike")
	}
	if suspect, began := s.Answered(true, t0); !suspect || began {
		t.Fatal("told twice")
	}
	if suspect, _ := s.Answered(true, t0.Add(SpikeRest-time.Second)); !suspect {
		t.Error("pruned too soon after a spike")
	}
	if suspect, _ := s.Answered(true, t0.Add(3*SpikeRest)); suspect {
		t.Error("suspects for ever")
	}
	var few Spike
	for range spikeMin - 1 { // all of few are none either
		if suspect, _ := few.Answered(true, t0); suspect {
			t.Fatal("suspected below the least number")
		}
	}
}
