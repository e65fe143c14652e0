package dispatch

import (
	"log/slog"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/klivvr/whisper/consumers"
)

func TestTopicsOfNodesThatNeverReturnAreDeleted(t *testing.T) {
	t.Parallel()
	all := []string{consumers.TopicNode("lives"), consumers.TopicNode("gone"), consumers.TopicNode("returns"), consumers.TopicNodes, "whisper.node.", "other.node.gone"}
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, all...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	client := consumers.ClientConfig{Brokers: cluster.ListenAddrs(), ClientID: "test"}
	adm, err := client.Admin()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(adm.Close)
	var committed kadm.Offsets
	committed.AddOffset(consumers.TopicNode("gone"), 0, 7, -1)
	if err := adm.CommitAllOffsets(t.Context(), consumers.GroupNode("gone"), committed); err != nil {
		t.Fatal(err)
	}
	topics := func() (names map[string]bool) {
		t.Helper()
		adm, err := client.Admin() // one that has nothing cached
		if err != nil {
			t.Fatal(err)
		}
		defer adm.Close()
		listed, err := adm.ListTopics(t.Context(), all...)
		if err != nil {
			t.Fatal(err)
		}
		names = map[string]bool{}
		for name, detail := range listed {
			if detail.Err == nil {
				names[name] = true
			}
		}
		return names
	}
	n := newNodeTopics(client, slog.New(slog.DiscardHandler))
	n.look(t.Context(), map[string]bool{"lives": true})
	if got := topics(); len(got) != len(all) {
		t.Fatalf("after the first look there are only %v", got)
	}
	n.look(t.Context(), map[string]bool{"lives": true, "returns": true})
	if got := topics(); len(got) != len(all)-1 || got[consumers.TopicNode("gone")] {
		t.Fatalf("after the second look there are %v", got)
	}
	n.look(t.Context(), map[string]bool{"lives": true}) // it left again, just now
	if got := topics(); len(got) != len(all)-1 {
		t.Errorf("a node that returned in between counts as one that was away: %v", got)
	}
	groups, err := adm.ListGroups(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, is := groups[consumers.GroupNode("gone")]; is {
		t.Error("what the node had committed is still there")
	}
}
