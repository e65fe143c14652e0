package projections

import (
	"testing"
	"time"

	"github.com/klivvr/whisper/projections/query"
	"github.com/twmb/franz-go/pkg/kgo"
)

// TestNoLagIsLeftBehindAMarker: the checkpoint moves past a transaction's end, and what was aborted makes no row.
func TestNoLagIsLeftBehindAMarker(t *testing.T) {
	t.Parallel()
	db, l := database(t), startLog(t)
	kept, aborted := tell("kept", "mona", now, 1), tell("aborted", "mona", now, 2)
	for _, tx := range []struct {
		id  string
		end kgo.TransactionEndTry
		rec *kgo.Record
	}{
		{"1", kgo.TryCommit, record(kept.accepted())},
		{"2", kgo.TryAbort, record(aborted.accepted())},
		{"3", kgo.TryCommit, record(kept.sent(time.Millisecond, 1, "socket"))},
	} {
		cl, err := kgo.NewClient(kgo.SeedBrokers(l.brokers...), kgo.TransactionalID(tx.id), kgo.RecordPartitioner(kgo.ManualPartitioner()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(cl.Close)
		if err := cl.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		if err := cl.ProduceSync(t.Context(), tx.rec).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if err := cl.EndTransaction(t.Context(), tx.end); err != nil {
			t.Fatal(err)
		}
	}
	r := start(t, config(l, db))
	caughtUp(t, l, db)
	if lag, err := r.Lag(t.Context()); err != nil || lag != 0 {
		t.Errorf("lag %d, %v", lag, err)
	}
	reader, err := query.Open(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	ds, err := reader.Deliveries(t.Context(), query.Filter{Since: now.Add(-time.Hour)})
	if err != nil || len(ds) != 1 || ds[0].NotificationID != "kept" {
		t.Errorf("deliveries %+v, %v", ds, err)
	}
}
