package gateway

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// wheel is a timekeeper by itself, and what it rang.
func wheel(t testing.TB) (*node, *timekeeper) {
	t.Helper()
	n := prepare(t)
	return n, n.timekeeper
}

func (k *timekeeper) waits(s *session) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return s.alarm.next != nil
}

func TestTheWheelRingsInTime(t *testing.T) {
	t.Parallel()
	grain := int64(250 * time.Millisecond)
	turn := wheelSlots * grain
	for name, c := range map[string]struct {
		due   int64 // from now
		ticks []int64
		rings int // which of the ticks; -1: none
	}{
		"at once":                      {0, []int64{0, grain}, 1},
		"long ago":                     {-10 * turn, []int64{0, grain}, 1},
		"within the grain":             {grain / 2, []int64{grain / 4, grain / 2, grain}, 2},
		"not before":                   {grain, []int64{grain - 1}, -1},
		"in time":                      {10 * grain, []int64{9 * grain, 10 * grain}, 1},
		"ticks that did not come":      {10 * grain, []int64{9 * grain, 300 * grain}, 1},
		"a turn away":                  {turn, []int64{grain, turn - 1, turn}, 2},
		"a turn and a bit away":        {turn + 3*grain, []int64{3 * grain, turn, turn + 3*grain}, 2},
		"far away":                     {5*turn + 7*grain, []int64{7 * grain, turn + 7*grain, 4*turn + 7*grain, 5*turn + 7*grain}, 3},
		"a stop of several turns":      {grain, []int64{9 * turn}, 0},
		"back in time, then on":        {2 * grain, []int64{-turn, -3 * grain, grain, 2 * grain}, 3},
		"the same tick again and more": {grain, []int64{0, 0, 0, grain}, 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, k := wheel(t)
			now := (k.at + 1) * grain // so that ticks are within the grain that is next
			k.due(now)
			s := &session{g: k.g}
			k.set(s, now+c.due)
			rang := -1
			for i, tick := range c.ticks {
				for range k.due(now + tick) {
					if rang >= 0 {
						t.Fatal("rang twice")
					}
					rang = i
				}
			}
			if rang != c.rings || k.waits(s) != (rang < 0) {
				t.Errorf("rang at tick %d, want %d; waits: %t", rang, c.rings, k.waits(s))
			}
		})
	}
}

// The wheel against a plain list: everybody rings once, not before it is due, and with the first tick
// that is a grain later at the latest.
func TestTheWheelIsAList(t *testing.T) {
	t.Parallel()
	n, _ := wheel(t)
	rapid.Check(t, func(t *rapid.T) {
		k := newTimekeeper(n.Gateway)
		now := k.at * k.grain
		due := map[*session]int64{}
		var all []*session
		span := rapid.SampledFrom([]int64{3, 50, 2 * wheelSlots}).Draw(t, "span")
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 4).Draw(t, "what") {
			case 0:
				s := &session{g: n.Gateway}
				all = append(all, s)
				fallthrough
			case 1:
				if len(all) == 0 {
					continue
				}
				s := rapid.SampledFrom(all).Draw(t, "session")
				at := now + rapid.Int64Range(-k.grain, span*k.grain).Draw(t, "due")
				if k.set(s, at); !s.alarm.removed {
					due[s] = max(at, now)
				}
			case 2:
				if len(all) > 0 {
					s := rapid.SampledFrom(all).Draw(t, "session")
					if rapid.Bool().Draw(t, "for good") {
						k.remove(s)
					} else {
						k.set(s, 0)
					}
					delete(due, s)
				}
			default:
				now += rapid.Int64Range(0, span*k.grain/2).Draw(t, "passes")
				for _, s := range k.due(now) {
					if at, ok := due[s]; !ok || at > now {
						t.Fatalf("rang %d ns early, or for nothing", at-now)
					}
					delete(due, s)
				}
				for _, at := range due {
					if at+k.grain < now {
						t.Fatalf("%d ns late", now-at)
					}
				}
			}
			waiting := 0
			k.each(func(*session) { waiting++ })
			if waiting != len(due) {
				t.Fatalf("%d wait, want %d", waiting, len(due))
			}
		}
	})
}

func TestPingsOfSessionsThatCameTogetherAreSpread(t *testing.T) {
	t.Parallel()
	n := prepare(t)
	const sessions, parts = 2000, 10
	var count [parts]int
	for range sessions {
		count[n.timekeeper.firstPing()*parts/int64(n.cfg.PingInterval)]++
	}
	for i, c := range count {
		if c < sessions/parts/2 || c > sessions/parts*2 {
			t.Errorf("%d of %d first pings are in the %d. tenth of the interval", c, sessions, i+1)
		}
	}
}

func TestARoundEndsWhenEverythingWasRead(t *testing.T) {
	t.Parallel()
	var r round
	if !r.covers(1) {
		t.Error("nothing is there to be read")
	}
	r.begin(100)
	r.passed(10, false, 15) // there may be more
	if r.covers(100) || r.covers(200) || !r.covers(99) {
		t.Error("what came since 100 is not read")
	}
	r.begin(200) // the same round
	r.passed(5, false, 15)
	if !r.covers(300) {
		t.Error("each of 15 has had its turn")
	}
	r.begin(400)
	r.passed(3, true, 15)
	if !r.covers(400) {
		t.Error("that was all there was")
	}
}
