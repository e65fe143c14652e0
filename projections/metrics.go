package projections

import "github.com/VictoriaMetrics/metrics"

// meters are the role's metrics, of all writers of this process together.
type meters struct {
	facts        *metrics.Counter
	aged         *metrics.Counter
	conflicts    *metrics.Counter
	transactions *metrics.Counter
	seconds      *metrics.PrometheusHistogram
	up           *metrics.Gauge
	lagRecords   *metrics.Gauge
	lagSeconds   *metrics.Gauge
	committed    *metrics.Gauge
	daysDropped  *metrics.Counter
	mergedRows   *metrics.Counter
}

func newMeters() *meters {
	return &meters{
		facts:        metrics.GetOrCreateCounter("whisper_projections_facts_total"),
		aged:         metrics.GetOrCreateCounter("whisper_projections_aged_facts_total"),
		conflicts:    metrics.GetOrCreateCounter("whisper_projections_checkpoint_conflicts_total"),
		transactions: metrics.GetOrCreateCounter("whisper_projections_transactions_total"),
		seconds:      metrics.GetOrCreatePrometheusHistogram("whisper_projections_transaction_seconds"),
		up:           metrics.GetOrCreateGauge("whisper_projections_postgres_up", nil),
		lagRecords:   metrics.GetOrCreateGauge("whisper_projections_lag_records", nil),
		lagSeconds:   metrics.GetOrCreateGauge("whisper_projections_lag_seconds", nil),
		committed:    metrics.GetOrCreateGauge("whisper_projections_last_commit_timestamp_seconds", nil),
		daysDropped:  metrics.GetOrCreateCounter("whisper_projections_days_dropped_total"),
		mergedRows:   metrics.GetOrCreateCounter("whisper_projections_merged_rows_total"),
	}
}
