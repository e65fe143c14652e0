package requests

import (
	"fmt"

	"github.com/VictoriaMetrics/metrics"

	"github.com/klivvr/whisper/domain"
)

// laneMetrics count a record once everything that follows from it is acknowledged. Their names are intake's, whoever takes
// the requests.
type laneMetrics struct {
	accepted, broadcasts, refused *metrics.Counter
	commands                      map[string]*metrics.Counter // by verb
	deliveries                    *metrics.Counter
	// seconds: from the request record's time until its last delivery is acknowledged.
	seconds *metrics.PrometheusHistogram
}

func newLaneMetrics(lane domain.Lane) laneMetrics {
	requests := func(outcome string) *metrics.Counter {
		return metrics.GetOrCreateCounter(fmt.Sprintf(`whisper_intake_requests_total{lane=%q,outcome=%q}`, lane, outcome))
	}
	return laneMetrics{
		accepted:   requests("accepted"),
		broadcasts: metrics.GetOrCreateCounter(fmt.Sprintf(`whisper_intake_broadcasts_total{lane=%q}`, lane)),
		commands: map[string]*metrics.Counter{
			"cancel": requests("cancelled"), "pause": requests("paused"), "resume": requests("resumed"), "retract": requests("retracted"),
		},
		refused:    requests("refused"),
		deliveries: metrics.GetOrCreateCounter(fmt.Sprintf(`whisper_intake_deliveries_total{lane=%q}`, lane)),
		seconds:    metrics.GetOrCreatePrometheusHistogram(fmt.Sprintf(`whisper_intake_request_seconds{lane=%q}`, lane)),
	}
}
