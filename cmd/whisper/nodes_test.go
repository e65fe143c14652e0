package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain/whisperv1"
	"github.com/klivvr/whisper/ops"
)

func (b *broker) heartbeat(t *testing.T, node *whisperv1.Node, ago time.Duration) {
	t.Helper()
	now := time.Now()
	node.AtUs = now.Add(-ago).UnixMicro()
	if node.Incarnation == 0 {
		node.Incarnation = uint64(now.Add(-ago - time.Hour).UnixMilli())
	}
	value, err := proto.Marshal(node)
	if err != nil {
		t.Fatal(err)
	}
	b.write(t, &kgo.Record{Topic: consumers.TopicNodes, Key: []byte(node.GetNode()), Value: value})
}

// listedNode is part of what `whisper nodes --json` prints.
type listedNode struct {
	Node         string
	State        ops.NodeState
	Utilization  float64
	Incarnation  uint64
	StartedAt    time.Time `json:"started_at"`
	HeartbeatAt  time.Time `json:"heartbeat_at"`
	HeartbeatAge float64   `json:"heartbeat_age_seconds"`
}

func TestNodesAreListedWithTheirStates(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	if got := b.whisper(t, "nodes"); got != "no gateway has told of itself\n" {
		t.Errorf("got %q", got)
	}
	const minute = 60_000
	later := uint64(time.Now().UnixMilli())
	b.heartbeat(t, &whisperv1.Node{Node: "live", Connections: 40, Limit: 50, HeartbeatMs: minute, Incarnation: later}, 0)
	b.heartbeat(t, &whisperv1.Node{Node: "live", Connections: 7, Limit: 50, HeartbeatMs: minute, Incarnation: later - 1}, 0) // history
	b.heartbeat(t, &whisperv1.Node{Node: "leaving", Connections: 5, Limit: 50, HeartbeatMs: minute, Draining: true}, 0)
	b.heartbeat(t, &whisperv1.Node{Node: "dead", Connections: 9, Limit: 50}, time.Minute)
	b.heartbeat(t, &whisperv1.Node{Node: "ended", Limit: 50, Draining: true}, time.Minute)
	b.heartbeat(t, &whisperv1.Node{Node: "long-gone", Limit: 50}, 2*time.Hour)
	b.heartbeat(t, &whisperv1.Node{Node: "removed", Limit: 50}, 0)
	b.write(t, &kgo.Record{Topic: consumers.TopicNodes, Key: []byte("removed")})

	want := []string{"dead silent 0 50 0%", "leaving draining 5 50 10%", "live live 40 50 80%", "ended gone 0 50 0%"}
	table := lines(b.whisper(t, "nodes"))
	if len(table) != 1+len(want) || strings.Join(strings.Fields(table[0]), " ") != "NODE STATE CONNECTIONS LIMIT USED STARTED LAST HEARTBEAT" {
		t.Fatalf("got %q", table)
	}
	for i, w := range want {
		if got := strings.Join(strings.Fields(table[i+1]), " "); !strings.HasPrefix(got, w+" 20") || !strings.HasSuffix(got, "ago") {
			t.Errorf("line %d is %q, want %q", i, got, w)
		}
	}
	docs := lines(b.whisper(t, "nodes", "--json", "--all"))
	if len(docs) != len(want)+1 {
		t.Fatalf("got %q", docs)
	}
	n := decode[listedNode](t, docs[2])
	if n.Node != "live" || n.State != ops.NodeLive || n.Utilization != .8 || n.Incarnation != later ||
		n.StartedAt.UnixMilli() != int64(later) ||
		n.HeartbeatAge < 0 || n.HeartbeatAge > 60 || n.HeartbeatAt.IsZero() {
		t.Errorf("got %+v", n)
	}
	if last := decode[listedNode](t, docs[4]); last.Node != "long-gone" || last.State != ops.NodeGone {
		t.Errorf("got %+v", last)
	}
}

func TestTheOperatorsPageIsTrue(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	b.heartbeat(t, &whisperv1.Node{Node: "eu-1", Connections: 40, Limit: 50}, 0)
	if out := runBlocks(t, "operations.md", "whisper nodes", "WHISPER_KAFKA="+b.addr); strings.Count(out, "eu-1") != 2 {
		t.Fatal(out)
	}
}

func TestNodesAreWatched(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	b.heartbeat(t, &whisperv1.Node{Node: "first", Limit: 50}, 0)
	ctx, cancel := context.WithCancel(t.Context())
	var out, errs written
	ended := make(chan int, 1)
	go func() {
		ended <- program{args: []string{"nodes", "--watch", "--json"}, environ: []string{"WHISPER_KAFKA=" + b.addr}, stdout: &out, stderr: &errs}.Run(ctx)
	}()
	appears := func(node string) {
		t.Helper()
		eventually(t, node+" appears", func() bool { return strings.Contains(out.String(), `"node":"`+node+`"`) })
	}
	appears("first")
	b.heartbeat(t, &whisperv1.Node{Node: "second", Limit: 50}, 0)
	appears("second")
	cancel()
	if code := <-ended; code != exitOK {
		t.Errorf("exit code %d: %s", code, errs.String())
	}
}
