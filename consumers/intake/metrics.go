package intake

import "github.com/VictoriaMetrics/metrics"

type roleMetrics struct {
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
	return m
}
