// Package observe has the metrics of one credential of a provider, the same for every provider. The role (package push)
// counts attempts; these say how a provider is doing. It decides nothing.
package observe

import (
	"fmt"

	"github.com/VictoriaMetrics/metrics"
)

// Watch are the metrics of one credential.
type Watch struct {
	Connections  *metrics.Gauge
	Dials        *metrics.Counter
	DialFailures *metrics.Counter
	// Unclassified counts answers that the provider's table does not know.
	Unclassified *metrics.Counter
	SecondTries  *metrics.Counter
	// Stopped and Breaker are 1 while the credential is refused and while the breaker is open.
	Stopped *metrics.Gauge
	Breaker *metrics.Gauge
	// Suspects counts endpoints that were refused and not pruned, because there were too many.
	Suspects *metrics.Counter
	// Paced counts attempts that waited for the credential's rate or quota.
	Paced *metrics.Counter
}

// New registers the metrics of a provider's credential. credential is its name in the apps file, "" for the only one that flags
// describe. Both must come from closed sets.
func New(set *metrics.Set, provider, credential string) *Watch {
	labels := fmt.Sprintf("provider=%q", provider)
	if credential != "" {
		labels += fmt.Sprintf(",credential=%q", credential)
	}
	gauge := func(name string) *metrics.Gauge {
		return set.GetOrCreateGauge(name+"{"+labels+"}", nil)
	}
	counter := func(name, more string) *metrics.Counter {
		return set.GetOrCreateCounter(name + "{" + labels + more + "}")
	}
	return &Watch{
		Connections:  gauge("whisper_push_connections"),
		Dials:        counter("whisper_push_connects_total", `,outcome="connected"`),
		DialFailures: counter("whisper_push_connects_total", `,outcome="failed"`),
		Unclassified: counter("whisper_push_unclassified_total", ""),
		SecondTries:  counter("whisper_push_second_tries_total", ""),
		Stopped:      gauge("whisper_push_credential_stopped"),
		Breaker:      gauge("whisper_push_breaker_open"),
		Suspects:     counter("whisper_push_prune_suspended_total", ""),
		Paced:        counter("whisper_push_paced_total", ""),
	}
}
