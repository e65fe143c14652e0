package gateway

import (
	"fmt"
	"strconv"
	"sync"

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
	refreshes              *metrics.Counter
	framesOut, writes      *metrics.Counter
	bytesOut               *metrics.Counter
	full, notReady         *metrics.Counter
	paced, addressFull     *metrics.Counter
	unauthorized           *metrics.Counter
	closes                 map[int]*metrics.Counter
	closesOther            *metrics.Counter

	sent, unreachable, expired *metrics.Counter
	// By lane: from the request's time until a socket took it, until it was acknowledged.
	taken, acknowledged [len(domain.Lanes)]*metrics.PrometheusHistogram

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
		refreshes:       set.GetOrCreateCounter(`whisper_gateway_frames_in_total{type="refresh"}`),
		badFrames:       set.GetOrCreateCounter(`whisper_gateway_frames_in_total{type="bad"}`),
		framesOut:       set.GetOrCreateCounter(`whisper_gateway_frames_out_total`),
		writes:          set.GetOrCreateCounter(`whisper_gateway_writes_total`),
		bytesOut:        set.GetOrCreateCounter(`whisper_gateway_written_bytes_total`),
		full:            set.GetOrCreateCounter(`whisper_gateway_refusals_total{reason="full"}`),
		notReady:        set.GetOrCreateCounter(`whisper_gateway_refusals_total{reason="not_ready"}`),
		paced:           set.GetOrCreateCounter(`whisper_gateway_refusals_total{reason="paced"}`),
		addressFull:     set.GetOrCreateCounter(`whisper_gateway_refusals_total{reason="address"}`),
		unauthorized:    set.GetOrCreateCounter(`whisper_gateway_refusals_total{reason="unauthorized"}`),
		closes:          map[int]*metrics.Counter{},
		closesOther:     set.GetOrCreateCounter(`whisper_gateway_closes_total{code="other"}`),
		sent:            set.GetOrCreateCounter(`whisper_delivery_attempts_total{channel="socket",outcome="sent"}`),
		unreachable:     set.GetOrCreateCounter(`whisper_delivery_attempts_total{channel="socket",outcome="unreachable"}`),
		expired:         set.GetOrCreateCounter(`whisper_delivery_attempts_total{channel="socket",outcome="expired"}`),
	}
	for _, code := range []int{
		closeNormal, 1001, closeProtocol, closeNoStatus, closeGone, closeNotUTF8, closeRestarting,
		closeUnauthorized, closeExpired, closeBadFrame, closeTooSlow, closeTooMany,
	} {
		in.closes[code] = set.GetOrCreateCounter(`whisper_gateway_closes_total{code="` + strconv.Itoa(code) + `"}`)
	}
	for _, lane := range domain.Lanes {
		name := func(until string) string {
			return fmt.Sprintf(`whisper_delivery_latency_seconds{channel="socket",lane=%q,until=%q}`, lane, until)
		}
		in.taken[lane] = set.GetOrCreatePrometheusHistogramExt(name("taken"), latencyBounds)
		in.acknowledged[lane] = set.GetOrCreatePrometheusHistogramExt(name("acknowledged"), latencyBounds)
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

// load notes how many connections there are; it says whether the high-water mark was just crossed.
func (in *instruments) load(connections, limit int64) (crossed bool) {
	ratio := float64(connections) / float64(limit)
	in.connections.Set(float64(connections))
	in.utilization.Set(ratio)
	in.mu.Lock()
	defer in.mu.Unlock()
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
