package projections

import (
	"context"
	"fmt"
	"log/slog"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain/whisperv1"
	"github.com/klivvr/whisper/migrations"
)

// A live log as one writer sees it: in each transaction a fact of each user partition on two topics, some of them of one
// broadcast, some of a delivery each.
type liveLog struct {
	st      *store
	w       *writer
	sources []*source
	offset  int64
}

func newLiveLog(t testing.TB, db string, partitions int32) *liveLog {
	t.Helper()
	st, err := openStore(db, migrations.Schema, 4)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(st.close)
	l := &liveLog{st: st, w: newWriter(st, slog.New(slog.DiscardHandler), limits{}, make(chan struct{}, 1), newMeters(), nil)}
	for _, topic := range []string{consumers.TopicEvents, "whisper.deliveries.normal"} {
		for p := range partitions {
			if err := st.begin(t.Context(), topic, p, 0); err != nil {
				t.Fatal(err)
			}
			l.sources = append(l.sources, &source{topic: topic, partition: p, gone: func() bool { return false }, moved: func(int64) {}})
		}
	}
	return l
}

func (l *liveLog) transaction(t testing.TB) time.Duration {
	t.Helper()
	var chunks []*chunk
	for i, src := range l.sources {
		s := tell("news", fmt.Sprintf("user-%d-%d", i, l.offset), now, 1)
		ev := s.sent(time.Millisecond, 1, "apns")
		if src.topic != consumers.TopicEvents {
			s = tell(fmt.Sprintf("pay-%d-%d", i, l.offset), "mona", now, 1000*l.offset+int64(i))
			s.lane = whisperv1.Lane_LANE_NORMAL
			ev = s.accepted()
		}
		rec := record(ev)
		rec.Topic, rec.Partition, rec.Offset = src.topic, src.partition, l.offset
		f, err := decode(rec, ages{now, now}, 24*time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		chunks = append(chunks, &chunk{src: src, facts: []fact{f}, next: l.offset + 1, done: func() {}})
	}
	l.offset++
	start := time.Now()
	if err := l.w.commit(t.Context(), chunks); err != nil {
		t.Fatal(err)
	}
	return time.Since(start)
}

// holdSnapshot is an analyst's report, or a backup: nothing that it can see may be removed until it ends.
func holdSnapshot(t testing.TB, db string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	if _, err := conn.Exec(t.Context(), "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM whisper.checkpoints"); err != nil {
		t.Fatal(err)
	}
}

// TestAnOpenSnapshotDoesNotSlowTheWritersDown counts the pages that Postgres looks at to move the checkpoints and to add to
// the counts of one notification: the same after hundreds of transactions as before, whatever the machine's speed.
func TestAnOpenSnapshotDoesNotSlowTheWritersDown(t *testing.T) {
	t.Parallel()
	db := database(t)
	l := newLiveLog(t, db, 24)
	l.transaction(t)
	holdSnapshot(t, db)
	first := l.pages(t, db)
	for range 400 {
		l.transaction(t)
	}
	last := l.pages(t, db)
	t.Logf("pages for the checkpoints: %d, then %d; for the counts: %d, then %d", first.checkpoints, last.checkpoints, first.counts,
		last.counts)
	// Higher trees and pages that are less full cost something; versions that are looked at in vain cost hundreds.
	if last.checkpoints > 4*first.checkpoints {
		t.Errorf("moving %d checkpoints looked at %d pages, after 400 transactions with a snapshot held at %d", len(l.sources),
			first.checkpoints, last.checkpoints)
	}
	if last.counts > 3*first.counts {
		t.Errorf("adding to a count looked at %d pages, after 400 transactions with a snapshot held at %d", first.counts, last.counts)
	}
	all, err := l.st.checkpoints(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, src := range l.sources {
		if got := all[src.topic][src.partition]; got != l.offset {
			t.Errorf("checkpoint of %s/%d: %d, want %d", src.topic, src.partition, got, l.offset)
		}
	}
	if got := queryTexts(t, db, "SELECT sum(sent)::text FROM whisper.notification_shards WHERE notification_id = 'news'"); got[0] != fmt.Sprint(24*l.offset) {
		t.Errorf("%s deliveries are counted, want %d", got[0], 24*l.offset)
	}
}

type pages struct{ checkpoints, counts int }

// pages of what the next transaction would do, by EXPLAIN of the statements that it runs; nothing of it stays.
func (l *liveLog) pages(t testing.TB, db string) pages {
	t.Helper()
	conn, err := l.st.pool.Acquire(t.Context()) // with the settings that the writers have
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.Background()) }()
	explain := func(sql string, args ...any) int {
		rows, err := tx.Query(t.Context(), "EXPLAIN (ANALYZE, BUFFERS) "+l.st.sql(sql), args...)
		if err != nil {
			t.Fatal(err)
		}
		lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		hits := regexp.MustCompile(`shared hit=(\d+)`).FindStringSubmatch(fmt.Sprint(lines)) // the first is the whole statement's
		if hits == nil {
			t.Fatalf("no pages in %v", lines)
		}
		n, err := strconv.Atoi(hits[1])
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	var topics []string
	var ids []int32
	var from, to []int64
	for _, src := range l.sources {
		topics, ids, from, to = append(topics, src.topic), append(ids, src.partition), append(from, l.offset), append(to, l.offset+1)
	}
	var p pages
	p.checkpoints = explain(moveCheckpoints, topics, ids, from, to, make([]*time.Time, len(topics)))
	locked := make([]int32, 24)
	for i := range locked {
		locked[i] = int32(i)
	}
	p.counts = explain(`INSERT INTO $.notification_shards AS s (notification_id, day, partition, sent) VALUES ('news', $1, $2, 1)
		ON CONFLICT (notification_id, partition, day) DO UPDATE SET sent = s.sent + EXCLUDED.sent`, now, l.st.stripe(locked))
	return p
}

// BenchmarkHeldSnapshot gives the mean time of a live transaction over 96 user partitions: the first hundred of a run, and the last
// hundred, without and with somebody's snapshot held open. What matters is last/first within one run.
//
//	go test ./projections -run '^$' -bench HeldSnapshot -benchtime 1x
func BenchmarkHeldSnapshot(b *testing.B) {
	const transactions = 900
	for _, held := range []bool{false, true} {
		b.Run(fmt.Sprintf("held=%t", held), func(b *testing.B) {
			for range b.N {
				b.StopTimer()
				db := database(b)
				l := newLiveLog(b, db, benchParts)
				for range 20 {
					l.transaction(b)
				}
				if held {
					holdSnapshot(b, db)
				}
				b.StartTimer()
				var first, last time.Duration
				for i := range transactions {
					took := l.transaction(b)
					if i < 100 {
						first += took / 100
					}
					if i >= transactions-100 {
						last += took / 100
					}
				}
				b.ReportMetric(float64(first.Microseconds())/1000, "first-ms")
				b.ReportMetric(float64(last.Microseconds())/1000, "last-ms")
				b.ReportMetric(float64(last)/float64(first), "last/first")
			}
		})
	}
}
