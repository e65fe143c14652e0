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

// stubborn is a Handler whose partitions fail while they are told to, after they have settled what came before.
type stubborn struct {
	mu    sync.Mutex
	bad   map[string]error // topic/partition: fails at the record "bad"
	panic bool
	seen  map[string][]string // since it was opened last
	open  map[string]int
	parts map[string]*consumers.Partition
}

func newStubborn() *stubborn {
	return &stubborn{bad: map[string]error{}, seen: map[string][]string{}, open: map[string]int{}, parts: map[string]*consumers.Partition{}}
}

func (s *stubborn) set(key string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bad[key] = err
}

func (s *stubborn) saw(key string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.seen[key])
}

func (s *stubborn) opened(key string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open[key]
}

func (s *stubborn) Open(_ context.Context, p *consumers.Partition) (consumers.Feed, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := fmt.Sprintf("%s/%d", p.Topic, p.ID)
	s.open[key]++
	s.seen[key] = nil
	s.parts[key] = p
	return &stubbornFeed{s, p, key}, nil
}

type stubbornFeed struct {
	s   *stubborn
	p   *consumers.Partition
	key string
}

func (f *stubbornFeed) Handle(_ context.Context, records []*kgo.Record) error {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	for _, rec := range records {
		if err := f.s.bad[f.key]; err != nil && string(rec.Value) == "bad" {
			if f.s.panic {
				panic(err)
			}
			return err
		}
		f.s.seen[f.key] = append(f.s.seen[f.key], string(rec.Value))
		f.p.Commit(rec.Offset + 1)
	}
	return nil
}

func (f *stubbornFeed) Close(context.Context) error { return nil }

func values(topic string, partition int32, values ...string) (recs []*kgo.Record) {
	for _, v := range values {
		recs = append(recs, &kgo.Record{Topic: topic, Partition: partition, Value: []byte(v)})
	}
	return recs
}

// metadata is what the group's offset of a partition says beside the offset.
func metadata(t *testing.T, c consumers.ClientConfig, group, topic string, partition int32) (at int64, text string) {
	t.Helper()
	adm, err := c.Admin()
	if err != nil {
		t.Fatal(err)
	}
	defer adm.Close()
	offsets, err := adm.FetchOffsets(t.Context(), group)
	if err != nil {
		t.Fatal(err)
	}
	o, ok := offsets.Lookup(topic, partition)
	if !ok {
		return -1, ""
	}
	return o.At, o.Metadata
}

func TestAPartitionThatCantGoOnStopsAloneAndGoesOnWhenItIsMended(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"error", "panic", "fail"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			client := kafka(t, 2, "a")
			handler := newStubborn()
			handler.panic = how == "panic"
			group := "stops-" + how
			if how != "fail" {
				handler.set("a/0", errors.New("no room on the disk"))
			}
			publish(t, client, values("a", 0, "1", "2", "bad", "3")...)
			loop, err := consumers.NewLoop(consumers.LoopConfig{
				Client: client, Group: group, Topics: []string{"a"}, Handler: handler, CommitInterval: 20 * time.Millisecond,
				RetryFirst: time.Hour, // only on request
			})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- loop.Run(ctx) }()
			if how == "fail" {
				eventually(t, "everything is read", func() bool { return len(handler.saw("a/0")) == 4 })
				handler.mu.Lock()
				part := handler.parts["a/0"]
				handler.mu.Unlock()
				part.Fail(errors.New("no room on the disk"))
				part.Fail(errors.New("a second time"))
			}
			eventually(t, "the partition is stopped and waits", func() bool {
				s := loop.Stopped()
				return len(s) == 1 && !s[0].NextTry.IsZero()
			})

			s := loop.Stopped()[0]
			if s.Topic != "a" || s.Partition != 0 || s.Group != group || !strings.Contains(s.Reason, "no room on the disk") {
				t.Errorf("stopped: %+v", s)
			}
			if err := loop.Ready(); err == nil || !strings.Contains(err.Error(), "a/0 is stopped") || !strings.Contains(err.Error(), "no room") {
				t.Errorf("Ready = %v", err)
			}
			gauge := consumers.PartitionStopped(group, "a", 0)
			if gauge.Get() != 1 {
				t.Error("the metric does not say that it is stopped")
			}
			want := int64(2)
			if how == "fail" {
				want = 4
			}
			if at, text := metadata(t, client, group, "a", 0); at != want || !strings.HasPrefix(text, consumers.StopMetadata) ||
				!strings.Contains(text, "no room") {
				t.Errorf("committed %d %q, want %d and why it is stopped", at, text, want)
			}

			// The others go on, for as long as it takes.
			publish(t, client, append(values("a", 1, "x", "y"), values("a", 0, "4")...)...)
			eventually(t, "the other partition goes on", func() bool { return slices.Equal(handler.saw("a/1"), []string{"x", "y"}) })
			if n := handler.opened("a/0"); n != 1 {
				t.Errorf("opened %d times before anybody asked", n)
			}

			// Not mended: it stops again, at the same record.
			if how != "fail" {
				if n := loop.Retry(); n != 1 {
					t.Errorf("Retry found %d stopped partitions", n)
				}
				eventually(t, "it was tried in vain", func() bool {
					s := loop.Stopped()
					return handler.opened("a/0") == 2 && len(s) == 1 && s[0].Tries == 1 && !s[0].NextTry.IsZero()
				})
			}
			handler.set("a/0", nil)
			loop.Retry()
			rest := []string{"bad", "3", "4"}
			if how == "fail" {
				rest = []string{"4"}
			}
			eventually(t, "it goes on where it had got to", func() bool { return slices.Equal(handler.saw("a/0"), rest) })
			eventually(t, "it is ready", func() bool { return loop.Ready() == nil })
			if gauge.Get() != 0 || len(loop.Stopped()) != 0 {
				t.Error("it still counts as stopped")
			}
			eventually(t, "the commit says so no more", func() bool {
				at, text := metadata(t, client, group, "a", 0)
				return at == 5 && !strings.HasPrefix(text, consumers.StopMetadata)
			})
			cancel()
			if err := <-done; err != nil {
				t.Errorf("Run = %v", err)
			}
		})
	}
}

// It is tried again by itself, later each time, and the topics of a partition number stop and go on together.
func TestCoPartitionedTopicsStopTogether(t *testing.T) {
	t.Parallel()
	client := kafka(t, 2, "high", "low")
	handler := newStubborn()
	handler.set("low/1", errors.New("not now"))
	publish(t, client, append(values("low", 1, "a", "bad"), values("high", 1, "h")...)...)
	start(t, consumers.LoopConfig{
		Client: client, Group: "together", Topics: []string{"high", "low"}, CoPartitioned: true, Handler: handler,
		CommitInterval: 20 * time.Millisecond, RetryFirst: time.Millisecond, RetryMost: 20 * time.Millisecond,
	})
	eventually(t, "both topics were tried several times", func() bool { return handler.opened("low/1") > 3 && handler.opened("high/1") > 3 })
	if n := handler.opened("low/0") + handler.opened("high/0"); n != 2 {
		t.Errorf("the other partition was opened %d times", n)
	}
	publish(t, client, values("high", 1, "h2")...)
	handler.set("low/1", nil)
	eventually(t, "it goes on by itself", func() bool {
		return slices.Equal(handler.saw("low/1"), []string{"bad"}) && slices.Contains(handler.saw("high/1"), "h2")
	})
	publish(t, client, append(values("low", 1, "b"), values("high", 1, "h3")...)...)
	eventually(t, "with what comes", func() bool {
		return slices.Equal(handler.saw("low/1"), []string{"bad", "b"}) && slices.Contains(handler.saw("high/1"), "h3")
	})
}

// A partition that is stopped goes to another member as any other does, which starts where it had got to.
func TestAStoppedPartitionIsHandedOver(t *testing.T) {
	t.Parallel()
	client := kafka(t, 1, "a")
	handler := newStubborn()
	handler.set("a/0", errors.New("not here"))
	publish(t, client, values("a", 0, "1", "bad", "2")...)
	cfg := consumers.LoopConfig{Client: client, Group: "handed", Topics: []string{"a"}, Handler: handler, RetryFirst: time.Hour}
	loop, err := consumers.NewLoop(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- loop.Run(ctx) }()
	eventually(t, "it is stopped", func() bool { return len(loop.Stopped()) == 1 })
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if consumers.PartitionStopped("handed", "a", 0).Get() != 0 {
		t.Error("it counts as stopped here though it is not ours")
	}
	next := newStubborn()
	cfg.Handler = next
	start(t, cfg)
	eventually(t, "the next owner goes on", func() bool { return slices.Equal(next.saw("a/0"), []string{"bad", "2"}) })
}
