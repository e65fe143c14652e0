package dispatch_test

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

func (s *setup) transaction(end kgo.TransactionEndTry, id string, recs ...*kgo.Record) {
	s.t.Helper()
	tx, err := kgo.NewClient(kgo.SeedBrokers(s.client.Brokers...), kgo.TransactionalID(id), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(tx.Close)
	if err := tx.BeginTransaction(); err != nil {
		s.t.Fatal(err)
	}
	if err := tx.ProduceSync(s.t.Context(), recs...).FirstErr(); err != nil {
		s.t.Fatal(err)
	}
	if err := tx.EndTransaction(s.t.Context(), end); err != nil {
		s.t.Fatal(err)
	}
}

// TestARestoreEndsWhereTheLastOffsetsHoldNoRecord: it waits for the facts and the lanes to be replayed to their
// ends, where a transaction may have left a marker. What the transaction aborted is not delivered.
func TestARestoreEndsWhereTheLastOffsetsHoldNoRecord(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	s.connect("mona", "s1", 1)
	s.transaction(kgo.TryCommit, "lane", s.delivery(domain.High, "mona", "paid"))
	s.transaction(kgo.TryAbort, "aborted", s.delivery(domain.High, "mona", "taken-back"))
	fact, err := consumers.EventRecord(consumers.TopicEvents, consumers.PartitionOf("mona", partitions), &whisperv1.Event{
		NotificationId: "x", UserId: "mona", Kind: &whisperv1.Event_DeliveryDelivered{DeliveryDelivered: &whisperv1.DeliveryDelivered{Attempt: 1}},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.transaction(kgo.TryAbort, "facts", fact)
	s.start()
	node, lane := consumers.TopicNode("n1"), consumers.TopicDeliveries(domain.High)
	s.eventually("what was committed is routed", func() bool { return len(s.of(node)) == 1 })
	r := &whisperv1.Route{}
	if err := proto.Unmarshal(s.of(node)[0].Value, r); err != nil || r.GetNotificationId() != "paid" {
		t.Fatalf("routed %v, %v", r, err)
	}
	s.ack(s.of(node))
	s.eventually("the lane is let go to its end", func() bool { return s.lag(lane) == 0 })
	s.eventually("so are the facts", func() bool { return s.lag(consumers.TopicEvents) == 0 })
	if n := len(s.of(node)); n != 1 {
		t.Errorf("%d routes, want 1", n)
	}
}
