package integration

import (
	"context"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/consumers"
)

// holder is a handler that notes which partitions it has, and of which generation.
type holder struct {
	mu   sync.Mutex
	held map[int32]int32
}

func (h *holder) Open(_ context.Context, p *consumers.Partition) (consumers.Feed, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.held[p.ID] = p.Generation
	return holding{h, p.ID}, nil
}

// generations are by partition.
func (h *holder) generations() map[int32]int32 {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := map[int32]int32{}
	for id, generation := range h.held {
		all[id] = generation
	}
	return all
}

type holding struct {
	h  *holder
	id int32
}

func (holding) Handle(context.Context, []*kgo.Record) error { return nil }

func (f holding) Close(context.Context) error {
	f.h.mu.Lock()
	defer f.h.mu.Unlock()
	delete(f.h.held, f.id)
	return nil
}

// member starts a process's loop, so to speak.
func member(t *testing.T, group, topic, instance string) (*holder, func()) {
	t.Helper()
	h := &holder{held: map[int32]int32{}}
	loop, err := consumers.NewLoop(consumers.LoopConfig{
		Client: consumers.ClientConfig{Brokers: sys.cluster.Kafka, ClientID: "test", Instance: instance, SessionTimeout: 2 * time.Minute}, Group: group, Topics: []string{topic},
		CoPartitioned: true, Handler: h,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- loop.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("%s: %v", instance, err)
		}
	})
	t.Cleanup(stop)
	return h, stop
}

func instanceTopic(t *testing.T, name string) {
	t.Helper()
	if _, err := admin().CreateTopic(t.Context(), 4, 1, nil, name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = admin().DeleteTopics(context.Background(), name) })
}

// TestAnInstanceComesBackInTheSameGeneration: no rebalance stands between a process and its partitions. Some seconds after each has joined
// it asks for one (claimRest in package consumers); where that comes while the process is away, the next return shows it.
func TestAnInstanceComesBackInTheSameGeneration(t *testing.T) {
	const name = "instance-back"
	instanceTopic(t, name)
	first, stop := member(t, name, name, "pod-0")
	other, _ := member(t, name, name, "pod-1")
	eventually(t, "the two share the partitions", func() bool { return len(first.generations()) == 2 && len(other.generations()) == 2 })
	for tries := 1; ; tries++ {
		before := first.generations()
		stop()
		first, stop = member(t, name, name, "pod-0")
		eventually(t, "it has its partitions again", func() bool { return len(first.generations()) == 2 })
		// What a process keeps through a rebalance is of the generation it came with. So the group's is the newest of all.
		stands := slices.Max(slices.AppendSeq(slices.Collect(maps.Values(before)), maps.Values(other.generations())))
		same := true
		for id, generation := range first.generations() {
			if _, mine := before[id]; !mine {
				t.Errorf("it has partition %d, which was not its own", id)
			}
			same = same && generation == stands
		}
		if n := len(other.generations()); n != 2 {
			t.Errorf("the other process has %d partitions", n)
		}
		if same {
			return
		}
		if tries == 10 {
			t.Fatalf("each of %d returns was a rebalance: the group was at %d, and now %v", tries, stands, first.generations())
		}
	}
}
