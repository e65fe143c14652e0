package dispatch

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain/decide"
)

// forgetAfter is how long a node must be silent, while its heartbeats would have been read, until it counts as one
// that never returns: its heartbeat and what it told of users are removed.
const forgetAfter = time.Hour

// sweepEvery is how often the tables look for such nodes.
const sweepEvery = time.Minute

// sweeper counts how long each node is away. Only time counts in which all heartbeats that Kafka has were read: a
// node that could not write since Kafka was away comes back with it. It starts at 0 with each process.
type sweeper struct {
	looked   time.Time     // when all heartbeats were read the last time
	listened time.Duration // since then nothing was told
	known    time.Duration // by this process in all
	away     map[string]time.Duration
	topics   time.Duration // since the topics of nodes were looked at
}

// due: it is time for a look.
func (s *sweeper) due(now time.Time) bool { return now.Sub(s.looked) >= sweepEvery }

// look counts the time since the last look for those who are away and says who is so for good, by incarnation, and
// whether partitions are to be told. The caller holds the tables' lock, and has read all heartbeats.
func (s *sweeper) look(now time.Time, nodes map[string]*nodeState) (over map[string]uint64, tell bool) {
	passed := min(now.Sub(s.looked), 2*sweepEvery) // what is longer was spent asleep, or without Kafka
	if s.looked.IsZero() || passed < 0 {
		passed = 0
	}
	s.looked = now
	s.listened += passed
	s.known += passed
	s.topics += passed
	if s.away == nil {
		s.away = map[string]time.Duration{}
	}
	over = map[string]uint64{}
	for node, n := range nodes {
		if n.alive {
			delete(s.away, node)
			continue
		}
		if s.away[node] += passed; s.away[node] >= forgetAfter {
			over[node] = n.incarnation
		}
	}
	for node := range s.away {
		if nodes[node] == nil {
			delete(s.away, node)
		}
	}
	// Nodes without a heartbeat are away since before this process: they are swept with the first hour, and what
	// came with a partition that was taken over with the next.
	tell = s.known >= forgetAfter && (len(over) > 0 || s.listened >= forgetAfter)
	if tell {
		s.listened = 0
	}
	return over, tell
}

// sweep looks for nodes that never return, when all heartbeats before next are read. It tells the partitions, which
// remove what they have of them, and returns whose heartbeats are to be removed. Once an hour it returns also which nodes
// are known, for those that are not may have a topic.
func (t *tables) sweep(next int64) (over map[string]uint64, known map[string]bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.nodesNext < next {
		return nil, nil
	}
	now := t.now()
	over, tell := t.sweeper.look(now, t.nodes)
	if t.sweeper.topics >= forgetAfter {
		t.sweeper.topics = 0
		known = map[string]bool{}
		for node := range t.nodes {
			known[node] = true
		}
	}
	if !tell {
		return nil, known
	}
	kept := map[string]bool{}
	for node := range t.nodes {
		if _, ok := over[node]; !ok {
			kept[node] = true
		}
	}
	if len(over) > 0 {
		t.log.Info("nodes that did not return are forgotten", "nodes", slices.Sorted(maps.Keys(over)))
	}
	t.tell(decide.NodesSwept{Kept: kept, Before: now.Add(-forgetAfter)})
	return over, known
}

// ended takes the end of a heartbeat: another process has forgotten the node. A later start of it goes on.
func (t *tables) ended(rec *kgo.Record) {
	node := string(rec.Key)
	n := t.nodes[node]
	if n == nil {
		return
	}
	if of := incarnationOf(rec); of != 0 && of < n.incarnation {
		return
	}
	t.gone(node)
	delete(t.nodes, node)
}

// forgetNodes ends the heartbeats of nodes, each for the incarnation that did not return. Every dispatch process does
// so, and it is the same record.
func (r *Role) forgetNodes(ctx context.Context, over map[string]uint64) {
	for node, incarnation := range over {
		r.bulk.Publish(ctx, &kgo.Record{
			Topic: consumers.TopicNodes, Partition: 0, Key: []byte(node), Headers: incarnationHeader(incarnation),
		}, nil)
	}
}

// putPresence writes in a node's name what it can't write any more itself.
func (p *partition) putPresence(o decide.PutPresence) {
	rec := &kgo.Record{
		Topic: consumers.TopicPresence, Partition: p.id, Key: []byte(o.User + "\x00" + o.Node), Headers: incarnationHeader(o.Incarnation),
	}
	if o.Presence == nil {
		p.publish(p.role.bulk, rec, nil)
		return
	}
	p.publish(p.role.bulk, rec, o.Presence)
}

// incarnationHeader is the one that gateways write; see incarnationOf.
func incarnationHeader(incarnation uint64) []kgo.RecordHeader {
	return []kgo.RecordHeader{{Key: "incarnation", Value: strconv.AppendUint(nil, incarnation, 10)}}
}
