package decide_test

import (
	"fmt"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/decide"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// TestASliceEndsWithItsTimeBox: the caller's clock ends it, behind at least one user; and where nobody is meant, the number of
// users does not.
func TestASliceEndsWithItsTimeBox(t *testing.T) {
	t.Parallel()
	const all = 3 * decide.WalkSlice
	start := func(segment string) *decide.State {
		s := decide.NewState(0, decide.DefaultPolicy())
		s.ReplayDone()
		for i := range all {
			s.Decide(decide.ProfilePatched{User: fmt.Sprintf("user-%04d", i), Patch: []byte(`{"attributes":{"tags":["a","b","c"]}}`), At: t0, Offset: int64(i)}, at(0))
		}
		s.Decide(broadcast("news", segment), at(0))
		return s
	}
	for name, c := range map[string]struct {
		segment string
		over    func() bool
		slices  int
	}{
		"time is up at once":                 {"", func() bool { return true }, all},
		"there is time":                      {"", func() bool { return false }, 3},
		"no clock":                           {"", nil, 3},
		"nobody is meant":                    {"user.locale == 'xx'", func() bool { return false }, 1},
		"nobody is meant, no clock":          {"user.locale == 'xx'", nil, 3},
		"nobody is meant, time is up":        {"user.locale == 'xx'", func() bool { return true }, all / 16},
		"nobody is meant, the segment costs": {"user.attributes.tags.exists(x, user.attributes.tags.exists(y, x + y == 'zz'))", func() bool { return true }, all},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, slices, last := start(c.segment), 0, (*whisperv1.BroadcastProgressed)(nil)
			for due, ok := s.WalkDue(domain.Low); ok && !due.After(at(0)); due, ok = s.WalkDue(domain.Low) {
				slices++
				for _, o := range s.Decide(decide.WalkOn{Lane: domain.Low, Over: c.over}, at(0)) {
					if e, is := o.(decide.Emit); is && e.Event.GetBroadcastProgressed() != nil {
						last = e.Event.GetBroadcastProgressed()
					}
				}
				if p := s.Progress(domain.NewDeliveryID(at(0), domain.HashDelivery("news", ""))); p != nil {
					last = p.GetBroadcastProgressed()
				}
			}
			if slices < c.slices || slices > c.slices+c.slices/8+1 {
				t.Errorf("%d slices, want some %d", slices, c.slices)
			}
			if last.GetWalked() != all {
				t.Errorf("%d of %d were looked at", last.GetWalked(), all)
			}
		})
	}
}

// BenchmarkSlice is how long a walk keeps a partition's loop from its other work: the longest slice, in time of its thread,
// with a clock as dispatch has it, and without.
func BenchmarkSlice(b *testing.B) {
	nested := `{"address":{"city":"Cairo"},"tags":["new","vip"]}`
	lists := `[` + strings.TrimSuffix(strings.Repeat("[1],", 7_000), ",") + `]`
	for name, c := range map[string]struct {
		segment, attributes string
		users               int
	}{
		"nobody is meant":        {"user.locale == 'xx'", nested, 100_000},
		"one nested attribute":   {"user.attributes.address.city == 'Cairo'", nested, 20_000},
		"a macro":                {"user.attributes.tags.exists(t, t == 'vip')", nested, 20_000},
		"the worst, 64 KiB each": {strings.Repeat("user.attributes.a != user.attributes.b || ", 90) + "false", `{"a":` + lists + `,"b":` + lists + `}`, 200},
	} {
		for clock, lasts := range map[string]time.Duration{"ends after 1 ms": time.Millisecond, "ends after 128 users": 0} {
			b.Run(name+"/"+clock, func(b *testing.B) {
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				longest, slices := time.Duration(0), 0
				for b.Loop() {
					s := decide.NewState(0, decide.DefaultPolicy())
					s.ReplayDone()
					for i := range c.users {
						s.Decide(decide.ProfilePatched{User: fmt.Sprintf("user-%06d", i), Patch: []byte(`{"attributes":` + c.attributes + `}`), At: t0, Offset: int64(i)}, at(0))
					}
					s.Decide(broadcast("news", c.segment), at(0))
					s.Decide(decide.WalkOn{Lane: domain.Low, Over: func() bool { return true }}, at(0)) // sorts
					for due, ok := s.WalkDue(domain.Low); ok && !due.After(at(0)); due, ok = s.WalkDue(domain.Low) {
						began, used := time.Now(), threadTime(b)
						walk := decide.WalkOn{Lane: domain.Low}
						if lasts > 0 {
							walk.Over = func() bool { return time.Since(began) >= lasts }
						}
						s.Decide(walk, at(0))
						longest = max(longest, threadTime(b)-used)
						slices++
					}
				}
				b.ReportMetric(float64(longest.Microseconds()), "longest-µs")
				b.ReportMetric(float64(c.users)*float64(b.N)/float64(slices), "users/slice")
			})
		}
	}
}

func threadTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_THREAD, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
