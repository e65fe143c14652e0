package consumers

import (
	"log/slog"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
)

// Partitions that are added after the client's metadata and before the first look are in that look already: no later
// one shows that they are new.
func TestTheFirstLookAtATopicRefreshesTheClient(t *testing.T) {
	t.Parallel()
	grown := 0
	w := newTopicWatch(nil, slog.New(slog.DiscardHandler), func(string) { grown++ }, func(string) { t.Error("made anew") })
	found := kadm.TopicDetail{Topic: "requests", ID: kadm.TopicID{1}, Partitions: kadm.PartitionDetails{0: {}, 1: {}, 2: {}}}
	seen := w.look(t.Context(), "requests", topicSeen{}, found)
	if grown != 1 {
		t.Errorf("the first look has the client refresh its metadata %d times, want once", grown)
	}
	seen = w.look(t.Context(), "requests", seen, found)
	if grown != 1 {
		t.Error("a look that finds nothing new refreshes the client's metadata")
	}
	found.Partitions[3] = kadm.PartitionDetail{}
	w.look(t.Context(), "requests", seen, found)
	if grown != 2 {
		t.Error("an added partition does not refresh the client's metadata")
	}
}
