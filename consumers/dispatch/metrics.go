package dispatch

import (
	"fmt"

	"github.com/VictoriaMetrics/metrics"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/decide"
	"github.com/klivvr/whisper/domain/whisperv1"
)

type roleMetrics struct {
	// What all partitions of this process hold.
	inFlight, parked, timers, away *metrics.Gauge

	arrived [3]*metrics.Counter
	routed  *metrics.Counter
	pushed  *metrics.Counter
	// Silent pushes that take a notification back.
	takenBack *metrics.Counter
	moved     *metrics.Counter // push tokens that changed hands
	facts     map[string]*metrics.Counter
	other     *metrics.Counter
	stopped   map[string]*metrics.Counter // by the policy's reasons
	// The pace of broadcasts, in records and in connected users; what they wrote or caused, and what holds them back.
	pace, pacedUsers *metrics.Gauge
	walked           *metrics.Counter
	held             [holds]*metrics.Gauge
	// Commands by whether the partition held anything of their notification.
	commands map[string][2]*metrics.Counter
}

func newRoleMetrics() *roleMetrics {
	m := &roleMetrics{
		inFlight:  metrics.GetOrCreateGauge(`whisper_dispatch_in_flight_deliveries`, nil),
		parked:    metrics.GetOrCreateGauge(`whisper_dispatch_parked_deliveries`, nil),
		timers:    metrics.GetOrCreateGauge(`whisper_dispatch_timers`, nil),
		away:      metrics.GetOrCreateGauge(`whisper_dispatch_away_recipients`, nil),
		routed:    metrics.GetOrCreateCounter(`whisper_dispatch_attempts_total{channel="socket"}`),
		pushed:    metrics.GetOrCreateCounter(`whisper_dispatch_attempts_total{channel="push"}`),
		takenBack: metrics.GetOrCreateCounter(`whisper_dispatch_recall_pushes_total`),
		moved:     metrics.GetOrCreateCounter(`whisper_dispatch_tokens_moved_total`),
		facts:     map[string]*metrics.Counter{},
		other:     metrics.GetOrCreateCounter(`whisper_dispatch_facts_total{kind="other"}`),

		stopped: map[string]*metrics.Counter{},

		pace:       metrics.GetOrCreateGauge(`whisper_dispatch_pace_records_per_second`, nil),
		pacedUsers: metrics.GetOrCreateGauge(`whisper_dispatch_pace_connected_users_per_second`, nil),
		walked:     metrics.GetOrCreateCounter(`whisper_dispatch_walked_records_total`),
	}
	for h := range m.held {
		m.held[h] = metrics.GetOrCreateGauge(fmt.Sprintf(`whisper_dispatch_pace_held{by=%q}`, hold(h)), nil)
	}
	for _, c := range changelogs {
		strayRecords(c.topic)
	}
	for _, reason := range domain.PolicyReasons {
		m.stopped[reason] = metrics.GetOrCreateCounter(fmt.Sprintf(`whisper_dispatch_stopped_total{reason=%q}`, reason))
	}
	for i, lane := range domain.Lanes {
		m.arrived[i] = metrics.GetOrCreateCounter(fmt.Sprintf(`whisper_dispatch_deliveries_total{lane=%q}`, lane))
	}
	for _, kind := range []string{
		"delivery_scheduled", "delivery_deferred", "delivery_failed", "delivery_suppressed", "delivery_expired",
		"delivery_cancelled", "duplicate_dropped", "endpoint_pruned", "broadcast_progressed", "broadcast_dropped", "user_erased",
	} {
		m.facts[kind] = metrics.GetOrCreateCounter(fmt.Sprintf(`whisper_dispatch_facts_total{kind=%q}`, kind))
	}
	m.commands = map[string][2]*metrics.Counter{}
	for _, command := range []string{"cancel", "pause", "resume", "retract"} {
		var counters [2]*metrics.Counter
		for i, outcome := range []string{"unknown", "done"} {
			counters[i] = metrics.GetOrCreateCounter(fmt.Sprintf(`whisper_dispatch_commands_total{command=%q,outcome=%q}`, command, outcome))
		}
		m.commands[command] = counters
	}
	return m
}

// holds counts what a partition holds now in the place of what it held before.
func (m *roleMetrics) holds(before, now decide.Sizes) {
	m.inFlight.Add(float64(now.InFlight - before.InFlight))
	m.parked.Add(float64(now.Parked - before.Parked))
	m.timers.Add(float64(now.Timers - before.Timers))
	m.away.Add(float64(now.Away - before.Away))
}

// paced shows what paces broadcasts now.
func (m *roleMetrics) paced(p Pace) {
	m.pace.Set(p.Limit)
	m.pacedUsers.Set(p.Connected)
	for h, gauge := range m.held {
		value := 0.0
		if hold(h) == p.by {
			value = 1
		}
		gauge.Set(value)
	}
}

func (m *roleMetrics) steered(command string, known bool) *metrics.Counter {
	if known {
		return m.commands[command][1]
	}
	return m.commands[command][0]
}

func (m *roleMetrics) emitted(kind string) *metrics.Counter {
	if c := m.facts[kind]; c != nil {
		return c
	}
	return m.other
}

// policy counts what a check put off or suppressed.
func (m *roleMetrics) policy(ev *whisperv1.Event) {
	reason := ev.GetDeliverySuppressed().GetReason()
	if d := ev.GetDeliveryDeferred(); d != nil {
		reason = d.GetReason()
	}
	if c := m.stopped[reason]; c != nil {
		c.Inc()
	}
}
