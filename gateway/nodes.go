package gateway

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// headerProcess tells two processes apart that took the same incarnation in the same millisecond.
const headerProcess = "process"

// nodes is this node's place among all: its incarnation, its heartbeat, and whether another process
// has taken its name.
type nodes struct {
	g       *Gateway
	process string

	mu      sync.Mutex
	highest uint64 // of this node's name in whisper.nodes
	owned   bool   // our record came first for our incarnation
	lost    error
	gone    chan struct{} // closed when lost is set

	draining atomic.Bool
	beating  atomic.Bool // a heartbeat is on its way
}

func newNodes(g *Gateway) *nodes {
	return &nodes{g: g, process: randomID(), gone: make(chan struct{})}
}

// claim reads what there is of this node and takes the next incarnation. It goes on following, to notice
// a later one.
func (n *nodes) claim(ctx context.Context) error {
	caughtUp, err := n.g.broker.Follow(ctx, consumers.TopicNodes, n.partition(), consumers.FromStart, n.seen)
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-caughtUp:
	}
	n.mu.Lock()
	own := max(uint64(n.g.cfg.Now().UnixMilli()), n.highest+1)
	n.g.incarnation.Store(own)
	n.mu.Unlock()
	return nil
}

// again takes another incarnation, with all sockets open: what dispatch had written to a topic that was deleted is lost,
// and with a new incarnation it writes anew all that is open, as after a start.
func (n *nodes) again() {
	n.mu.Lock()
	own := max(uint64(n.g.cfg.Now().UnixMilli()), n.highest+1, n.g.incarnation.Load()+1)
	n.g.incarnation.Store(own)
	n.owned = false
	n.mu.Unlock()
	n.g.cfg.Logger.Warn("the node's topic was deleted; it is there again, and what is open is sent anew",
		"node", n.g.cfg.Node, "incarnation", own)
	n.beat(func(error) {})
	n.g.hub.tellAll()
}

// announce writes the first heartbeat and waits for it: from then on dispatch knows the incarnation. It comes
// after lanes.follow because its own record also wakes the reader's pending fetch, which does not ask for
// partitions that were added meanwhile (up to 5 s).
func (n *nodes) announce(ctx context.Context) error {
	done := make(chan error, 1)
	n.beat(func(err error) { done <- err })
	select {
	case <-ctx.Done():
		return ctx.Err()
	case err := <-done:
		return err
	}
}

func (n *nodes) partition() int32 {
	return consumers.PartitionOf(n.g.cfg.Node, n.g.cfg.NodesPartitions)
}

// seen takes the records of whisper.nodes in order, our own among them.
func (n *nodes) seen(records []*kgo.Record) {
	for _, rec := range records {
		if string(rec.Key) != n.g.cfg.Node {
			continue
		}
		if len(rec.Value) == 0 {
			n.forgotten(incarnationOf(rec))
			continue
		}
		var node whisperv1.Node
		if err := proto.Unmarshal(rec.Value, &node); err != nil {
			n.g.cfg.Logger.Warn("heartbeat does not decode", "partition", rec.Partition, "offset", rec.Offset, "error", err)
			continue
		}
		n.compare(node.GetIncarnation(), processOf(rec))
	}
}

func processOf(rec *kgo.Record) string {
	process, _ := consumers.Header(rec, headerProcess)
	return string(process)
}

// compare holds a record of this node's name against our claim. Two processes with one incarnation
// both see whose record came first, and agree.
func (n *nodes) compare(incarnation uint64, process string) {
	n.mu.Lock()
	n.highest = max(n.highest, incarnation)
	own := n.g.incarnation.Load()
	if incarnation == own && process == n.process {
		n.owned = true
	}
	lost := own != 0 && (incarnation > own || incarnation == own && !n.owned)
	n.mu.Unlock()
	if lost {
		_ = n.lostTo(incarnation)
	}
}

// forgotten: dispatch has removed an incarnation that it took for one that never returns, and what it had told of its
// users. If it is ours, we were silent for an hour: it must start again, since nobody knows who is connected here.
func (n *nodes) forgotten(incarnation uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.highest = max(n.highest, incarnation)
	if own := n.g.incarnation.Load(); own != 0 && incarnation == own && n.lost == nil {
		n.lost = fmt.Errorf("node %q was silent for so long that it was forgotten, with who is connected to it: start it again", n.g.cfg.Node)
		close(n.gone)
	}
}

// incarnationOf is the header that says whose end a tombstone is; 0: not known.
func incarnationOf(rec *kgo.Record) uint64 {
	value, _ := consumers.Header(rec, HeaderIncarnation)
	own, _ := strconv.ParseUint(string(value), 10, 64) // 0, not known, on an error
	return own
}

// lostTo notes that another process runs under our name and returns why we stop.
func (n *nodes) lostTo(incarnation uint64) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.lost == nil {
		n.lost = fmt.Errorf(
			"another gateway was started as node %q (incarnation %d, this one has %d): this one stops; give each gateway a node id of its own",
			n.g.cfg.Node, incarnation, n.g.incarnation.Load())
		close(n.gone)
	}
	return n.lost
}

func (g *Gateway) superseded() bool {
	select {
	case <-g.nodes.gone:
		return true
	default:
		return false
	}
}

func (n *nodes) run(ctx context.Context) error {
	ticker := time.NewTicker(n.g.cfg.Heartbeat)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-n.gone:
			return n.lost
		case <-ticker.C:
			// One at a time: while Kafka is away they would only pile up.
			if n.beating.CompareAndSwap(false, true) {
				n.beat(func(error) { n.beating.Store(false) })
			}
		}
	}
}

func (n *nodes) beat(done func(error)) {
	cfg := n.g.cfg
	n.g.broker.Publish(&kgo.Record{
		Topic:     consumers.TopicNodes,
		Partition: n.partition(),
		Key:       []byte(cfg.Node),
		Value: mustMarshal(&whisperv1.Node{
			Node:        cfg.Node,
			Incarnation: n.g.incarnation.Load(),
			Connections: n.g.connections.Load(),
			Limit:       n.g.limit.Load(), // what is possible here, not what was wished for
			Draining:    n.draining.Load(),
			AtUs:        n.g.stamp.next(),
			HeartbeatMs: cfg.Heartbeat.Milliseconds(),
			OpsAddr:     cfg.OpsAddr,
		}),
		Headers: []kgo.RecordHeader{{Key: headerProcess, Value: []byte(n.process)}},
	}, done)
}
