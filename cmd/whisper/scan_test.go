package main

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/consumers"
)

// TestAScanEndsBehindAMarker and shows what was committed only.
func TestAScanEndsBehindAMarker(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	for _, tx := range []struct {
		id  string
		end kgo.TransactionEndTry
	}{{"kept", kgo.TryCommit}, {"taken-back", kgo.TryAbort}} {
		cl, err := kgo.NewClient(kgo.SeedBrokers(b.addr), kgo.TransactionalID(tx.id))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(cl.Close)
		if err := cl.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: consumers.TopicTemplates, Key: []byte(tx.id)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if err := cl.EndTransaction(t.Context(), tx.end); err != nil {
			t.Fatal(err)
		}
	}
	recs := b.read(t, consumers.TopicTemplates)
	if len(recs) != 1 || string(recs[0].Key) != "kept" {
		t.Errorf("read %d records: %v", len(recs), recs)
	}
}
