package consumers_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/consumers"
)

// transaction writes one record a value to partition 0 and ends as told. Its marker has an offset too.
func transaction(t *testing.T, c consumers.ClientConfig, topic string, end kgo.TransactionEndTry, values ...string) {
	t.Helper()
	cl := openTransaction(t, c, topic, values...)
	if err := cl.EndTransaction(t.Context(), end); err != nil {
		t.Fatal(err)
	}
}

func openTransaction(t *testing.T, c consumers.ClientConfig, topic string, values ...string) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.Brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.TransactionalID(fmt.Sprintf("%s-%s", t.Name(), values[0])))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	if err := cl.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	for _, v := range values {
		if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: []byte(v)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	return cl
}

func plain(t *testing.T, c consumers.ClientConfig, topic string, values ...string) {
	t.Helper()
	for _, v := range values {
		publish(t, c, &kgo.Record{Topic: topic, Value: []byte(v)})
	}
}

func admin(t *testing.T, c consumers.ClientConfig) *kadm.Client {
	t.Helper()
	adm, err := c.Admin()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(adm.Close)
	return adm
}

func endOf(t *testing.T, adm *kadm.Client, topic string) int64 {
	t.Helper()
	ends, err := adm.ListEndOffsets(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	end, _ := ends.Lookup(topic, 0)
	return end.Offset
}

// committedOf is -1 where nothing is committed.
func committedOf(t *testing.T, adm *kadm.Client, group, topic string) int64 {
	t.Helper()
	offsets, err := adm.FetchOffsets(t.Context(), group)
	if err != nil {
		t.Fatal(err)
	}
	if o, ok := offsets.Lookup(topic, 0); ok {
		return o.At
	}
	return -1
}

// emptyLog has retention remove everything.
func emptyLog(t *testing.T, adm *kadm.Client, topic string) {
	t.Helper()
	var offsets kadm.Offsets
	offsets.AddOffset(topic, 0, endOf(t, adm, topic), -1)
	resp, err := adm.DeleteRecords(t.Context(), offsets)
	if err == nil {
		err = resp.Error()
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (r *recorder) values(key string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.seen[key])
}

// TestLoopHandsOutWhatWasCommittedAndCommitsPastMarkers: an aborted record is never handed out, and offsets that
// hold no record, wherever they stand, leave no lag.
func TestLoopHandsOutWhatWasCommittedAndCommitsPastMarkers(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		write func(t *testing.T, c consumers.ClientConfig)
		want  []string
	}{
		"a marker last":          {func(t *testing.T, c consumers.ClientConfig) { transaction(t, c, "a", kgo.TryCommit, "1", "2") }, []string{"1", "2"}},
		"nothing but an aborted": {func(t *testing.T, c consumers.ClientConfig) { transaction(t, c, "a", kgo.TryAbort, "x", "y") }, nil},
		"an aborted one first, between and last": {func(t *testing.T, c consumers.ClientConfig) {
			transaction(t, c, "a", kgo.TryAbort, "x")
			plain(t, c, "a", "1")
			transaction(t, c, "a", kgo.TryAbort, "y")
			transaction(t, c, "a", kgo.TryCommit, "2")
			plain(t, c, "a", "3")
			transaction(t, c, "a", kgo.TryAbort, "z")
		}, []string{"1", "2", "3"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := kafka(t, 1, "a")
			tt.write(t, client)
			adm := admin(t, client)
			rec := newRecorder()
			stop := start(t, consumers.LoopConfig{Client: client, Group: "g", Topics: []string{"a"}, Handler: rec})
			eventually(t, "the commit is at the end", func() bool { return committedOf(t, adm, "g", "a") == endOf(t, adm, "a") })
			if got := rec.values("a/0"); !slices.Equal(got, tt.want) {
				t.Errorf("handed out %q, want %q", got, tt.want)
			}
			stop()
			// Retention removes all of it, markers too: nothing was lost, and the loop goes on.
			emptyLog(t, adm, "a")
			plain(t, client, "a", "later")
			lost := consumers.RecordsLost("g", "a").Get()
			start(t, consumers.LoopConfig{Client: client, Group: "g", Topics: []string{"a"}, Handler: rec})
			eventually(t, "what came later is handed out", func() bool { return slices.Contains(rec.values("a/0"), "later") })
			if n := consumers.RecordsLost("g", "a").Get() - lost; n != 0 {
				t.Errorf("%d records are said to be lost", n)
			}
		})
	}
}

// TestLoopCommitsNoFurtherThanTheFeed: a marker is passed only when everything before it is settled.
func TestLoopCommitsNoFurtherThanTheFeed(t *testing.T) {
	t.Parallel()
	client := kafka(t, 1, "a")
	transaction(t, client, "a", kgo.TryAbort, "x") // offsets 0 and 1
	transaction(t, client, "a", kgo.TryCommit, "1")
	transaction(t, client, "a", kgo.TryCommit, "2")
	adm := admin(t, client)
	rec := newRecorder()
	rec.hold = true
	stop := start(t, consumers.LoopConfig{Client: client, Group: "g", Topics: []string{"a"}, Handler: rec})
	eventually(t, "all are handed out", func() bool { return rec.count() == 2 })
	stop() // commits
	if got := committedOf(t, adm, "g", "a"); got != 2 {
		t.Errorf("committed %d, want 2: the first record that is not settled", got)
	}
}

// TestLoopReadsNothingOfAnOpenTransaction, and goes on with what was there before it and, once it ends, after it.
func TestLoopReadsNothingOfAnOpenTransaction(t *testing.T) {
	t.Parallel()
	client := kafka(t, 1, "a")
	plain(t, client, "a", "1")
	open := openTransaction(t, client, "a", "2")
	plain(t, client, "a", "3")
	rec := newRecorder()
	start(t, consumers.LoopConfig{Client: client, Group: "g", Topics: []string{"a"}, Handler: rec})
	eventually(t, "what was before is handed out", func() bool { return rec.count() == 1 })
	reader := runReader(t, client)
	caughtUp, err := reader.Follow(t.Context(), "a", 0, consumers.FromStart, func([]*kgo.Record) {})
	if err != nil {
		t.Fatal(err)
	}
	await(t, "a reader catches up to the open transaction", caughtUp)
	if err := open.EndTransaction(context.Background(), kgo.TryCommit); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the rest is handed out", func() bool { return slices.Equal(rec.values("a/0"), []string{"1", "2", "3"}) })
}

// passer notes what it is told of offsets.
type passer struct {
	*recorder
	mu   sync.Mutex
	next int64
}

type passing struct {
	consumers.Feed
	p *passer
}

func (p *passer) Open(ctx context.Context, part *consumers.Partition) (consumers.Feed, error) {
	f, err := p.recorder.Open(ctx, part)
	return &passing{f, p}, err
}

func (f *passing) Passed(_ context.Context, next int64) error {
	f.p.mu.Lock()
	defer f.p.mu.Unlock()
	f.p.next = next
	return nil
}

// TestLoopTellsAPasserHowFarItIs: a feed that waits for an offset would otherwise wait without end.
func TestLoopTellsAPasserHowFarItIs(t *testing.T) {
	t.Parallel()
	client := kafka(t, 1, "a")
	plain(t, client, "a", "1")
	transaction(t, client, "a", kgo.TryAbort, "x", "y")
	end := endOf(t, admin(t, client), "a")
	p := &passer{recorder: newRecorder()}
	start(t, consumers.LoopConfig{Client: client, Group: "g", Topics: []string{"a"}, Handler: p})
	eventually(t, "it is told the end", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.next == end
	})
}

// TestReaderHandsOutWhatWasCommitted: no aborted record and no marker reaches a sink.
func TestReaderHandsOutWhatWasCommitted(t *testing.T) {
	t.Parallel()
	client := kafka(t, 1, "a")
	transaction(t, client, "a", kgo.TryAbort, "x")
	transaction(t, client, "a", kgo.TryCommit, "1")
	plain(t, client, "a", "2")
	transaction(t, client, "a", kgo.TryAbort, "y")
	reader := runReader(t, client)
	var got []string
	caughtUp, err := reader.Follow(t.Context(), "a", 0, consumers.FromStart, func(recs []*kgo.Record) {
		for _, rec := range recs {
			got = append(got, string(rec.Value))
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	await(t, "it caught up", caughtUp)
	reader.Unfollow("a", 0)
	if want := []string{"1", "2"}; !slices.Equal(got, want) {
		t.Errorf("handed out %q, want %q", got, want)
	}
	if next, err := reader.Passed(t.Context(), "a", 0, 5); err != nil || next != endOf(t, admin(t, client), "a") {
		t.Errorf("behind the last record %d is passed (%v), want the end", next, err)
	}
}
