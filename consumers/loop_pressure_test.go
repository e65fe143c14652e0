package consumers_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/consumers"
)

// gated is a Handler whose Feeds wait at a gate, a partition each, before they take what they are handed.
type gated struct {
	mu      sync.Mutex
	gates   map[string]chan struct{} // closed: open
	entered map[string]bool          // somebody waits there, or went through
	handed  map[string][]int         // how many records each Handle got
	seen    map[string][]string
	owned   map[string]bool
}

func newGated(closed ...string) *gated {
	g := &gated{
		gates: map[string]chan struct{}{}, entered: map[string]bool{}, handed: map[string][]int{}, seen: map[string][]string{},
		owned: map[string]bool{},
	}
	for _, key := range closed {
		g.gates[key] = make(chan struct{})
	}
	return g
}

func (g *gated) open(key string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.gates[key])
	delete(g.gates, key)
}

func (g *gated) count(key string) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.seen[key])
}

func (g *gated) is(what map[string]bool, key string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return what[key]
}

func (g *gated) Open(_ context.Context, p *consumers.Partition) (consumers.Feed, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	key := fmt.Sprintf("%s/%d", p.Topic, p.ID)
	g.owned[key], g.seen[key] = true, nil
	return &gatedFeed{g: g, p: p, key: key}, nil
}

type gatedFeed struct {
	g   *gated
	p   *consumers.Partition
	key string
}

func (f *gatedFeed) Handle(ctx context.Context, records []*kgo.Record) error {
	f.g.mu.Lock()
	f.g.entered[f.key] = true
	f.g.handed[f.key] = append(f.g.handed[f.key], len(records))
	gate := f.g.gates[f.key]
	f.g.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return nil
		}
	}
	f.g.mu.Lock()
	defer f.g.mu.Unlock()
	for _, rec := range records {
		f.g.seen[f.key] = append(f.g.seen[f.key], string(rec.Value))
		f.p.Commit(rec.Offset + 1)
	}
	return nil
}

func (f *gatedFeed) Close(context.Context) error {
	f.g.mu.Lock()
	defer f.g.mu.Unlock()
	f.g.owned[f.key] = false
	return nil
}

// TestAPartitionThatWentWhilePausedIsFetchedWhenItComesBack: the client keeps a pause across assignments.
func TestAPartitionThatWentWhilePausedIsFetchedWhenItComesBack(t *testing.T) {
	t.Parallel()
	client := kafka(t, 2, "a")
	keys := []string{"a/0", "a/1"}
	g := newGated(keys...)
	cfg := consumers.LoopConfig{Client: client, Group: "g", Topics: []string{"a"}, Handler: g, MaxBufferedRecords: 5}
	start(t, cfg)
	both := func() []*kgo.Record { return append(records("a", 0, 50), records("a", 1, 50)...) }
	publish(t, client, both()...)
	eventually(t, "both wait in Handle", func() bool { return g.is(g.entered, "a/0") && g.is(g.entered, "a/1") })
	publish(t, client, both()...) // over the bound: paused

	cfg.Handler = newRecorder()
	stopOther := start(t, cfg)
	eventually(t, "one partition moved", func() bool { return g.is(g.owned, "a/0") != g.is(g.owned, "a/1") })
	stopOther()
	eventually(t, "it is back", func() bool { return g.is(g.owned, "a/0") && g.is(g.owned, "a/1") })
	publish(t, client, both()...)
	for _, key := range keys {
		g.open(key)
	}
	for _, key := range keys {
		eventually(t, "the newest records of "+key, func() bool { return g.count(key) >= 50 })
	}
}

// TestASlowFeedPausesItsOwnPartitionOnly: what waits for a Feed stays within its bounds in records and in
// bytes, the other partition goes on, and nothing is lost or out of order in the end.
func TestASlowFeedPausesItsOwnPartitionOnly(t *testing.T) {
	t.Parallel()
	const total = 3_000
	for name, tt := range map[string]struct {
		size           int
		records, bytes int
	}{
		"records": {size: 4, records: 200, bytes: 1 << 30},
		"bytes":   {size: 1_000, records: 1 << 30, bytes: 200_000},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := kafka(t, 2, "a")
			g := newGated("a/0")
			start(t, consumers.LoopConfig{
				Client: client, Group: "g", Topics: []string{"a"}, Handler: g,
				MaxBufferedRecords: tt.records, MaxBufferedBytes: tt.bytes,
			})
			var want []string
			for n := 0; n < total; n += 100 {
				var recs []*kgo.Record
				for i := range 100 {
					value := fmt.Sprintf("%0*d", tt.size, n+i)
					want = append(want, value)
					recs = append(recs, &kgo.Record{Topic: "a", Value: []byte(value)}, &kgo.Record{Topic: "a", Partition: 1, Value: []byte(value)})
				}
				publish(t, client, recs...)
				eventually(t, "the other partition goes on", func() bool { return g.count("a/1") == n+100 })
			}
			if n := g.count("a/0"); n != 0 {
				t.Fatalf("%d records passed a closed gate", n)
			}
			g.open("a/0")
			eventually(t, "all of the slow one", func() bool { return g.count("a/0") == total })
			g.mu.Lock()
			defer g.mu.Unlock()
			for _, key := range []string{"a/0", "a/1"} {
				if !slices.Equal(g.seen[key], want) {
					t.Errorf("%s: lost or out of order", key)
				}
			}
			// The first Handle waited at the gate; the second one got what had gathered behind it. One fetch
			// may pass the bound.
			if waited := g.handed["a/0"][1]; waited > 400 {
				t.Errorf("%d records waited, the bound is 200", waited)
			}
		})
	}
}

// failing is a Handler whose first topic fails when told, while the second one is stuck until its
// partition goes.
type failing struct {
	stuck chan struct{} // closed when the second is in Handle
	fail  chan struct{}
}

func (h *failing) Open(_ context.Context, p *consumers.Partition) (consumers.Feed, error) {
	return &failingFeed{h, p.Topic}, nil
}

type failingFeed struct {
	h     *failing
	topic string
}

var errFindOut = errors.New("could not find out")

func (f *failingFeed) Handle(ctx context.Context, _ []*kgo.Record) error {
	if f.topic == "bad" {
		<-f.h.fail
		return consumers.Reaching(consumers.ReachProcess, errFindOut)
	}
	close(f.h.stuck)
	<-ctx.Done()
	return ctx.Err()
}

func (f *failingFeed) Close(context.Context) error { return nil }

// TestAFatalErrorEndsTheLoopWithKafkaAway: nobody waits for a broker that does not answer, nor for a Feed
// that is stuck.
func TestAFatalErrorEndsTheLoopWithKafkaAway(t *testing.T) {
	t.Parallel()
	cluster, client := fakeKafka(t, 1, "bad", "stuck")
	publish(t, client, append(records("bad", 0, 1), records("stuck", 0, 1)...)...)
	h := &failing{stuck: make(chan struct{}), fail: make(chan struct{})}
	loop, err := consumers.NewLoop(consumers.LoopConfig{
		Client: client, Group: "g", Topics: []string{"bad", "stuck"}, Handler: h, HandoverTimeout: 200 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- loop.Run(t.Context()) }()
	<-h.stuck
	cluster.Close()
	close(h.fail)
	select {
	case err := <-done:
		if !errors.Is(err, errFindOut) || !strings.Contains(err.Error(), "bad/0") {
			t.Errorf("Run = %v", err)
		}
	case <-time.After(3 * time.Minute):
		t.Fatal("the loop still runs")
	}
}
