package consumers

import (
	"net"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// clientMetrics are of all clients of this process together.
type clientMetrics struct {
	connections       *metrics.Gauge
	connected, failed *metrics.Counter
	requests, errors  *metrics.Counter
	produce, fetch    *metrics.Counter
	commit, other     *metrics.Counter
	seconds           *metrics.PrometheusHistogram
	written, read     *metrics.Counter
	throttled         *metrics.FloatCounter
}

// requestBounds are of a request to a broker: a fetch may wait for records for some seconds.
var requestBounds = []float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30}

func newClientMetrics() *clientMetrics {
	return &clientMetrics{
		connections: metrics.GetOrCreateGauge(`whisper_kafka_connections`, nil),
		connected:   metrics.GetOrCreateCounter(`whisper_kafka_connects_total{outcome="connected"}`),
		failed:      metrics.GetOrCreateCounter(`whisper_kafka_connects_total{outcome="failed"}`),
		requests:    metrics.GetOrCreateCounter(`whisper_kafka_requests_total{outcome="answered"}`),
		errors:      metrics.GetOrCreateCounter(`whisper_kafka_requests_total{outcome="failed"}`),
		produce:     metrics.GetOrCreateCounter(`whisper_kafka_requests_by_kind_total{kind="produce"}`),
		fetch:       metrics.GetOrCreateCounter(`whisper_kafka_requests_by_kind_total{kind="fetch"}`),
		commit:      metrics.GetOrCreateCounter(`whisper_kafka_requests_by_kind_total{kind="commit"}`),
		other:       metrics.GetOrCreateCounter(`whisper_kafka_requests_by_kind_total{kind="other"}`),
		seconds:     metrics.GetOrCreatePrometheusHistogramExt(`whisper_kafka_request_seconds`, requestBounds),
		written:     metrics.GetOrCreateCounter(`whisper_kafka_written_bytes_total`),
		read:        metrics.GetOrCreateCounter(`whisper_kafka_read_bytes_total`),
		throttled:   metrics.GetOrCreateFloatCounter(`whisper_kafka_throttled_seconds_total`),
	}
}

// OnBrokerConnect implements kgo.HookBrokerConnect.
func (m *clientMetrics) OnBrokerConnect(_ kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	if err != nil {
		m.failed.Inc()
		return
	}
	m.connected.Inc()
	m.connections.Inc()
}

// OnBrokerDisconnect implements kgo.HookBrokerDisconnect.
func (m *clientMetrics) OnBrokerDisconnect(kgo.BrokerMetadata, net.Conn) { m.connections.Dec() }

// OnBrokerE2E implements kgo.HookBrokerE2E.
func (m *clientMetrics) OnBrokerE2E(_ kgo.BrokerMetadata, key int16, e2e kgo.BrokerE2E) {
	m.written.Add(e2e.BytesWritten)
	m.read.Add(e2e.BytesRead)
	switch key {
	case int16(kmsg.Produce):
		m.produce.Inc()
	case int16(kmsg.Fetch):
		m.fetch.Inc()
	case int16(kmsg.OffsetCommit):
		m.commit.Inc()
	default:
		m.other.Inc()
	}
	if e2e.Err() != nil {
		m.errors.Inc()
		return
	}
	m.requests.Inc()
	m.seconds.Update(e2e.DurationE2E().Seconds())
}

// OnBrokerThrottle implements kgo.HookBrokerThrottle.
func (m *clientMetrics) OnBrokerThrottle(_ kgo.BrokerMetadata, throttled time.Duration, _ bool) {
	m.throttled.Add(throttled.Seconds())
}
