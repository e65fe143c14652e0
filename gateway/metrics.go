package gateway

import (
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/klivvr/whisper/domain"
)

// latencyBounds in seconds: dense where an alert should be, up to a day for who was away.
var latencyBounds = []float64{
	.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 600, 3600, 86400,
}

// Utilization over highWater counts and is logged once; it counts again after it fell under lowWater.
const highWater, lowWater = 0.8, 0.7

type instruments struct {
	connections, utilization *metrics.Gauge
	highUtilization          *metrics.Counter

	acks, reads, badFrames *metrics.Counter
	refreshes, rests       *metrics.Counter
	framesOut, writes      *metrics.Counter
	bytesOut               *metrics.Counter
	full, notReady         *metrics.Counter
	paced, addressFull     *metrics.Counter
	handshakes             *metrics.Counter
	origin, proxy          *metrics.Counter
	badTokens              *metrics.Counter
	unauthorized           *metrics.Counter
	closes                 map[int]*metrics.Counter
	closesOther            *metrics.Counter

	sent, unreachable, expired *metrics.Counter
	// By lane: from the request's time until a socket took it, until it was acknowledged.
	taken, acknowledged [len(domain.Lanes)]latencies

	mu   sync.Mutex
	high bool
}

func newInstruments(set *metrics.Set) *instruments {
	in := &instruments{
		connections:     set.GetOrCreateGauge(`whisper_gateway_connections`, nil),
		utilization:     set.GetOrCreateGauge(`whisper_gateway_utilization_ratio`, nil),
		highUtilization: set.GetOrCreateCounter(`whisper_gateway_high_utilization_total`),
		acks:            set.GetOrCreateCounter(`whisper_gateway_frames_in_total{type="ack"}`),
		reads:           set.GetOrCreateCounter(`whisper_gateway_frames_in_total{type="read"}`),
		rests:           set.GetOrCreateCounter(`whisper_gateway_read_pauses_total`),
		refreshes:       set.GetOrCreateCounter(`whisper_gateway_frames_in_total{type="refresh"}`),
		badFrames:       set.GetOrCreateCounter(`whisper_gateway_frames_in_total{type="bad"}`),
		framesOut:       set.GetOrCreateCounter(`whisper_gateway_frames_out_total`),
		writes:          set.GetOrCreateCounter(`whisper_gateway_writes_total`),
		bytesOut:        set.GetOrCreateCounter(`whisper_gateway_written_bytes_total`),
		full:            set.GetOrCreateCounter(`whisper_gateway_refusals_total{reason="full"}`),
		notReady:        set.GetOrCreateCounter(`whisper_gateway_refusals_total{reason="not_ready"}`),
		paced:           set.GetOrCreateCounter(`whisper_gateway_refusals_total{reason="paced"}`),
		addressFull:     set.GetOrCreateCounter(`whisper_gateway_refusals_total{reason="address"}`),
		handshakes:      set.GetOrCreateCounter(`whisper_gateway_refusals_total{reason="handshakes"}`),
		origin:          set.GetOrCreateCounter(`whisper_gateway_refusals_total{reason="origin"}`),
		proxy:           set.GetOrCreateCounter(`whisper_gateway_refusals_total{reason="proxy"}`),
		badTokens:       set.GetOrCreateCounter(`whisper_gateway_refusals_total{reason="bad_tokens"}`),
		unauthorized:    set.GetOrCreateCounter(`whisper_gateway_refusals_total{reason="unauthorized"}`),
		closes:          map[int]*metrics.Counter{},
		closesOther:     set.GetOrCreateCounter(`whisper_gateway_closes_total{code="other"}`),
		sent:            set.GetOrCreateCounter(`whisper_delivery_attempts_total{channel="socket",outcome="sent"}`),
		unreachable:     set.GetOrCreateCounter(`whisper_delivery_attempts_total{channel="socket",outcome="unreachable"}`),
		expired:         set.GetOrCreateCounter(`whisper_delivery_attempts_total{channel="socket",outcome="expired"}`),
	}
	for code := range closeCodes {
		in.closes[code] = set.GetOrCreateCounter(`whisper_gateway_closes_total{code="` + strconv.Itoa(code) + `"}`)
	}
	for _, lane := range domain.Lanes {
		histograms := func(until string) latencies {
			labels := fmt.Sprintf(`{channel="socket",lane=%q,until=%q}`, lane, until)
			return latencies{
				request: set.GetOrCreatePrometheusHistogramExt("whisper_delivery_latency_seconds"+labels, latencyBounds),
				due:     set.GetOrCreatePrometheusHistogramExt("whisper_delivery_due_latency_seconds"+labels, latencyBounds),
			}
		}
		in.taken[lane], in.acknowledged[lane] = histograms("taken"), histograms("acknowledged")
	}
	return in
}

func (in *instruments) closed(code int) {
	if c := in.closes[code]; c != nil {
		c.Inc()
		return
	}
	in.closesOther.Inc() // a code of the client's own choosing
}

// watch has the gauges tell what the gateway's own parts know.
func (in *instruments) watch(g *Gateway, set *metrics.Set) {
	set.GetOrCreateGauge(`whisper_gateway_connections_limit`, func() float64 { return float64(g.limit.Load()) })
	set.GetOrCreateGauge(`whisper_gateway_admission_waiting`, func() float64 { return g.admission.waiting(g.now()) })
	set.GetOrCreateGauge(`whisper_gateway_write_blocked_sessions`, func() float64 { return float64(g.blocked.Load()) })
	set.GetOrCreateGauge(`whisper_gateway_unsettled_records`, func() float64 { return float64(g.lanes.unsettled()) })
	set.GetOrCreateGauge(`whisper_gateway_receipt_hold_seconds`, func() float64 { return time.Duration(g.receipts.after.Load()).Seconds() })
	set.GetOrCreateGauge(`whisper_gateway_receipts_held`, func() float64 { return float64(g.receipts.waiting()) })
}

// latencies are measured from the request, and from when the delivery was due.
type latencies struct{ request, due *metrics.PrometheusHistogram }

// load notes how many connections there are; it says whether the high-water mark was just crossed. They are
// counted under the lock, or of two changes at once the earlier could be noted last.
func (in *instruments) load(connections func() int64, limit int64) (crossed bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	n := float64(connections())
	ratio := n / float64(limit)
	in.connections.Set(n)
	in.utilization.Set(ratio)
	switch {
	case !in.high && ratio > highWater:
		in.high = true
		in.highUtilization.Inc()
		return true
	case in.high && ratio < lowWater:
		in.high = false
	}
	return false
}
