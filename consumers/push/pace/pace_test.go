package pace

import (
	"context"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// granted counts the turns that are had in so long, by 20 who ask all the time. When the time is over each of them may be waiting
// for a turn, which it gives back: so many may be missing.
func granted(t *testing.T, p *Pacer, during time.Duration) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), during)
	defer cancel()
	var n atomic.Int64
	done := make(chan struct{})
	const askers = 20
	for range askers {
		go func() {
			defer func() { done <- struct{}{} }()
			for ctx.Err() == nil {
				wait, err := p.Wait(ctx)
				switch {
				case err != nil:
				case wait > 0:
					select {
					case <-time.After(wait):
					case <-ctx.Done():
					}
				default:
					n.Add(1)
				}
			}
		}()
	}
	for range askers {
		<-done
	}
	return int(n.Load())
}

func TestTheRateHolds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		if n := granted(t, New(Config{PerSecond: 100}), 10*time.Second); n < 970 || n > 1020 {
			t.Errorf("%d turns in 10 s at 100/s", n)
		}
	})
}

func TestTheRateRises(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := New(Config{PerSecond: 100, Ramp: time.Minute})
		first, whole := granted(t, p, 6*time.Second), 0
		granted(t, p, time.Minute)
		if whole = granted(t, p, 6*time.Second); first > 150 || whole < 570 || whole > 620 {
			t.Errorf("%d turns in the first 6 s, %d after the rise", first, whole)
		}
		p.Freeze(time.Minute)
		if n := granted(t, p, 59*time.Second); n != 0 {
			t.Errorf("%d turns while frozen", n)
		}
		if n := granted(t, p, 7*time.Second); n == 0 || n > 170 {
			t.Errorf("%d turns right after a freeze: it does not rise again", n)
		}
	})
}

func TestNobodyWaitsLong(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := New(Config{PerSecond: 1, Burst: 1, MaxWait: 2 * time.Second})
		for i, want := range []time.Duration{0, time.Second, 2 * time.Second} {
			start := time.Now()
			if wait, err := p.Wait(t.Context()); wait != 0 || err != nil || i == 0 && time.Since(start) != want {
				t.Fatalf("turn %d: %v, %v after %v", i, wait, err, time.Since(start))
			}
		}
		// The turn after the next three, which are taken, is told and not waited for.
		for range 3 {
			if _, refused := p.take(time.Now()); refused > 0 {
				break
			}
		}
		start := time.Now()
		if wait, err := p.Wait(t.Context()); wait <= 2*time.Second || err != nil || time.Since(start) != 0 {
			t.Errorf("waited %v for %v, %v", time.Since(start), wait, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := New(Config{}).Wait(ctx); err == nil {
			t.Error("a cancelled attempt goes")
		}
	})
}

func TestAFreezeIsBounded(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_790_000_000, 0)
	p := New(Config{MaxFreeze: time.Hour, Now: func() time.Time { return now }})
	p.Freeze(100 * 24 * time.Hour)
	p.Freeze(time.Second) // does not shorten it
	if p.Frozen() != time.Hour {
		t.Errorf("frozen for %v", p.Frozen())
	}
	if wait, err := p.Wait(t.Context()); wait != time.Hour || err != nil {
		t.Errorf("%v, %v", wait, err)
	}
	now = now.Add(time.Hour)
	if wait, err := p.Wait(t.Context()); wait != 0 || err != nil {
		t.Errorf("%v, %v", wait, err)
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	for header, want := range map[string]time.Duration{
		"": 0, "120": 2 * time.Minute, "0.5": 500 * time.Millisecond, "-3": 0, "soon": 0, "NaN": 0,
		"Sat, 28 Nov 2026 12:01:00 GMT": time.Minute, "Sat, 28 Nov 2026 11:00:00 GMT": 0,
		"1e300": time.Hour, "Inf": time.Hour, "3601": time.Hour, "Tue, 28 Nov 2028 12:00:00 GMT": time.Hour,
	} {
		if got := RetryAfter(http.Header{"Retry-After": {header}}, now); got != want {
			t.Errorf("%q: %v, want %v", header, got, want)
		}
	}
}

func TestKeysAreApartAndBounded(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_790_000_000, 0)
	var k Keys
	k.Freeze("phone", now.Add(time.Minute), now)
	if k.Left("phone", now) != time.Minute || k.Left("other", now) != 0 || k.Left("phone", now.Add(time.Minute)) != 0 {
		t.Error("keys are not apart")
	}
	for i := range 2 * maxKeys {
		k.Freeze(time.Duration(i).String(), now.Add(time.Minute), now)
	}
	if len(k.frozen) != maxKeys {
		t.Errorf("%d keys", len(k.frozen))
	}
	later := now.Add(time.Hour)
	k.Freeze("another", later.Add(time.Minute), later)
	if len(k.frozen) != 1 || k.Left("another", later) != time.Minute {
		t.Errorf("%d keys after all have ended", len(k.frozen))
	}
}
