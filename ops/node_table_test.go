package ops

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/domain/whisperv1"
)

func TestANodeTableHasTheNewestHeartbeatOfEachNode(t *testing.T) {
	t.Parallel()
	var table NodeTable
	if table.Any() || len(table.Nodes()) > 0 {
		t.Error("an empty table knows a node")
	}
	heartbeat := func(name string, incarnation uint64, connections int64) {
		t.Helper()
		value, err := proto.Marshal(&whisperv1.Node{Node: name, Incarnation: incarnation, Connections: connections})
		if err != nil {
			t.Fatal(err)
		}
		if err := table.Fold(&kgo.Record{Key: []byte(name), Value: value}); err != nil {
			t.Fatal(err)
		}
	}
	heartbeat("eu-2", 5, 1)
	heartbeat("eu-1", 5, 1)
	heartbeat("eu-1", 5, 2)
	heartbeat("eu-1", 4, 3) // late, of an earlier start
	heartbeat("eu-3", 5, 1)
	if err := table.Fold(&kgo.Record{Key: []byte("eu-3")}); err != nil {
		t.Fatal(err)
	}
	if err := table.Fold(&kgo.Record{Key: []byte("eu-2"), Value: []byte("\xff")}); err == nil {
		t.Error("what is no heartbeat is taken for one")
	}
	nodes := table.Nodes()
	if len(nodes) != 2 || nodes[0].GetNode() != "eu-1" || nodes[0].GetConnections() != 2 || nodes[1].GetNode() != "eu-2" {
		t.Errorf("the table has %v", nodes)
	}
	if err := table.Fold(&kgo.Record{Key: []byte("eu-1")}); err != nil {
		t.Fatal(err)
	}
	if err := table.Fold(&kgo.Record{Key: []byte("eu-2")}); err != nil {
		t.Fatal(err)
	}
	if !table.Any() || len(table.Nodes()) > 0 {
		t.Error("after all ended, a table knows that there were some, and has none")
	}
}
