package dispatch_test

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// TestCountsAreWrittenBeforeWhatTheyCountAndOrderIsKept: a user's deliveries arrive as they were asked for,
// those of a capped category and the others, and a second dispatch knows what the first has counted.
func TestCountsAreWrittenBeforeWhatTheyCountAndOrderIsKept(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	s.publish(&kgo.Record{Topic: consumers.TopicCategories, Key: []byte("promo"), Value: []byte(`{"caps":[{"n":3,"per":"week"}]}`)}, nil)
	s.publish(&kgo.Record{Topic: consumers.TopicCategories, Key: []byte("broken"), Value: []byte(`{"caps":[{"n":-1,"per":"week"}]}`)}, nil)
	s.connect("mona", "s1", 1)
	stop := s.start()
	ask := func(notification, category string) {
		rec := s.delivery(domain.Normal, "mona", notification, domain.ChannelSocket)
		ev := &whisperv1.Event{}
		if err := proto.Unmarshal(rec.Value, ev); err != nil {
			t.Fatal(err)
		}
		ev.GetDeliveryAccepted().Category = category
		s.publish(rec, ev)
	}
	for _, n := range []string{"a", "b", "c"} {
		ask(n, "promo")
		ask(n+"-plain", "default")
	}
	var got []string
	s.eventually("everything is routed", func() bool {
		got = got[:0]
		for _, rec := range s.of(consumers.TopicNode("n1")) {
			r := &whisperv1.Route{}
			if err := proto.Unmarshal(rec.Value, r); err != nil {
				t.Fatal(err)
			}
			got = append(got, r.GetNotificationId())
		}
		return len(got) >= 6
	})
	for i, want := range []string{"a", "a-plain", "b", "b-plain", "c", "c-plain"} {
		if got[i] != want {
			t.Fatalf("routed %v", got)
		}
	}
	// The test's reader may come to the counts after the routes.
	s.eventually("each of the capped ones is counted", func() bool {
		counted := 0
		for _, rec := range s.of(consumers.TopicCounters) {
			m := &whisperv1.Counted{}
			if err := proto.Unmarshal(rec.Value, m); err != nil {
				t.Fatal(err)
			}
			counted += len(m.GetUsers())
		}
		if counted > 3 {
			t.Fatalf("%d deliveries were counted, want 3", counted)
		}
		return counted == 3
	})
	stop()
	s.start()
	ask("d", "promo.shoes")
	s.eventually("the fourth is one too many", func() bool {
		for _, rec := range s.of(consumers.TopicEvents) {
			ev := &whisperv1.Event{}
			if err := proto.Unmarshal(rec.Value, ev); err != nil {
				t.Fatal(err)
			}
			if k := ev.GetDeliverySuppressed(); ev.GetNotificationId() == "d" && k.GetReason() == domain.ReasonCap && k.GetCount() == 3 {
				return true
			}
		}
		return false
	})
}
