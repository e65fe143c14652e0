package consumers

import (
	"testing"
	"time"
)

func TestQuietIsToldFromBusy(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		gap  time.Duration
		want bool
	}{
		"a record every 10 ms goes at once":    {10 * time.Millisecond, true},
		"500 a second go at once":              {2 * time.Millisecond, true},
		"2,000 a second are worth waiting for": {500 * time.Microsecond, false},
		"a burst is worth waiting for":         {0, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var q quiet
			at := time.UnixMilli(1_700_000_000_000)
			var got bool
			for range 100 {
				got = q.record(at)
				at = at.Add(test.gap)
			}
			if got != test.want {
				t.Errorf("quiet: %v", got)
			}
			if !q.record(at.Add(time.Second)) {
				t.Error("after a pause it is not quiet")
			}
		})
	}
}
