package integration

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klivvr/whisper/gateway/client"
)

// nobody is an audience that devices join one by one.
func nobody(t *testing.T) *audience { return &audience{t: t, got: map[string]map[string]time.Time{}} }

// device is one device of a user, with the Go client. It reaches the gateways as over a load balancer: it goes to its
// preferred node, and to another if that one refuses. What arrives counts for the user.
type device struct {
	t    *testing.T
	user string
	a    *audience

	mu      sync.Mutex
	nodes   []string // in the order to try
	node    string   // the one that took the last connection
	offline bool
	conn    net.Conn
	client  *client.Client
}

// device connects a device to the first of the nodes that answers.
func (a *audience) device(user string, nodes ...string) *device {
	a.t.Helper()
	d := &device{t: a.t, user: user, a: a, nodes: nodes}
	a.mu.Lock()
	if a.got[user] == nil {
		a.got[user] = map[string]time.Time{}
		a.users = append(a.users, user)
	}
	a.mu.Unlock()
	d.dial()
	a.t.Cleanup(d.close)
	return d
}

func (d *device) dial() {
	d.t.Helper()
	c, err := client.Dial(context.Background(), "ws://gateways.invalid/v1/socket", client.StaticToken(token(d.user)), client.Options{
		Window: 20_000, MinBackoff: 50 * time.Millisecond, MaxBackoff: time.Second,
		DialContext: d.way,
		Handle: func(_ context.Context, note client.Notification) error {
			d.a.mu.Lock()
			defer d.a.mu.Unlock()
			d.a.got[d.user][note.ID] = time.Now()
			return nil
		},
	})
	if err != nil {
		d.t.Fatal(err)
	}
	d.mu.Lock()
	d.client = c
	d.mu.Unlock()
}

func (d *device) close() {
	d.mu.Lock()
	c := d.client
	d.mu.Unlock()
	end(c)
}

// way is the client's DialContext.
func (d *device) way(ctx context.Context, network, _ string) (net.Conn, error) {
	d.mu.Lock()
	nodes, offline := d.nodes, d.offline
	d.mu.Unlock()
	if offline {
		return nil, errors.New("the device has no network")
	}
	var errs error
	for _, node := range nodes {
		conn, err := (&net.Dialer{KeepAlive: -1}).DialContext(ctx, network, sys.proc(node).addr)
		if err != nil {
			errs = errors.Join(errs, err)
			continue
		}
		d.mu.Lock()
		d.node, d.conn = node, conn
		d.mu.Unlock()
		return conn, nil
	}
	return nil, errs
}

// turn directs the next connections to other nodes; cut ends the current one without a close frame.
func (d *device) turn(nodes ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.nodes = nodes
}

func (d *device) cut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	_ = d.conn.Close()
}

// replace opens a new connection before it ends the current one.
func (d *device) replace() {
	d.mu.Lock()
	c := d.client
	d.mu.Unlock()
	d.dial()
	end(c)
}

// reachable allows or forbids new connections of the device; an open one stays.
func (d *device) reachable(is bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.offline = !is
}

func (d *device) on() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.node
}

func (a *audience) countOf(user string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.got[user])
}

// waitFor waits for a condition. It returns false if it was stopped before.
func (a *audience) waitFor(stop <-chan struct{}, ok func() bool) bool {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-stop:
			return false
		case <-tick.C:
		}
	}
	return true
}

// statuses counts the deliveries of a prefix by their status in Postgres.
func statuses(t *testing.T, prefix, status string) int64 {
	t.Helper()
	return number(t, `SELECT count(*) FROM whisper.deliveries WHERE notification_id LIKE $1 AND status = $2`, prefix+"-%", status)
}

// waiting counts the deliveries of a prefix that wait because their user is not connected anywhere.
func waiting(t *testing.T, prefix string) int64 {
	t.Helper()
	return number(t, `SELECT count(*) FROM whisper.deliveries WHERE notification_id LIKE $1 AND status = 'deferred' AND reason = 'away'`, prefix+"-%")
}

// failures counts the failed attempts of a prefix whose reason begins like one.
func failures(t *testing.T, prefix, reason string) int64 {
	t.Helper()
	return number(t, `
		SELECT count(DISTINCT delivery_id) FROM whisper.timeline JOIN whisper.deliveries USING (delivery_id)
		WHERE notification_id LIKE $1 AND kind = 'attempt_failed' AND starts_with(detail->>'reason', $2)`, prefix+"-%", reason)
}

// lagOf returns how many records of a node's topic are not settled yet.
func lagOf(t *testing.T, topic string) (lag int64) {
	t.Helper()
	committed, err := admin().FetchOffsetsForTopics(t.Context(), strings.Replace(topic, "whisper.node.", "whisper-node-", 1), topic)
	if err != nil {
		t.Fatal(err)
	}
	ends, err := admin().ListEndOffsets(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	for partition, end := range ends[topic] {
		lag += end.Offset - max(0, committed[topic][partition].At)
	}
	return lag
}

func took(since time.Time) time.Duration { return time.Since(since).Round(time.Millisecond) }
