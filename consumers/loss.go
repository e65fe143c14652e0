package consumers

import (
	"fmt"

	"github.com/VictoriaMetrics/metrics"
	"github.com/twmb/franz-go/pkg/kgo"
)

// complete says whether the loop may go on with what was fetched. Where retention has removed records before
// the group read them it may not, until somebody has said that their loss is accepted.
func (l *Loop) complete(w *worker, f kgo.FetchTopicPartition) bool {
	return l.accepts(w, w.overtaken(f), f.LogStartOffset)
}

// accepts says whether the loop may go on without records that retention has removed, and counts them.
func (l *Loop) accepts(w *worker, lost, from int64) bool {
	if lost == 0 {
		return true
	}
	RecordsLost(l.cfg.Group, w.part.Topic).AddInt64(lost)
	if l.cfg.Client.AcceptLoss {
		l.cfg.Client.logger().Error("retention removed offsets before they were read, going on without them",
			"group", l.cfg.Group, "topic", w.part.Topic, "partition", w.part.ID, "offsets", lost, "from", from)
		return true
	}
	l.fail(w.part, "read", Reaching(ReachProcess, fmt.Errorf(
		"up to %d records before offset %d were removed by retention before group %s read them: "+
			"they are lost; to go on without them start once with --kafka-accept-loss, and see that the topic's retention outlasts every outage",
		lost, from, l.cfg.Group)))
	return false
}

// RecordsLost counts the offsets that retention removed before the group read them: of records, or of the markers of transactions.
func RecordsLost(group, topic string) *metrics.Counter {
	return metrics.GetOrCreateCounter(fmt.Sprintf(`whisper_records_lost_total{group=%q,topic=%q}`, group, topic))
}
