package intake

import (
	"fmt"

	"github.com/VictoriaMetrics/metrics"

	"github.com/klivvr/whisper/domain"
)

// laneMetrics count a record once everything that follows from it is acknowledged.
type laneMetrics struct {
	accepted, broadcasts, refused *metrics.Counter
	commands                      map[string]*metrics.Counter // by verb
	deliveries                    *metrics.Counter
	// seconds: from the request record's time until its last delivery is acknowledged.
	seconds *metrics.PrometheusHistogram
}

type roleMetrics struct {
	lanes                               [len(domain.Lanes)]laneMetrics
	patched, patchedPartly              *metrics.Counter
	forgotten, profilesRefused          *metrics.Counter
	templatesAccepted, templatesRefused *metrics.Counter
	categoriesAccepted                  *metrics.Counter
	categoriesRefused                   *metrics.Counter
}

func newRoleMetrics() *roleMetrics {
	m := &roleMetrics{
		patched:           metrics.GetOrCreateCounter(`whisper_intake_profiles_total{outcome="patched"}`),
		patchedPartly:     metrics.GetOrCreateCounter(`whisper_intake_profiles_total{outcome="patched_partly"}`),
		forgotten:         metrics.GetOrCreateCounter(`whisper_intake_profiles_total{outcome="forgotten"}`),
		profilesRefused:   metrics.GetOrCreateCounter(`whisper_intake_profiles_total{outcome="refused"}`),
		templatesAccepted: metrics.GetOrCreateCounter(`whisper_intake_templates_total{outcome="accepted"}`),
		templatesRefused:  metrics.GetOrCreateCounter(`whisper_intake_templates_total{outcome="refused"}`),
	}
	m.categoriesAccepted = metrics.GetOrCreateCounter(`whisper_intake_categories_total{outcome="accepted"}`)
	m.categoriesRefused = metrics.GetOrCreateCounter(`whisper_intake_categories_total{outcome="refused"}`)
	for _, lane := range domain.Lanes {
		requests := func(outcome string) *metrics.Counter {
			return metrics.GetOrCreateCounter(fmt.Sprintf(`whisper_intake_requests_total{lane=%q,outcome=%q}`, lane, outcome))
		}
		m.lanes[lane] = laneMetrics{
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
	return m
}
