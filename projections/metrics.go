package projections

import (
	"github.com/VictoriaMetrics/metrics"
	"github.com/jackc/pgx/v5/pgxpool"
)

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
	mergedMonths *metrics.Counter
	// Of the pool.
	busyConns, idleConns, maxConns *metrics.Gauge
	connWaits                      *metrics.Counter
	connWaitSeconds                *metrics.FloatCounter
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
		daysDropped:  metrics.GetOrCreateCounter("whisper_projections_dropped_partitions_total"),
		mergedMonths: metrics.GetOrCreateCounter("whisper_projections_merged_months_total"),
		mergedRows:   metrics.GetOrCreateCounter("whisper_projections_merged_rows_total"),

		busyConns:       metrics.GetOrCreateGauge(`whisper_projections_postgres_connections{state="busy"}`, nil),
		idleConns:       metrics.GetOrCreateGauge(`whisper_projections_postgres_connections{state="idle"}`, nil),
		maxConns:        metrics.GetOrCreateGauge("whisper_projections_postgres_connections_limit", nil),
		connWaits:       metrics.GetOrCreateCounter("whisper_projections_postgres_waits_total"),
		connWaitSeconds: metrics.GetOrCreateFloatCounter("whisper_projections_postgres_waited_seconds_total"),
	}
}

// pool tells what the pool has done since a look before.
func (m *meters) pool(before, now *pgxpool.Stat) {
	m.busyConns.Set(float64(now.AcquiredConns()))
	m.idleConns.Set(float64(now.IdleConns()))
	m.maxConns.Set(float64(now.MaxConns()))
	waits, waited := now.EmptyAcquireCount(), now.EmptyAcquireWaitTime()
	if before != nil {
		waits, waited = waits-before.EmptyAcquireCount(), waited-before.EmptyAcquireWaitTime()
	}
	m.connWaits.Add(int(waits))
	m.connWaitSeconds.Add(waited.Seconds())
}
