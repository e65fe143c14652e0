package dispatch_test

import (
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
)

// TestDispatchDecidesAfterRetentionTookEverything: everything that it had not read of its facts and of a lane was
// removed, to the end. Where that is accepted it decides what comes, and its offsets are behind what is gone.
func TestDispatchDecidesAfterRetentionTookEverything(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	s.connect("mona", "s1", 1)
	node, low := consumers.TopicNode("n1"), consumers.TopicDeliveries(domain.Low)
	stop := s.start()
	for i := range 5 {
		s.ask(domain.Low, "mona", fmt.Sprint("n-", i))
	}
	s.eventually("five routes", func() bool { return len(s.of(node)) == 5 })
	stop()
	s.ack(s.of(node)) // while dispatch is away
	if s.lag(low) == 0 || s.lag(consumers.TopicEvents) == 0 {
		t.Fatal("nothing is left to be read")
	}
	ends, err := s.adm.ListEndOffsets(t.Context(), low, consumers.TopicEvents)
	if err != nil {
		t.Fatal(err)
	}
	gone := kadm.Offsets{}
	ends.Each(func(o kadm.ListedOffset) { gone.AddOffset(o.Topic, o.Partition, o.Offset, -1) })
	if _, err := s.adm.DeleteRecords(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	s.client.AcceptLoss = true
	s.start()
	s.eventually("what is gone is passed", func() bool { return s.lag(low) == 0 })
	s.ask(domain.Low, "mona", "later")
	s.eventually("it decides", func() bool { return len(s.of(node)) == 6 })
	s.ack(s.of(node)[5:])
	s.eventually("everything is let go", func() bool { return s.lag(low) == 0 && s.lag(consumers.TopicEvents) == 0 })
}
