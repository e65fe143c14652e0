package push

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/decide"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// instruments are one lane's metrics. The first two have the names of the contract, which the gateway uses as well.
type instruments struct {
	attempts map[whisperv1.FailureClass]*metrics.Counter
	retracts map[whisperv1.FailureClass]*metrics.Counter
	latency  *metrics.PrometheusHistogram // from the request
	due      *metrics.PrometheusHistogram // from when the delivery was due
	provider *metrics.PrometheusHistogram
	inFlight *metrics.Gauge
}

// latencyBounds are seconds, from a push that found its connection ready to one that waited for an hour.
var latencyBounds = []float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600}

func newInstruments(set *metrics.Set, p Provider, lane domain.Lane) *instruments {
	m := &instruments{
		attempts: map[whisperv1.FailureClass]*metrics.Counter{},
		retracts: map[whisperv1.FailureClass]*metrics.Counter{},
		latency: set.GetOrCreatePrometheusHistogramExt(
			fmt.Sprintf(`whisper_delivery_latency_seconds{channel=%q,lane=%q}`, p.Channel(), lane), latencyBounds),
		due: set.GetOrCreatePrometheusHistogramExt(
			fmt.Sprintf(`whisper_delivery_due_latency_seconds{channel=%q,lane=%q}`, p.Channel(), lane), latencyBounds),
		provider: set.GetOrCreatePrometheusHistogramExt(
			fmt.Sprintf(`whisper_push_request_seconds{provider=%q,lane=%q}`, p.Name(), lane), latencyBounds),
		inFlight: set.GetOrCreateGauge(
			fmt.Sprintf(`whisper_push_in_flight{provider=%q,lane=%q}`, p.Name(), lane), nil),
	}
	for class := range whisperv1.FailureClass_name {
		class := whisperv1.FailureClass(class)
		m.attempts[class] = set.GetOrCreateCounter(
			fmt.Sprintf(`whisper_delivery_attempts_total{channel=%q,outcome=%q}`, p.Channel(), outcome(class)))
		m.retracts[class] = set.GetOrCreateCounter(
			fmt.Sprintf(`whisper_push_retractions_total{channel=%q,outcome=%q}`, p.Channel(), outcome(class)))
	}
	return m
}

// outcome is the class's name in metrics and logs.
func outcome(class whisperv1.FailureClass) string {
	switch class {
	case whisperv1.FailureClass_FAILURE_CLASS_UNSPECIFIED:
		return "sent"
	case whisperv1.FailureClass_FAILURE_CLASS_UNREACHABLE:
		return "unreachable"
	case whisperv1.FailureClass_FAILURE_CLASS_RETRY:
		return "retry"
	case whisperv1.FailureClass_FAILURE_CLASS_DROP:
		return "drop"
	case whisperv1.FailureClass_FAILURE_CLASS_PRUNE:
		return "prune"
	case whisperv1.FailureClass_FAILURE_CLASS_STOP:
		return "stop"
	case whisperv1.FailureClass_FAILURE_CLASS_UNKNOWN:
		return "unknown"
	case whisperv1.FailureClass_FAILURE_CLASS_EXPIRED:
		return "expired"
	default:
		return "unnamed"
	}
}

// observe counts an attempt and logs it in one line: at debug if the provider accepted it, since there are as many as
// deliveries, else at info. The line has neither token nor text.
func (s *sender) observe(ctx context.Context, p *whisperv1.Push, r Result, at time.Time, took time.Duration) {
	counter := s.m.attempts[r.Class]
	if p.GetRetract() { // not an attempt of the delivery, so it must not change its rates
		counter = s.m.retracts[r.Class]
	}
	counter.Inc()
	id, _ := domain.DeliveryIDFromBytes(p.GetDeliveryId()) // decode has checked it
	level := slog.LevelInfo
	if r.Class != whisperv1.FailureClass_FAILURE_CLASS_EXPIRED {
		s.m.provider.Update(took.Seconds())
	}
	if r.Sent() {
		level = slog.LevelDebug
	}
	if r.Sent() && !p.GetRetract() {
		s.m.latency.Update(at.Sub(id.Time()).Seconds())
		s.m.due.Update(max(0, at.Sub(time.UnixMicro(decide.Due(id, p.GetDueMs()))).Seconds()))
	}
	if s.log.Enabled(ctx, level) {
		s.log.LogAttrs(
			ctx, level, "push attempt",
			slog.Bool("retract", p.GetRetract()), slog.String("outcome", outcome(r.Class)),
			slog.String("reason", r.Reason), slog.Int("status", r.Status),
			slog.String("delivery_id", id.String()), slog.String("notification_id", p.GetNotificationId()),
			slog.Int("attempt", int(p.GetAttempt())), slog.String("endpoint", p.GetEndpoint()),
			slog.String("provider_id", r.ProviderID), slog.Duration("latency", took), slog.Duration("retry_after", r.RetryAfter),
		)
	}
}
