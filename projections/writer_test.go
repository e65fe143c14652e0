package projections

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/klivvr/whisper/migrations"
)

// chunkOf are deliveries of one partition from an offset on, a fact each.
func chunkOf(t *testing.T, src *source, from, to int64) *chunk {
	t.Helper()
	c := &chunk{src: src, next: to, done: func() {}}
	for i := from; i < to; i++ {
		rec := record(tell(fmt.Sprintf("n-%d", i), "mona", now, i).sent(time.Millisecond, 1, "apns"))
		rec.Offset = i
		f, err := decode(rec, ages{now, now}, 24*time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		c.facts = append(c.facts, f)
	}
	return c
}

func TestFactsThatAreAlreadyWrittenAreSkipped(t *testing.T) {
	t.Parallel()
	db := database(t)
	st, err := openStore(db, migrations.Schema, 2)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(st.close)
	if err := st.begin(t.Context(), "whisper.events", 0, 0); err != nil {
		t.Fatal(err)
	}
	stay := func() bool { return false }
	var moves []int64
	w := newWriter(st, slog.New(slog.DiscardHandler), limits{facts: 100, wait: time.Millisecond}, make(chan struct{}, 1), newMeters(), nil)
	one := &source{topic: "whisper.events", gone: stay, moved: func(int64) {}}
	two := &source{topic: "whisper.events", gone: stay, moved: func(at int64) { moves = append(moves, at) }}
	if err := w.commit(t.Context(), []*chunk{chunkOf(t, one, 0, 5)}); err != nil {
		t.Fatal(err)
	}
	// The second began where the first did, and reads on.
	if err := w.commit(t.Context(), []*chunk{chunkOf(t, two, 0, 3), chunkOf(t, two, 3, 9)}); err != nil {
		t.Fatal(err)
	}
	if got := queryTexts(t, db, `SELECT "offset"::text FROM whisper.timeline ORDER BY "offset"`); !slices.Equal(got, []string{"0", "1", "2", "3", "4", "5", "6", "7", "8"}) {
		t.Errorf("offsets %v, want each once", got)
	}
	if moves[0] != 5 || moves[len(moves)-1] != 9 {
		t.Errorf("checkpoints %v", moves)
	}
	// A checkpoint that went back would leave a hole.
	execSQL(t, db, "UPDATE whisper.checkpoints SET next_offset = 4")
	if err := w.commit(t.Context(), []*chunk{chunkOf(t, two, 9, 10)}); !errors.Is(err, errBehind) {
		t.Errorf("a checkpoint went back: %v", err)
	}
	// What is gone is not written at all.
	gone := &source{topic: "whisper.events", at: 4, gone: func() bool { return true }}
	if err := w.commit(t.Context(), []*chunk{chunkOf(t, gone, 4, 5)}); err != nil {
		t.Error(err)
	}
	if got := queryTexts(t, db, "SELECT next_offset::text FROM whisper.checkpoints"); got[0] != "4" {
		t.Errorf("checkpoint %s", got[0])
	}
}

// In a bubble: its clock goes on when everybody in it waits.
func TestWritersTakeTurns(t *testing.T) {
	t.Parallel()
	const wait = 250 * time.Millisecond
	for name, tc := range map[string]struct {
		meanwhile func(t *testing.T, w *writer) // nil: no other writer writes
		facts     int
		turn      bool
		after     time.Duration
		last      int
	}{
		"nobody else writes": {facts: 2, turn: true, after: wait},
		"much comes":         {facts: 2, turn: true, after: busyWaits * wait, last: busyFacts},
		"gathers on until the other is done": {meanwhile: func(t *testing.T, w *writer) {
			<-time.After(400 * time.Millisecond)
			w.in <- chunkOf(t, &source{}, 2, 5)
			<-time.After(100 * time.Millisecond)
			<-w.turn
		}, facts: 5, turn: true, after: 500 * time.Millisecond},
		"has enough": {meanwhile: func(t *testing.T, w *writer) {
			<-time.After(400 * time.Millisecond)
			w.in <- chunkOf(t, &source{}, 2, 12)
		}, facts: 12, turn: false, after: 400 * time.Millisecond},
		"somebody waits": {meanwhile: func(_ *testing.T, w *writer) {
			<-time.After(400 * time.Millisecond)
			w.hasten()
		}, facts: 2, turn: false, after: 400 * time.Millisecond},
		"the other is held up": {meanwhile: func(*testing.T, *writer) {}, facts: 2, turn: false, after: wait + turnWait},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWriter(nil, nil, limits{facts: 10, wait: wait}, make(chan struct{}, 1), nil, nil)
				w.last = tc.last
				if tc.meanwhile != nil {
					w.turn <- struct{}{}
					go tc.meanwhile(t, w)
				}
				w.in <- chunkOf(t, &source{}, 0, 2)
				begin := time.Now()
				chunks, turn := w.gather(t.Context())
				if weight(chunks) != tc.facts || turn != tc.turn || time.Since(begin) != tc.after {
					t.Errorf("%d facts, turn %t, after %s; want %d, %t, %s", weight(chunks), turn, time.Since(begin), tc.facts, tc.turn, tc.after)
				}
			})
		})
	}
}

// In a bubble: pauses are as long as they should be.
func TestAPacedCopyIsWhole(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		want := make([]byte, 3*pacedPiece+5)
		for i := range want {
			want[i] = byte(i * i >> 8)
		}
		begin := time.Now()
		var got []byte
		b := make([]byte, 2*pacedPiece)
		r := pacedReader{bytes.NewReader(want)}
		for {
			n, err := r.Read(b)
			if got = append(got, b[:n]...); errors.Is(err, io.EOF) {
				break
			} else if err != nil || n > pacedPiece {
				t.Fatalf("%d bytes at once, %v", n, err)
			}
		}
		if !bytes.Equal(got, want) || time.Since(begin) != 3*pacedPause {
			t.Errorf("%d bytes of %d in %s", len(got), len(want), time.Since(begin))
		}
	})
}

func TestSplitHalvesFactsAndKeepsOrder(t *testing.T) {
	t.Parallel()
	a, b := &source{topic: "a"}, &source{topic: "b"}
	for _, sizes := range [][2]int64{{1, 1}, {5, 0}, {0, 5}, {7, 2}, {2, 7}, {1, 9}, {3, 3}} {
		chunks := []*chunk{chunkOf(t, a, 0, sizes[0]), chunkOf(t, b, 0, sizes[1])}
		total := weight(chunks)
		left, right := split(chunks)
		if weight(left) != total/2 || weight(left)+weight(right) != total {
			t.Errorf("%v: %d and %d of %d", sizes, weight(left), weight(right), total)
		}
		next := map[*source]int64{}
		for _, c := range append(left, right...) {
			for _, f := range c.facts {
				if f.rec.Offset != next[c.src] {
					t.Errorf("%v: offset %d after %d", sizes, f.rec.Offset, next[c.src])
				}
				next[c.src]++
			}
			if c.next < next[c.src] {
				t.Errorf("%v: a chunk's checkpoint %d is before its facts", sizes, c.next)
			}
		}
	}
}

func TestErrorsAreJudgedByTheirState(t *testing.T) {
	t.Parallel()
	for code, want := range map[string]verdict{
		"57P01": wait, "57P03": wait, "08006": wait, "40P01": wait, "53300": wait, "55P03": wait, "25006": wait, "0A000": wait, "XX000": wait,
		"22P05": poison, "22001": poison, "23502": poison, "23514": poison,
		"28P01": stop, "28000": stop, "3D000": stop, "42P01": stop, "42501": stop,
	} {
		if got := judge(fmt.Errorf("write: %w", &pgconn.PgError{Code: code})); got != want {
			t.Errorf("%s is judged %d, want %d", code, got, want)
		}
	}
	if judge(context.DeadlineExceeded) != wait || judge(errLost) != lost || judge(&stopError{errBehind}) != stop {
		t.Error("errors without a state are judged wrongly")
	}
}

func TestAllBadSettingsAreNamedAtOnce(t *testing.T) {
	t.Parallel()
	_, err := New(Config{RetentionDays: -1, Writers: 1000, BatchFacts: -1, BatchWait: time.Hour})
	for _, want := range []string{"postgres-url", "retention-days", "writers", "batch-facts", "batch-wait", "broker"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
}

func TestBucketsHoldTheirBounds(t *testing.T) {
	t.Parallel()
	for latency, want := range map[time.Duration]int{
		-time.Second: 0, 0: 0, time.Millisecond: 0, 1100 * time.Microsecond: 1, 1500 * time.Microsecond: 1, 1600 * time.Microsecond: 2,
		2250 * time.Microsecond: 2, time.Second: 18, 48 * time.Hour: latencyBuckets - 1,
	} {
		if got := bucket(latency); got != want {
			t.Errorf("%s is in bucket %d, want %d", latency, got, want)
		}
	}
}
