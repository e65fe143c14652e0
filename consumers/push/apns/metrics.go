package apns

import "github.com/VictoriaMetrics/metrics"

// instruments are the provider's own; the role counts attempts.
type instruments struct {
	connections  *metrics.Gauge
	dials        *metrics.Counter
	dialFailures *metrics.Counter
	unclassified *metrics.Counter
	tries        *metrics.Counter
	stopped      *metrics.Gauge
	breaker      *metrics.Gauge
	suspects     *metrics.Counter
}

func newInstruments(set *metrics.Set) *instruments {
	return &instruments{
		connections:  set.GetOrCreateGauge(`whisper_push_connections{provider="apns"}`, nil),
		dials:        set.GetOrCreateCounter(`whisper_push_connects_total{provider="apns",outcome="connected"}`),
		dialFailures: set.GetOrCreateCounter(`whisper_push_connects_total{provider="apns",outcome="failed"}`),
		unclassified: set.GetOrCreateCounter(`whisper_push_unclassified_total{provider="apns"}`),
		tries:        set.GetOrCreateCounter(`whisper_push_second_tries_total{provider="apns"}`),
		stopped:      set.GetOrCreateGauge(`whisper_push_credential_stopped{provider="apns"}`, nil),
		breaker:      set.GetOrCreateGauge(`whisper_push_breaker_open{provider="apns"}`, nil),
		suspects:     set.GetOrCreateCounter(`whisper_push_prune_suspended_total{provider="apns"}`),
	}
}
