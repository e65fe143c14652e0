package consumers

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// queueOfOne is a Kafka that answers one request after another, each after a time that has little to do with how many
// records it holds.
type queueOfOne struct {
	answers     *answers
	each        time.Duration
	mu          sync.Mutex
	handed      []time.Time
	free        time.Time
	requests    int
	took        []time.Duration // of each record, until it was answered
	outstanding sync.WaitGroup
}

func (k *queueOfOne) send() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.handed) == 0 {
		return
	}
	now, batch := time.Now(), k.handed
	k.handed = nil
	k.requests++
	if k.free.Before(now) {
		k.free = now
	}
	k.free = k.free.Add(k.each + time.Duration(len(batch))*10*time.Microsecond)
	k.outstanding.Add(1)
	time.AfterFunc(k.free.Sub(now), func() {
		defer k.outstanding.Done()
		k.answers.answered(1, time.Since(now), time.Now())
		k.mu.Lock()
		defer k.mu.Unlock()
		for _, at := range batch {
			k.took = append(k.took, time.Since(at))
		}
	})
}

// run hands over n records, one each gap, and waits until all are answered.
func (k *queueOfOne) run(g *gathering, n int, gap time.Duration) {
	for range n {
		k.mu.Lock()
		k.handed = append(k.handed, time.Now())
		k.mu.Unlock()
		g.record(time.Now())
		<-time.After(gap)
	}
	<-time.After(100 * time.Millisecond)
	k.outstanding.Wait()
}

func gatheringOn(linger, each time.Duration) (*gathering, *queueOfOne) {
	g := newGathering(linger)
	k := &queueOfOne{answers: &g.answers, each: each}
	g.send = k.send
	return g, k
}

func TestNothingIsGatheredWhileKafkaKeepsUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g, k := gatheringOn(0, time.Millisecond)
		k.run(g, 500, 2*time.Millisecond)
		if k.requests != 500 {
			t.Errorf("%d requests of 500 records", k.requests)
		}
		for _, took := range k.took {
			if took > 1010*time.Microsecond {
				t.Fatalf("a record took %s, a request takes 1.01 ms", took)
			}
		}
	})
}

func TestRequestsBecomeFewerUntilKafkaKeepsUp(t *testing.T) {
	t.Parallel()
	for _, gap := range []time.Duration{800 * time.Microsecond, 200 * time.Microsecond, 50 * time.Microsecond} {
		synctest.Test(t, func(t *testing.T) {
			g, k := gatheringOn(0, time.Millisecond)
			const n = 5_000
			k.run(g, n, gap)
			if len(k.took) != n {
				t.Fatalf("%d of %d records were answered", len(k.took), n)
			}
			// One request a record, the last one would wait for n of them.
			if least := float64(n) * float64(gap) / float64(time.Millisecond); float64(k.requests) > least {
				t.Errorf("%s: %d requests, Kafka could answer %.0f meanwhile", gap, k.requests, least)
			}
			for i, took := range k.took {
				if i > n/10 && took > mostGathered+10*time.Millisecond { // the first answers say how slow it is
					t.Fatalf("%s: record %d took %s", gap, i, took)
				}
			}
		})
	}
}

func TestARecordThatComesAloneNeverWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g, k := gatheringOn(0, time.Millisecond)
		k.run(g, 10, 10*time.Millisecond)
		for range 50 { // others keep Kafka busy
			g.answers.answered(1, 50*time.Millisecond, time.Now())
		}
		if d := g.distance(time.Now()); d != mostGathered {
			t.Fatalf("the distance is %s, Kafka takes 50 ms instead of 1", d)
		}
		before := k.requests
		k.run(g, 1, 0)
		if k.requests != before+1 || k.took[len(k.took)-1] > 2*time.Millisecond {
			t.Errorf("it took %s", k.took[len(k.took)-1])
		}
		<-time.After(2 * answersFor)
		if d := g.distance(time.Now()); d != 0 {
			t.Errorf("long after the last answer the distance is %s", d)
		}
	})
}

func TestFactsAreGatheredForLongerWhileKafkaIsSlow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g, k := gatheringOn(5*time.Millisecond, time.Millisecond)
		k.run(g, 1_000, time.Millisecond)
		if quiet := k.requests; quiet < 150 || quiet > 200 {
			t.Errorf("%d requests in a second, one each 5 ms and the next record", quiet)
		}
		slow := func() {
			for range 50 {
				g.answers.answered(1, 50*time.Millisecond, time.Now())
			}
		}
		before := k.requests
		for range 100 {
			slow()
			k.run(g, 1, 0)
			slow()
		}
		if got := k.requests - before; got != 100 {
			t.Fatalf("%d requests", got)
		}
		if took := k.took[len(k.took)-1]; took < 5*time.Millisecond+mostGathered {
			t.Errorf("a fact waited %s while Kafka took 50 ms", took)
		}
	})
}

func TestWhatKafkaTakesAtBestIsForgotten(t *testing.T) {
	t.Parallel()
	var a answers
	at := time.UnixMilli(1_700_000_000_000)
	answer := func(took time.Duration, n int) time.Duration {
		for range n {
			at = at.Add(100 * time.Millisecond)
			a.answered(1, took, at)
		}
		return a.waiting(at)
	}
	if w := answer(5*time.Millisecond, 100); w != 0 {
		t.Errorf("all answers alike: %s", w)
	}
	if w := answer(9*time.Millisecond, 100); w < 3*time.Millisecond {
		t.Errorf("4 ms slower: %s", w)
	}
	if w := answer(9*time.Millisecond, 700); w > time.Microsecond {
		t.Errorf("slower for more than a minute, as a broker that moved is: %s", w)
	}
	a.answered(2, 30*time.Millisecond, at)
	if w := a.waiting(at); w > time.Microsecond {
		t.Errorf("another broker that is far: %s", w)
	}
}
