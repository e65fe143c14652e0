package consumers

import (
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// gathering decides when what a publisher was given goes to Kafka. A request costs the same for one record as for ten, on
// both sides; where machine or broker are busy, records wait for requests. So requests keep a distance that grows with that
// waiting ([answers]): where Kafka answers as fast as it can, the distance is nothing. A record that comes longer than the
// distance after the request before goes at once.
type gathering struct {
	answers answers
	// linger is how long the first record waits, and the distance besides; zero: only as long as the distance asks for.
	linger time.Duration
	send   func() // sends what was gathered, without waiting for the answer
	held   *metrics.PrometheusHistogram

	mu   sync.Mutex
	sent time.Time     // when send was called last
	cost time.Duration // what a call of send takes
	due  *time.Timer
	set  bool // due runs
}

const (
	// gain is how much of the waiting that was seen a request adds itself. A notification waits at five places (three
	// fetches, two produce requests) for what makes Kafka slow, and is gathered at two or three, for half the distance on
	// average. With the model of a queue, the sum is least where the distance is some ten times one of these waits.
	gain = 8
	// mostGathered bounds the distance, and so what gathering adds, whatever the answers say.
	mostGathered = 20 * time.Millisecond
	// sendShare: sending takes at most one part in so many of the time. A call looks at each partition written to.
	sendShare = 20
	// costMost bounds what is taken for the cost of a call: a longer one did not have the processor.
	costMost = 500 * time.Microsecond
)

var heldBounds = []float64{0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.015, 0.02}

func newGathering(linger time.Duration) *gathering {
	g := &gathering{linger: linger, held: metrics.GetOrCreatePrometheusHistogramExt(`whisper_publish_gather_seconds`, heldBounds)}
	g.due = time.AfterFunc(time.Hour, g.expired)
	g.due.Stop()
	return g
}

// distance is how far apart requests are to be now.
func (g *gathering) distance(now time.Time) time.Duration {
	return min(gain*g.answers.waiting(now), mostGathered)
}

// record is called after a record was handed to the client.
func (g *gathering) record(now time.Time) {
	g.mu.Lock()
	if g.set {
		g.mu.Unlock()
		return
	}
	wait := g.linger + g.distance(now)
	if g.linger == 0 {
		wait = max(wait, sendShare*g.cost) - now.Sub(g.sent)
	}
	if wait > 0 {
		g.set = true
		g.due.Reset(wait)
		g.mu.Unlock()
		return
	}
	g.mu.Unlock()
	g.flush(now)
}

func (g *gathering) expired() { g.flush(time.Now()) }

// flush sends. Two at a time do no harm.
func (g *gathering) flush(now time.Time) {
	g.mu.Lock()
	g.set = false // first: what is handed over from here on may miss this request
	g.held.Update(g.distance(now).Seconds())
	g.sent = now
	g.mu.Unlock()
	g.send()
	took := min(time.Since(now), costMost)
	g.mu.Lock()
	g.cost = (7*g.cost + took) / 8
	g.mu.Unlock()
}

// answers follows how much longer produce requests take than they can: what they wait for processors, on both sides, and
// for the broker's disks and replicas. The least time of a broker contains what distance and replication cost, so that is
// not counted.
type answers struct {
	mu      sync.Mutex
	brokers map[int32]*leastTime
	wait    time.Duration // smoothed
	at      time.Time     // of the latest answer
}

// leastTime is the least of a window, the one before included.
type leastTime struct {
	now, before time.Duration
	since       time.Time
}

const (
	// leastWindow is how long the least answer time counts, once and a part: brokers move, and become slower.
	leastWindow = 30 * time.Second
	// answersFor is how long after the latest answer the waiting is believed.
	answersFor = time.Second
)

// OnBrokerE2E implements kgo.HookBrokerE2E.
func (a *answers) OnBrokerE2E(broker kgo.BrokerMetadata, key int16, e2e kgo.BrokerE2E) {
	if key == int16(kmsg.Produce) && e2e.Err() == nil {
		a.answered(broker.NodeID, e2e.DurationE2E(), time.Now())
	}
}

func (a *answers) answered(broker int32, took time.Duration, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	least := a.brokers[broker]
	if least == nil {
		if a.brokers == nil {
			a.brokers = map[int32]*leastTime{}
		}
		least = &leastTime{now: took, before: took, since: now}
		a.brokers[broker] = least
	}
	if now.Sub(least.since) > leastWindow {
		least.before, least.now, least.since = least.now, took, now
	}
	least.now = min(least.now, took)
	a.wait = (7*a.believed(now) + took - min(least.now, least.before)) / 8
	a.at = now
}

func (a *answers) believed(now time.Time) time.Duration {
	if now.Sub(a.at) > answersFor {
		return 0
	}
	return a.wait
}

// waiting is what a request waits for at the moment.
func (a *answers) waiting(now time.Time) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.believed(now)
}
