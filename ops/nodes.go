package ops

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// NodeHealth is one gateway in the health document.
type NodeHealth struct {
	Node        string    `json:"node"`
	Incarnation uint64    `json:"incarnation"`
	State       NodeState `json:"state"` // live, draining or silent
	Connections int64     `json:"connections"`
	Limit       int64     `json:"limit"`
	Utilization float64   `json:"utilization"`
	HeartbeatAt time.Time `json:"heartbeat_at"`
}

// NodeState is the state of a node, judged by its last heartbeat and the time since.
type NodeState string

// The states of a node.
const (
	NodeLive     NodeState = "live"
	NodeDraining NodeState = "draining"
	// NodeSilent has died, or can't reach Kafka.
	NodeSilent NodeState = "silent"
	// NodeGone has ended after a drain, or has been silent for longer than ForgetNode.
	NodeGone NodeState = "gone"
)

const (
	// missedHeartbeats make a node silent: one may be late, two may be a broker's election.
	missedHeartbeats = 3
	// heartbeatFallback is for a record that names no interval.
	heartbeatFallback = 2 * time.Second
	// ForgetNode is how long a node is silent before it counts as gone: a node that crashed and is not
	// replaced must not keep the whole system degraded for ever.
	ForgetNode = time.Hour
)

// StateOfNode judges a node by its last heartbeat.
func StateOfNode(n *whisperv1.Node, now time.Time) NodeState {
	age := now.Sub(time.UnixMicro(n.GetAtUs()))
	silent := age > missedHeartbeats*cmp.Or(time.Duration(n.GetHeartbeatMs())*time.Millisecond, heartbeatFallback)
	switch {
	case silent && (n.GetDraining() || age > ForgetNode):
		return NodeGone
	case silent:
		return NodeSilent
	case n.GetDraining():
		return NodeDraining
	default:
		return NodeLive
	}
}

// connections adds up the nodes that are alive.
func (m *HealthMonitor) connections(doc *Health, now time.Time) {
	doc.Nodes = m.nodes.list(now)
	if err := m.nodes.ready(); err != nil {
		doc.Reasons = append(doc.Reasons, "the nodes are unknown: still "+err.Error())
	}
	var limit int64
	for _, n := range doc.Nodes {
		if n.State == NodeSilent {
			doc.Reasons = append(doc.Reasons, fmt.Sprintf("node %s is silent since %s", n.Node, n.HeartbeatAt.Format(time.RFC3339)))
			continue // its connections are gone, or are counted where they went
		}
		doc.ActiveConnections += n.Connections
		limit += n.Limit
		if n.Utilization > m.cfg.MaxUtilization {
			doc.Reasons = append(doc.Reasons, fmt.Sprintf("node %s is %.0f%% full", n.Node, 100*n.Utilization))
		}
	}
	doc.Utilization = ratio(doc.ActiveConnections, limit)
	live := slices.ContainsFunc(doc.Nodes, func(n NodeHealth) bool { return n.State == NodeLive })
	if m.nodes.ready() == nil && m.nodes.table.Any() && !live {
		doc.Reasons = append(doc.Reasons, "no gateway is live, though there were some: nobody can connect")
	}
}

func ratio(n, of int64) float64 {
	if of == 0 {
		return 0
	}
	return float64(n) / float64(of)
}

// nodeWatch follows whisper.nodes into a NodeTable.
type nodeWatch struct {
	reader *consumers.Reader
	table  NodeTable

	read chan struct{} // closed when everything that was there has been read
}

func newNodeWatch(c consumers.ClientConfig) (*nodeWatch, error) {
	reader, err := consumers.NewReader(c)
	if err != nil {
		return nil, err
	}
	return &nodeWatch{reader: reader, read: make(chan struct{})}, nil
}

func (w *nodeWatch) run(ctx context.Context) error {
	defer w.reader.Close()
	caughtUp, err := w.reader.Follow(ctx, consumers.TopicNodes, 0, consumers.FromStart, w.fold)
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return err
	}
	go func() {
		select {
		case <-caughtUp:
			close(w.read)
		case <-ctx.Done():
		}
	}()
	return w.reader.Run(ctx)
}

func (w *nodeWatch) ready() error {
	select {
	case <-w.read:
		return nil
	default:
		return errors.New("reading the nodes' heartbeats")
	}
}

// fold skips records that are no heartbeats: the gateway and dispatch log them.
func (w *nodeWatch) fold(records []*kgo.Record) {
	for _, rec := range records {
		_ = w.table.Fold(rec)
	}
}

// list is sorted by name; nodes that are gone are left out.
func (w *nodeWatch) list(now time.Time) []NodeHealth {
	nodes := []NodeHealth{}
	for _, n := range w.table.Nodes() {
		state := StateOfNode(n, now)
		if state == NodeGone {
			continue
		}
		nodes = append(nodes, NodeHealth{
			Node: n.GetNode(), Incarnation: n.GetIncarnation(), State: state,
			Connections: n.GetConnections(), Limit: n.GetLimit(), Utilization: ratio(n.GetConnections(), n.GetLimit()),
			HeartbeatAt: time.UnixMicro(n.GetAtUs()).UTC(),
		})
	}
	return nodes
}
