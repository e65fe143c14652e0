package fcm

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/klivvr/whisper/consumers/push/fcm/simulator"
	"github.com/klivvr/whisper/domain"
)

// paced is a provider with this rate that nobody answers.
func paced(t *testing.T, perMinute int) *Provider {
	t.Helper()
	p, err := New(Config{CredentialsJSON: accountText, PerMinute: perMinute, Metrics: metrics.NewSet()})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// accountText is made before any test, since making a key takes a while.
var accountText = func() []byte {
	s, err := simulator.Start(context.Background(), simulator.Config{})
	if err != nil {
		panic(err)
	}
	defer s.Close()
	return s.Credentials()
}()

func TestTheRateRisesOverAMinuteAndHolds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := paced(t, 6000)
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		taken := make(chan struct{}, 1<<20)
		for range 200 {
			go func() {
				for ctx.Err() == nil {
					if r, _ := p.line.turn(ctx, domain.Low); r == nil && ctx.Err() == nil {
						taken <- struct{}{}
					}
				}
			}()
		}
		minutes := make([]int, 4)
		for i := range minutes {
			before := len(taken)
			<-time.After(time.Minute)
			synctest.Wait()
			minutes[i] = len(taken) - before
		}
		stop()
		synctest.Wait()
		if minutes[0] < 3000 || minutes[0] > 3600 {
			t.Errorf("%d in the first minute, while the rate rises from a tenth", minutes[0])
		}
		for _, n := range minutes[1:] {
			if n < 5800 || n > 6010 {
				t.Errorf("%d in a minute at a rate of 6,000", n)
			}
		}
	})
}

func TestAnAlertGoesBeforeWhatIsLessUrgent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := paced(t, 6000)
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		for range 500 {
			go func() {
				for ctx.Err() == nil {
					p.line.turn(ctx, domain.Low)
				}
			}()
		}
		<-time.After(2 * time.Minute)
		for range 50 {
			start := time.Now()
			if r, _ := p.line.turn(ctx, domain.High); r != nil {
				t.Fatalf("got %+v", r)
			}
			if took := time.Since(start); took > 10*time.Millisecond {
				t.Errorf("an alert waited %s behind the lane low", took)
			}
			<-time.After(200 * time.Millisecond)
		}
		stop()
		synctest.Wait()
	})
}

// What can't go for a while is told at once, and does not hold a place.
func TestATurnThatIsFarAwayIsTold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := paced(t, 6000)
		p.slow(time.Minute)
		start := time.Now()
		if r, _ := p.line.turn(t.Context(), domain.High); r == nil || r.Class != retry || r.Reason != "quota" || r.RetryAfter < time.Minute {
			t.Errorf("got %+v", r)
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("it took %s", took)
		}
	})
}
