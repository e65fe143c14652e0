package dispatch

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// machine is what a pace works on: it does so many records a second, and an alert waits the longer the busier it is, as in
// a queue.
type machine struct {
	*pace
	now    time.Time
	random *rand.Rand
	able   float64       // records a second
	alone  time.Duration // what an alert waits in the mean while nothing is walked
	skew   time.Duration // of the clock that writes alerts
	every  time.Duration // an alert; 0: none
	due    time.Time     // the next alert
	load   float64       // records a second, a moving mean
	walked float64       // records
	waits  []time.Duration
}

func newMachine(seed uint64) *machine {
	return &machine{
		pace: newPace(0), now: time.Unix(1_800_000_000, 0), random: rand.New(rand.NewPCG(seed, 0)), able: 100_000, alone: 5 * time.Millisecond, every: 10 * time.Millisecond,
	}
}

const tickOf = time.Millisecond

// run lets time pass; where walking, there is always more to walk.
func (m *machine) run(d time.Duration, walking bool) {
	for end := m.now.Add(d); m.now.Before(end); m.now = m.now.Add(tickOf) {
		n := 0.0
		for walking && n < m.able/500 && m.records.next.Before(m.now.Add(tickOf)) && !m.from(m.now).After(m.now) {
			m.spent(m.now, 64, 0)
			n += 64
		}
		m.walked += n
		m.load += (n/tickOf.Seconds() - m.load) / 50
		if m.every == 0 || m.now.Before(m.due) {
			continue
		}
		m.due = m.now.Add(m.every)
		busy := min(m.load/m.able, 0.98)
		wait := time.Duration(m.random.ExpFloat64() * float64(m.alone) / (1 - busy))
		m.waits = append(m.waits, wait)
		m.taken(m.now, m.now.Add(-wait-m.skew))
		m.acked(m.now, 2*time.Millisecond)
	}
}

// during runs with a broadcast, and says how many records a second it got and how long alerts waited.
func (m *machine) during(d time.Duration) (perSecond float64, p99 time.Duration) {
	m.walked, m.waits = 0, nil
	m.run(d, true)
	if len(m.waits) > 0 {
		p99 = quantile(m.waits, 0.99)
	}
	return m.walked / d.Seconds(), p99
}

// spends walks for a second, whatever the pace says.
func (m *machine) spends(perTick int) {
	for end := m.now.Add(time.Second); m.now.Before(end); m.now = m.now.Add(tickOf) {
		m.spent(m.now, perTick, 0)
	}
}

func TestWithoutAlertsNothingIsHeld(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		c, now := newPace(0), time.Unix(1_800_000_000, 0)
		if rapid.Bool().Draw(t, "alerts came before") {
			m := newMachine(rapid.Uint64().Draw(t, "seed"))
			m.run(time.Second, true)
			c, now = m.pace, m.now.Add(alertsGone)
		}
		for range rapid.IntRange(1, 50).Draw(t, "slices") {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(time.Second)).Draw(t, "pause")))
			if at := c.from(now); !at.Equal(now) {
				t.Fatalf("held for %s", at.Sub(now))
			}
			if at := c.spent(now, rapid.IntRange(1, 100_000).Draw(t, "records"), 0); !at.Equal(now) {
				t.Fatalf("the next slice waits for %s", at.Sub(now))
			}
			if p := c.now(now); p.Limit != 0 || p.Connected != 0 || p.by != holdNothing {
				t.Fatalf("a pace of %+v", p)
			}
		}
	})
}

// Whatever alerts and clocks tell, and whatever an operator bounds, a broadcast ends: what a slice waits for is no longer
// than at the least pace, and a probe.
func TestNothingIsHeldForGood(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		c, now := newPace(0), time.Unix(1_800_000_000, 0)
		odd := rapid.OneOf(rapid.Int64(), rapid.Int64Range(-int64(time.Hour), int64(time.Hour)), rapid.Int64Range(0, int64(time.Second)))
		const records = 256
		owed := time.Duration(0) // by the slices so far, at the least pace
		for range rapid.IntRange(1, 300).Draw(t, "steps") {
			passed := time.Duration(rapid.Int64Range(0, int64(300*time.Millisecond)).Draw(t, "pause"))
			now, owed = now.Add(passed), max(owed-passed, 0)
			switch rapid.IntRange(0, 2).Draw(t, "what") {
			case 0:
				c.taken(now, now.Add(time.Duration(odd.Draw(t, "age"))))
			case 1:
				c.acked(now, time.Duration(odd.Draw(t, "took")))
			default:
				if at := c.from(now); at.Sub(now) > probeFor {
					t.Fatalf("held for %s", at.Sub(now))
				}
				owed += time.Duration(math.Ceil(records * float64(time.Second) / leastPace))
				if at := c.spent(now, records, 0); at.Sub(now) > owed {
					t.Fatalf("the next slice waits for %s, at the least pace it is %s", at.Sub(now), owed)
				}
			}
		}
	})
}

func TestAlertsThatWaitHalveThePaceAndItComesBack(t *testing.T) {
	t.Parallel()
	m := newMachine(1)
	m.run(20*time.Second, false)
	m.run(2*time.Second, true)
	m.records.perSecond, m.records.peak = 80_000, 80_000 // no longer doubling
	m.spends(80)
	before, cut := m.records.perSecond, m.records.cut
	for m.records.cut.Equal(cut) {
		m.now = m.now.Add(time.Millisecond)
		m.spent(m.now, 64, 0)
		m.taken(m.now, m.now.Add(-time.Second))
	}
	if p := m.pace.now(m.now); p.Limit != before/2 || p.by != holdAlerts {
		t.Errorf("from %.0f to %.0f, held by %s", before, p.Limit, p.by)
	}
	m.able, m.records.peak = math.Inf(1), before // alerts are well from now on
	m.run(6*time.Second, true)
	if m.records.perSecond < before {
		t.Errorf("it stands at %.0f six seconds later, it was %.0f", m.records.perSecond, before)
	}
}

// On fast machines and slow ones, with clocks that agree and clocks that don't, alerts wait at most twice as long as
// alone, and the broadcast gets a good part of what the machine has left.
func TestThePaceFitsTheMachine(t *testing.T) {
	t.Parallel()
	for name, set := range map[string]func(*machine){
		"as it is":                  func(*machine) {},
		"three times slower":        func(m *machine) { m.able, m.alone = m.able/3, 3*m.alone },
		"a hundred times faster":    func(m *machine) { m.able = 100 * m.able },
		"alerts written an hour on": func(m *machine) { m.skew = -time.Hour },
		"alerts written long ago":   func(m *machine) { m.skew = 24 * time.Hour },
		"many alerts":               func(m *machine) { m.every = tickOf },
		"few alerts":                func(m *machine) { m.every = 200 * time.Millisecond },
		"quiet of a moment":         func(m *machine) { m.alone = 100 * time.Microsecond },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(7)
			set(m)
			m.run(max(30*time.Second, 500*m.every), false)
			quiet := quantile(m.waits, 0.99)
			_, _ = m.during(10 * time.Second) // it finds its pace
			perSecond, p99 := m.during(max(60*time.Second, 3_000*m.every))
			if most := max(2*quiet, 2*mostFloor); p99 > most {
				t.Errorf("alerts wait %s, alone %s", p99, quiet)
			}
			if perSecond < m.able/5 {
				t.Errorf("%.0f records a second, the machine does %.0f", perSecond, m.able)
			}
			t.Logf("alone %s, beside %s; %.0f of %.0f records a second", quiet, p99, perSecond, m.able)
		})
	}
}

// TestABroadcastBesideFewAlertsBeginsWithoutABacklog: few alerts tell late that there is too much of it.
func TestABroadcastBesideFewAlertsBeginsWithoutABacklog(t *testing.T) {
	t.Parallel()
	for _, able := range []float64{100_000, 300_000} {
		const runs = 8
		times := 0.0
		for seed := range uint64(runs) {
			m := newMachine(seed)
			m.able, m.every = able, 100*time.Millisecond
			m.run(time.Minute, false)
			quiet := quantile(m.waits, 0.99)
			_, p99 := m.during(5 * time.Second)
			times += float64(p99) / float64(quiet) / runs
		}
		t.Logf("%.0f records a second: alerts wait %.1f times as long as alone", able, times)
		if times > 4 {
			t.Errorf("%.0f records a second: alerts wait %.1f times as long as alone", able, times)
		}
	}
}

// A process that has just started asks how alerts fare without broadcasts, before it walks.
func TestAYoungProcessLooksFirst(t *testing.T) {
	t.Parallel()
	m := newMachine(3)
	m.taken(m.now, m.now.Add(-5*time.Millisecond))
	if at := m.from(m.now); at.Sub(m.now) != probeFor {
		t.Fatalf("it walks after %s", at.Sub(m.now))
	}
	m.run(probeFor-tickOf, true)
	if m.walked > 0 || m.alerts.n < enough {
		t.Errorf("%.0f records walked, %d alerts seen", m.walked, m.alerts.n)
	}
	quiet := time.Duration(2.5 * 4.6 * float64(m.alone)) // of so few alerts it can be off by that
	if _, p99 := m.during(60 * time.Second); p99 > quiet || m.walked == 0 {
		t.Errorf("alerts wait %s, %.0f records were walked", p99, m.walked)
	}
}

// What alerts wait without broadcasts can change while one runs: it is not to be held back for that.
func TestABroadcastIsNotBlamedForTheMachine(t *testing.T) {
	t.Parallel()
	m := newMachine(5)
	m.run(20*time.Second, false)
	m.run(5*time.Second, true)
	m.alone *= 3
	_, _ = m.during(4 * time.Minute)
	if perSecond, _ := m.during(30 * time.Second); perSecond < m.able/5 {
		t.Errorf("%.0f records a second, the machine does %.0f", perSecond, m.able)
	}
}

func TestABoundHoldsWithoutAlertsToo(t *testing.T) {
	t.Parallel()
	m := newMachine(9)
	m.pace, m.every = newPace(10_000), 0
	if perSecond, _ := m.during(10 * time.Second); perSecond < 9_900 || perSecond > 10_100 {
		t.Errorf("%.0f records a second", perSecond)
	}
	if p := m.pace.now(m.now); p.Limit != 10_000 || p.by != holdBound {
		t.Errorf("a pace of %+v", p)
	}
}

// Kafka that acknowledges alerts late holds broadcasts back, and so does what it has not acknowledged at all.
func TestKafkaHoldsBroadcastsBack(t *testing.T) {
	t.Parallel()
	m := newMachine(11)
	m.run(20*time.Second, false)
	m.run(2*time.Second, true)
	m.records.perSecond, m.alerts.share.of = 80_000, 0
	m.spends(80)
	for m.records.perSecond > 40_000 {
		m.now = m.now.Add(time.Millisecond)
		m.spent(m.now, 80, 0)
		m.acked(m.now, 100*time.Millisecond)
	}
	if p := m.pace.now(m.now); p.by != holdKafka {
		t.Errorf("held by %s", p.by)
	}
	free := newPace(0)
	free.waits(m.now)
	if p := free.now(m.now); p.Limit != 0 || p.by != holdKafka {
		t.Errorf("a pace of %+v", p)
	}
}

// TestABroadcastBesideAlertsBeginsSlowly: before the first alert tells how it fares, a burst would have filled every queue.
func TestABroadcastBesideAlertsBeginsSlowly(t *testing.T) {
	t.Parallel()
	p, now := newPace(0), time.Unix(1_800_000_000, 0)
	p.taken(now, now)
	now = now.Add(alertsGone / 2)
	if p.from(now); p.records.perSecond != firstPace {
		t.Errorf("it begins with %.0f records a second", p.records.perSecond)
	}
	p.taken(now, now.Add(-time.Millisecond))
	now = now.Add(alertsGone)
	if p.from(now); p.records.perSecond != 0 {
		t.Errorf("without alerts it goes on with %.0f", p.records.perSecond)
	}
	p.spent(now, 1_000_000, 0)
	if p.taken(now.Add(time.Millisecond), now); p.records.perSecond != firstPace {
		t.Errorf("a broadcast that meets an alert goes on with %.0f", p.records.perSecond)
	}
}

// TestNoAlertsIsToldByTheLastOne: a slice may be wide only where none came for a while.
func TestNoAlertsIsToldByTheLastOne(t *testing.T) {
	t.Parallel()
	p, now := newPace(0), time.Unix(1_800_000_000, 0)
	if !p.noAlerts(now) {
		t.Error("it knows of an alert before the first")
	}
	p.taken(now, now)
	if p.noAlerts(now.Add(alertsGone - 1)) {
		t.Error("it forgets an alert too soon")
	}
	if !p.noAlerts(now.Add(alertsGone)) {
		t.Error("it never forgets an alert")
	}
}
