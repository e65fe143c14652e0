package integration

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/consumers"
)

// kept is a consumers.Handler of one partition that keeps and commits its records.
type kept struct {
	mu     sync.Mutex
	values []string
	passed int64
}

type keeping struct {
	k *kept
	p *consumers.Partition
}

func (k *kept) Open(_ context.Context, p *consumers.Partition) (consumers.Feed, error) {
	return &keeping{k, p}, nil
}

func (f *keeping) Handle(_ context.Context, recs []*kgo.Record) error {
	f.k.mu.Lock()
	defer f.k.mu.Unlock()
	for _, rec := range recs {
		f.k.values = append(f.k.values, string(rec.Value))
		f.p.Commit(rec.Offset + 1)
	}
	return nil
}

func (f *keeping) Passed(_ context.Context, next int64) error {
	f.k.mu.Lock()
	defer f.k.mu.Unlock()
	f.k.passed = next
	return nil
}

func (f *keeping) Close(context.Context) error { return nil }

func (k *kept) has(values ...string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Equal(k.values, values)
}

// log is a topic of one partition on the real broker, and a group that reads it.
type realLog struct {
	t      *testing.T
	client consumers.ClientConfig
	topic  string
}

func newRealLog(t *testing.T) *realLog {
	t.Helper()
	l := &realLog{t: t, topic: fmt.Sprintf("test.%s.%d", strings.ToLower(t.Name()), time.Now().UnixNano())}
	l.client = consumers.ClientConfig{Brokers: sys.cluster.Kafka, ClientID: l.topic}
	if _, err := admin().CreateTopic(t.Context(), 1, 1, nil, l.topic); err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *realLog) write(value string) {
	l.t.Helper()
	if err := sys.kafka.ProduceSync(l.t.Context(), &kgo.Record{Topic: l.topic, Value: []byte(value)}).FirstErr(); err != nil {
		l.t.Fatal(err)
	}
}

func (l *realLog) transaction(end kgo.TransactionEndTry, values ...string) {
	l.t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(l.client.Brokers...), kgo.TransactionalID(l.topic+values[0]))
	if err != nil {
		l.t.Fatal(err)
	}
	defer cl.Close()
	if err := cl.BeginTransaction(); err != nil {
		l.t.Fatal(err)
	}
	for _, v := range values {
		if err := cl.ProduceSync(l.t.Context(), &kgo.Record{Topic: l.topic, Value: []byte(v)}).FirstErr(); err != nil {
			l.t.Fatal(err)
		}
	}
	if err := cl.EndTransaction(l.t.Context(), end); err != nil {
		l.t.Fatal(err)
	}
}

func (l *realLog) run(k *kept) (stop func()) {
	l.t.Helper()
	loop, err := consumers.NewLoop(consumers.LoopConfig{Client: l.client, Group: l.topic, Topics: []string{l.topic}, Handler: k, StallCheck: time.Second})
	if err != nil {
		l.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- loop.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			l.t.Errorf("the loop ended with %v", err)
		}
	})
	l.t.Cleanup(stop)
	return stop
}

func (l *realLog) until(what string, ok func() bool) {
	l.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(patience); !ok(); {
		select {
		case <-tick.C:
		case <-end:
			l.t.Fatalf("waited in vain: %s", what)
		}
	}
}

func (l *realLog) atEnd() bool {
	l.t.Helper()
	offsets, err := admin().FetchOffsets(l.t.Context(), l.topic)
	if err != nil {
		return false // the group is just made
	}
	o, ok := offsets.Lookup(l.topic, 0)
	return ok && o.At == endOf(l.t, l.topic)
}

// TestTransactionsOnARealBroker: aborted records are not handed out, a marker as the last record leaves no lag, and its
// removal by retention is no loss. A real loss is still reported.
func TestTransactionsOnARealBroker(t *testing.T) {
	t.Parallel()
	l := newRealLog(t)
	l.transaction(kgo.TryAbort, "x", "y")
	l.transaction(kgo.TryCommit, "1", "2")
	l.write("3")
	l.transaction(kgo.TryAbort, "z")
	k := &kept{}
	stop := l.run(k)
	l.until("the commit is at the end", l.atEnd)
	if !k.has("1", "2", "3") {
		t.Errorf("handed out %q", k.values)
	}
	if k.passed != endOf(t, l.topic) {
		t.Errorf("told %d passed, the log ends at %d", k.passed, endOf(t, l.topic))
	}
	stop()
	l.retain(endOf(t, l.topic))
	l.write("4")
	k = &kept{}
	stop = l.run(k)
	l.until("what came after retention is handed out", func() bool { return k.has("4") })
	stop()

	l.write("lost")
	l.transaction(kgo.TryAbort, "q")
	l.retain(endOf(t, l.topic))
	l.write("5")
	loop, err := consumers.NewLoop(consumers.LoopConfig{Client: l.client, Group: l.topic, Topics: []string{l.topic}, Handler: &kept{}})
	if err != nil {
		t.Fatal(err)
	}
	if err := loop.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "--kafka-accept-loss") {
		t.Errorf("a record that was never read was removed, and the loop ended with %v", err)
	}
}

// retain makes retention remove what is before an offset.
func (l *realLog) retain(from int64) {
	l.t.Helper()
	var offsets kadm.Offsets
	offsets.AddOffset(l.topic, 0, from, -1)
	resp, err := admin().DeleteRecords(l.t.Context(), offsets)
	if err == nil {
		err = resp.Error()
	}
	if err != nil {
		l.t.Fatal(err)
	}
}

// TestABatchThatExpandsOnARealBroker: the broker accepts it, because it is small when compressed. It is skipped with a
// dead letter, and the partition goes on.
func TestABatchThatExpandsOnARealBroker(t *testing.T) {
	t.Parallel()
	l := newRealLog(t)
	bomb := func() {
		t.Helper()
		cl, err := kgo.NewClient(kgo.SeedBrokers(l.client.Brokers...), kgo.ProducerBatchMaxBytes(90<<20), kgo.ProducerBatchCompression(kgo.ZstdCompression()))
		if err != nil {
			t.Fatal(err)
		}
		defer cl.Close()
		if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: l.topic, Value: make([]byte, 80<<20)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	bomb()
	l.write("1")
	bomb()
	k := &kept{}
	l.run(k)
	l.until("the commit is at the end", l.atEnd)
	l.write("2")
	l.until("what comes later is handed out", func() bool { return k.has("1", "2") })
	out, err := sys.command(t.Context(), "deadletters", "list", "--json", "--topic="+l.topic).Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, position := range []string{`"position":0,"last_position":0`, `"position":2,"last_position":2`} {
		if !strings.Contains(string(out), position) {
			t.Errorf("no dead letter of %s in %s", position, out)
		}
	}
}
