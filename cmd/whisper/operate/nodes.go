package operate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/klivvr/whisper/cmd/whisper/cli"
	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/ops"
)

// Nodes is `whisper nodes`: it lists the gateways with their load and state.
type Nodes struct {
	Watch bool           `short:"w" help:"Print the table again every two seconds."`
	All   bool           `help:"Also show nodes that have been gone for more than an hour."`
	JSON  bool           `name:"json" help:"Print one JSON object a line."`
	Kafka cli.KafkaFlags `embed:"" group:"kafka"`
}

// Help implements kong.HelpProvider.
func (c *Nodes) Help() string {
	return `Reads the heartbeats of the gateways in whisper.nodes. A node is

    live      accepting connections
    draining  asking its clients to connect elsewhere, before it ends
    silent    without three heartbeats: it has died, or can't reach Kafka; its users are reached another way
    gone      ended after a drain, or silent for an hour

Examples:

    whisper nodes
    whisper nodes --json | jq 'select(.state == "silent")'`
}

func (c *Nodes) Check() error { return c.Kafka.Check() }

// nodesEvery is how often --watch prints.
const nodesEvery = 2 * time.Second

// nodeLine is what --json prints.
type nodeLine struct {
	Node         string        `json:"node"`
	State        ops.NodeState `json:"state"`
	Connections  int64         `json:"connections"`
	Limit        int64         `json:"limit"`
	Utilization  float64       `json:"utilization"`
	Incarnation  uint64        `json:"incarnation"`
	StartedAt    time.Time     `json:"started_at"` // an incarnation is the start's time in milliseconds
	HeartbeatAt  time.Time     `json:"heartbeat_at"`
	HeartbeatAge float64       `json:"heartbeat_age_seconds"`
	OpsAddr      string        `json:"ops_addr,omitempty"` // of its operations port
}

func (c *Nodes) Run(ctx context.Context, p *cli.Process) error {
	client, err := c.Kafka.ToolClient(ctx, p)
	if err != nil {
		return err
	}
	var nodes ops.NodeTable
	s := cli.Scan{Client: client, Topics: []string{consumers.TopicNodes}, Follow: c.Watch}
	if !c.Watch {
		if err := s.Run(ctx, nodes.Fold); err != nil {
			return err
		}
		return c.print(p.Stdout, nodeLines(&nodes, p.Now()))
	}
	// Following begins at the end, unless it is told since when: a heartbeat is never older than Kafka.
	s.Since = time.Unix(1, 0)
	caughtUp := make(chan struct{})
	s.CaughtUp = func() error { close(caughtUp); return nil }
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.Run(ctx, nodes.Fold) })
	group.Go(func() error { return c.watch(ctx, p, &nodes, caughtUp) })
	return group.Wait()
}

func (c *Nodes) watch(ctx context.Context, p *cli.Process, nodes *ops.NodeTable, caughtUp <-chan struct{}) error {
	tick := time.NewTicker(nodesEvery)
	defer tick.Stop()
	select {
	case <-ctx.Done():
		return nil
	case <-caughtUp:
	}
	for {
		if err := c.print(p.Stdout, nodeLines(nodes, p.Now())); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if !c.JSON {
			_, _ = fmt.Fprintln(p.Stdout)
		}
	}
}

// nodeLines are the nodes as they are printed: who is there first, then by name.
func nodeLines(t *ops.NodeTable, now time.Time) []nodeLine {
	lines := []nodeLine{}
	for _, n := range t.Nodes() {
		at := time.UnixMicro(n.GetAtUs()).UTC()
		l := nodeLine{
			Node: n.GetNode(), Connections: n.GetConnections(), Limit: n.GetLimit(), Incarnation: n.GetIncarnation(),
			StartedAt:   time.UnixMilli(int64(n.GetIncarnation())).UTC(),
			HeartbeatAt: at, HeartbeatAge: max(0, now.Sub(at).Seconds()), OpsAddr: n.GetOpsAddr(),
		}
		if l.Limit > 0 {
			l.Utilization = float64(l.Connections) / float64(l.Limit)
		}
		l.State = ops.StateOfNode(n, now)
		if l.State == ops.NodeSilent || l.State == ops.NodeGone {
			l.Connections, l.Utilization = 0, 0 // they went elsewhere
		}
		lines = append(lines, l)
	}
	slices.SortStableFunc(lines, func(a, b nodeLine) int { return cmp.Compare(rank(a), rank(b)) })
	return lines
}

func rank(l nodeLine) int {
	if l.State == ops.NodeGone {
		return 1
	}
	return 0
}

func (c *Nodes) print(w io.Writer, lines []nodeLine) error {
	if !c.All {
		lines = slices.DeleteFunc(lines, func(l nodeLine) bool {
			return l.State == ops.NodeGone && l.HeartbeatAge > ops.ForgetNode.Seconds()
		})
	}
	if c.JSON {
		var errs []error
		for _, l := range lines {
			errs = append(errs, cli.PrintJSON(w, l))
		}
		return errors.Join(errs...)
	}
	if len(lines) == 0 {
		_, err := fmt.Fprintln(w, "no gateway has told of itself")
		return err
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, "NODE\tSTATE\tCONNECTIONS\tLIMIT\tUSED\tSTARTED\tLAST HEARTBEAT")
	for _, l := range lines {
		_, _ = fmt.Fprintf(table, "%s\t%s\t%d\t%d\t%.0f%%\t%s\t%s ago\n", l.Node, l.State, l.Connections, l.Limit, 100*l.Utilization,
			l.StartedAt.Format("2006-01-02T15:04:05Z"), age(l.HeartbeatAge))
	}
	return table.Flush()
}

// age is as exact as a person needs it.
func age(seconds float64) time.Duration {
	d := time.Duration(seconds * float64(time.Second))
	if d < time.Minute {
		return d.Round(100 * time.Millisecond)
	}
	return d.Round(time.Second)
}
