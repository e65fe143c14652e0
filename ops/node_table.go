package ops

import (
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/domain/whisperv1"
)

// NodeTable is what whisper.nodes says: the newest heartbeat of each node. The zero value is empty and ready to use; its
// methods may be called at the same time. `whisper nodes` and the health document read the same table.
type NodeTable struct {
	mu    sync.Mutex
	nodes map[string]*whisperv1.Node
	any   bool
}

// Fold takes the records of whisper.nodes, in the order of each partition. A heartbeat of an earlier start of a node
// changes nothing; a tombstone removes the node. A record that is no heartbeat is an error and changes nothing, too.
func (t *NodeTable) Fold(rec *kgo.Record) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.any = true
	name := string(rec.Key)
	if len(rec.Value) == 0 {
		delete(t.nodes, name)
		return nil
	}
	node := &whisperv1.Node{}
	if err := proto.Unmarshal(rec.Value, node); err != nil {
		return fmt.Errorf("%s/%d, offset %d: not a heartbeat: %w", rec.Topic, rec.Partition, rec.Offset, err)
	}
	node.Node = name // the key decides, as it does for compaction
	if t.nodes == nil {
		t.nodes = map[string]*whisperv1.Node{}
	}
	if old := t.nodes[name]; old.GetIncarnation() <= node.GetIncarnation() {
		t.nodes[name] = node
	}
	return nil
}

// Nodes are the newest heartbeats, sorted by the name of the node. They must not be changed.
func (t *NodeTable) Nodes() []*whisperv1.Node {
	t.mu.Lock()
	defer t.mu.Unlock()
	nodes := make([]*whisperv1.Node, 0, len(t.nodes))
	for _, name := range slices.Sorted(maps.Keys(t.nodes)) {
		nodes = append(nodes, t.nodes[name])
	}
	return nodes
}

// Any says whether there was a record of any gateway. That one ended is known for a day at least: a compacted topic
// keeps its tombstones for so long (delete.retention.ms).
func (t *NodeTable) Any() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.any
}
