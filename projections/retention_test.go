package projections

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/klivvr/whisper/domain/whisperv1"
)

const daysSQL = `SELECT right(relname, 8) FROM pg_class
	WHERE relnamespace = 'whisper'::regnamespace AND relname LIKE 'deliveries\_2%' AND relkind = 'r' ORDER BY 1`

// A journal is a log that tests read.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(b)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

func (j *journal) logger() *slog.Logger { return slog.New(slog.NewTextHandler(j, nil)) }

func (s story) scheduled(after time.Duration) *whisperv1.Event {
	ev := s.at(after)
	ev.Kind = &whisperv1.Event_DeliveryScheduled{DeliveryScheduled: &whisperv1.DeliveryScheduled{}}
	return ev
}

// maintained does what the store has to do when nobody else does: a projector that has just started may be at it.
func maintained(t testing.TB, st *store, now time.Time, r retention) (err error) {
	t.Helper()
	eventually(t, "no projector drops days", func() bool {
		err = st.maintain(t.Context(), now, r)
		return !errors.Is(err, errElsewhere)
	})
	return err
}

func TestDaysComeAndGo(t *testing.T) {
	t.Parallel()
	l, db := startLog(t), database(t)
	today := time.Now().UTC()
	day := func(ago int) string { return today.AddDate(0, 0, -ago).Format("20060102") }
	old := tell("old", "mona", today.AddDate(0, 0, -20), 1)
	aged := tell("aged", "mona", today.AddDate(0, 0, -60), 2)
	recent := tell("recent", "mona", today, 3)
	l.put(record(old.accepted()), record(aged.accepted()), record(recent.accepted()))
	cfg := config(l, db)
	cfg.Now = func() time.Time { return today }
	said := &journal{}
	cfg.Logger = said.logger()
	r := start(t, cfg)
	caughtUp(t, l, db)
	eventually(t, "days are made ahead", func() bool {
		return strings.Join(queryTexts(t, db, daysSQL), " ") == strings.Join([]string{day(20), day(0), day(-1), day(-2)}, " ")
	})
	if got := queryTexts(t, db, "SELECT notification_id FROM whisper.deliveries ORDER BY 1"); strings.Join(got, " ") != "old recent" {
		t.Errorf("deliveries %v, want none that is older than what is kept", got)
	}
	drop := func(days, most int) error {
		return maintained(t, r.store, today, retention{days: days, most: most})
	}

	// It waits for its send_at, so its day stays, and takes what comes later.
	if err := drop(10, 3); err != nil {
		t.Fatal(err)
	}
	if got := queryTexts(t, db, daysSQL); got[0] != day(20) {
		t.Errorf("days %v: a day with a pending delivery was dropped", got)
	}
	r.store.held = map[int32]time.Time{}
	l.put(record(old.sent(time.Second, 1, "apns")))
	caughtUp(t, l, db)
	eventually(t, "old days are dropped", func() bool {
		if err := drop(10, 3); err != nil {
			t.Fatal(err)
		}
		return strings.Join(queryTexts(t, db, daysSQL), " ") == strings.Join([]string{day(0), day(-1), day(-2)}, " ")
	})
	if said := said.String(); !strings.Contains(said, "was dropped\" day="+today.AddDate(0, 0, -20).Format(time.DateOnly)) {
		t.Errorf("the log does not name the dropped day: %s", said)
	}
	// A fact of a day that somebody else dropped finds it made again.
	l.put(record(old.sent(time.Second, 1, "apns")))
	caughtUp(t, l, db)
	got := queryTexts(t, db, "SELECT status::text FROM whisper.deliveries WHERE notification_id = 'old'")
	if len(got) != 1 || got[0] != "sent" {
		t.Errorf("deliveries %v", got)
	}
	if got := queryTexts(t, db, "SELECT notification_id FROM whisper.notification_requests WHERE notification_id = 'old'"); len(got) != 0 {
		t.Errorf("requests of a dropped day: %v", got)
	}
	conn, err := pgx.Connect(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	if _, err := conn.Exec(t.Context(), "SET ROLE whisper_analyst; SELECT * FROM whisper.deliveries_"+day(20)); err != nil {
		t.Errorf("an analyst reads a daily table: %v", err)
	}
	got = queryTexts(t, db, `SELECT obj_description(c) || col_description(c, 1)
		FROM (SELECT 'whisper.deliveries_`+day(20)+`'::regclass::oid AS c) AS c`)
	if len(got) != 1 || got[0] == "" {
		t.Error("a daily table has no comments")
	}
}

// TestADeliveryThatWaitsOutlivesTheRetention: send_at in 30 days and a ttl of 30 days more, while 30 days are kept.
func TestADeliveryThatWaitsOutlivesTheRetention(t *testing.T) {
	t.Parallel()
	l, db := startLog(t), database(t)
	requested := time.Now().UTC().AddDate(0, 0, -58)
	s := tell("reminder", "mona", requested, 1)
	other := tell("gone", "mona", requested.AddDate(0, 0, -1), 2)
	at := requested
	var clock sync.Mutex
	cfg := config(l, db)
	cfg.Now = func() time.Time {
		clock.Lock()
		defer clock.Unlock()
		return at
	}
	start(t, cfg)
	l.put(record(s.accepted()), record(s.scheduled(time.Second)), record(other.accepted()), record(other.sent(time.Second, 1, "apns")))
	caughtUp(t, l, db)
	clock.Lock()
	at = requested.AddDate(0, 0, 58)
	clock.Unlock()
	l.put(record(tell("today", "omar", at, 3).accepted()))
	caughtUp(t, l, db)
	st := start(t, cfg).store
	r := retention{days: 30, most: 3}
	eventually(t, "the day of what was settled is dropped", func() bool {
		if err := maintained(t, st, at, r); err != nil {
			t.Fatal(err)
		}
		return queryTexts(t, db, daysSQL)[0] == requested.Format("20060102")
	})
	l.put(record(s.sent(58*24*time.Hour, 1, "apns")), record(other.read(58*24*time.Hour)))
	caughtUp(t, l, db)
	got := queryTexts(t, db, "SELECT notification_id || ' ' || status FROM whisper.deliveries ORDER BY 1")
	if strings.Join(got, ", ") != "reminder sent, today accepted" {
		t.Errorf("deliveries %v", got)
	}
	st.held = map[int32]time.Time{} // six hours later
	if err := maintained(t, st, at, r); err != nil {
		t.Fatal(err)
	}
	if got := queryTexts(t, db, daysSQL)[0]; got == requested.Format("20060102") {
		t.Errorf("the day stays although nothing of it is pending")
	}
}

// TestAClockThatIsAheadDropsNothing: a projector's own, by a year; and all clocks together, as far as one can tell.
func TestAClockThatIsAheadDropsNothing(t *testing.T) {
	t.Parallel()
	l, db := startLog(t), database(t)
	today := time.Now().UTC()
	for i := range 8 {
		s := tell(fmt.Sprintf("n-%d", i), "mona", today.AddDate(0, 0, -i), int64(i))
		l.put(record(s.accepted()), record(s.sent(time.Second, 1, "apns")))
	}
	said := &journal{}
	cfg := config(l, db)
	cfg.Logger = said.logger()
	cfg.Now = func() time.Time { return time.Now().AddDate(1, 0, 0) }
	r := start(t, cfg)
	caughtUp(t, l, db)
	eventually(t, "it has made its days", func() bool { return len(queryTexts(t, db, daysSQL)) == 10 })
	if got := queryTexts(t, db, "SELECT count(*)::text FROM whisper.deliveries WHERE status = 'sent'"); got[0] != "8" {
		t.Errorf("%s deliveries, want 8: none is old", got[0])
	}
	// What is newest in the tables bounds what is old.
	if err := maintained(t, r.store, today.AddDate(1, 0, 0), retention{days: 8, most: 1}); err != nil {
		t.Fatal(err)
	}
	if got := queryTexts(t, db, "SELECT count(*)::text FROM whisper.deliveries"); got[0] != "8" {
		t.Errorf("%s deliveries are left of 8", got[0])
	}
	// And no more days go at once than was said.
	err := maintained(t, r.store, today, retention{days: 1, most: 3})
	if err == nil || !strings.Contains(err.Error(), "5 days") || !strings.Contains(err.Error(), "--max-drop-days") {
		t.Errorf("five days at once: %v", err)
	}
	if got := queryTexts(t, db, "SELECT count(*)::text FROM whisper.deliveries"); got[0] != "8" {
		t.Errorf("%s deliveries are left of 8", got[0])
	}
	var days []string
	all := retention{days: 1, most: 5, dropped: func(day string) { days = append(days, day) }}
	if err := maintained(t, r.store, today, all); err != nil || len(days) != 5 {
		t.Errorf("dropped %v: %v", days, err)
	}
}

// TestAnAnalystWhoReadsHoldsNobodyUp: an open transaction has read a day that is due to be dropped.
func TestAnAnalystWhoReadsHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	l, db := startLog(t), database(t)
	today := time.Now().UTC()
	old := tell("old", "mona", today.AddDate(0, 0, -20), 1)
	l.put(record(old.accepted()), record(old.sent(time.Second, 1, "apns")), record(tell("recent", "mona", today, 2).accepted()))
	said := &journal{}
	cfg := config(l, db)
	cfg.Now = func() time.Time { return today }
	cfg.Logger = said.logger()
	r := start(t, cfg)
	caughtUp(t, l, db)
	analyst, err := pgx.Connect(t.Context(), db+"&application_name=report")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = analyst.Close(context.Background()) }()
	if _, err := analyst.Exec(t.Context(), "BEGIN; SELECT count(*) FROM whisper.deliveries"); err != nil {
		t.Fatal(err)
	}
	// Each try gives up after lockTimeout; the next one comes at once, however slow this machine is.
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var dropping errgroup.Group
	dropping.Go(func() error {
		for ctx.Err() == nil {
			err := r.store.maintain(ctx, today, retention{days: 10, most: 3})
			if ctx.Err() == nil && !errors.Is(err, errElsewhere) && !lockTimedOut(err) {
				return fmt.Errorf("the wait for the analyst ended with: %w", err)
			}
		}
		return nil
	})
	eventually(t, "it says whom it waits for", func() bool {
		text := said.String()
		return strings.Contains(text, "application=report") && strings.Contains(text, fmt.Sprintf("pid=%d", analyst.PgConn().PID()))
	})
	// Another projector starts meanwhile and needs a day that nobody has.
	cfg.Now = func() time.Time { return today.AddDate(0, 0, 1) }
	start(t, cfg)
	l.put(record(tell("new", "mona", today.AddDate(0, 0, -5), 3).accepted()))
	caughtUp(t, l, db)
	cancel()
	if err := dropping.Wait(); err != nil {
		t.Error(err)
	}
	if _, err := analyst.Exec(t.Context(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	if err := maintained(t, r.store, today, retention{days: 10, most: 3}); err != nil {
		t.Errorf("after the analyst has gone: %v", err)
	}
	if got := queryTexts(t, db, daysSQL); got[0] == old.requested.Format("20060102") {
		t.Errorf("days %v: the old one stays", got)
	}
}

// TestADuplicateOfMidnightCountsOnItsRequestsDay: so that each day adds up by itself, also when the other is dropped.
func TestADuplicateOfMidnightCountsOnItsRequestsDay(t *testing.T) {
	t.Parallel()
	l, db := startLog(t), database(t)
	midnight := now.Truncate(24 * time.Hour)
	first := tell("n", "mona", midnight.Add(-time.Hour), 1)
	again := tell("n", "mona", midnight.Add(-time.Millisecond), 2)
	dropped := again.duplicate(first, 5*time.Second)
	start(t, config(l, db))
	l.put(record(first.accepted()), record(first.sent(time.Second, 1, "apns")), record(again.accepted()), record(dropped))
	caughtUp(t, l, db)
	got := queryTexts(t, db, `SELECT day || ' ' || sum(sent) || ' ' || sum(duplicates)
		FROM whisper.notification_shards GROUP BY day HAVING sum(sent) + sum(duplicates) > 0`)
	if len(got) != 1 || got[0] != "2026-11-22 1 1" {
		t.Errorf("day, sent, duplicates: %v", got)
	}
	if got := queryTexts(t, db, "SELECT day::text FROM whisper.duplicates"); len(got) != 1 || got[0] != "2026-11-22" {
		t.Errorf("the duplicate is of %v", got)
	}
}

// TestWhatTheLogLostIsInGaps: before a start, and while the projector reads.
func TestWhatTheLogLostIsInGaps(t *testing.T) {
	t.Parallel()
	l, db := startLog(t), database(t)
	var last *kgo.Record
	put := func(n int) {
		for i := range n {
			last = record(tell(fmt.Sprintf("n-%d", i), "mona", now, int64(i)).sent(time.Millisecond, 1, "apns"))
			l.put(last)
		}
	}
	cut := func(at int64) {
		var cut kadm.Offsets
		cut.AddOffset(last.Topic, last.Partition, at, -1)
		if _, err := l.admin.DeleteRecords(t.Context(), cut); err != nil {
			t.Fatal(err)
		}
	}
	put(10)
	cut(6)
	execSQL(t, db, fmt.Sprintf("INSERT INTO whisper.checkpoints VALUES ('whisper.events', %d, 2)", last.Partition))
	r := start(t, config(l, db))
	caughtUp(t, l, db)
	// With whether it is known when what they lack was written.
	const gaps = `SELECT topic || ' ' || from_offset || ' ' || to_offset
			|| CASE WHEN since IS NULL THEN '' ELSE ' since' END || CASE WHEN until IS NULL THEN '' ELSE ' until' END
		FROM whisper.gaps ORDER BY 1`
	if got := queryTexts(t, db, gaps); strings.Join(got, ", ") != "whisper.events 2 6 until" {
		t.Errorf("gaps %v", got)
	}
	r.stop()
	// What the feed finds to be missing goes with the batch.
	st, err := openStore(db, "whisper", 2)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(st.close)
	c := chunkOf(t, &source{topic: last.Topic, partition: last.Partition, at: 10}, 14, 15)
	c.gaps = []gap{{10, 14}}
	c.begins.offset, c.begins.ms = 14, now.UnixMilli()
	if err := st.write(t.Context(), []*chunk{c}, false); err != nil {
		t.Fatal(err)
	}
	if got := queryTexts(t, db, gaps); len(got) != 2 || got[0] != "whisper.events 10 14 since until" {
		t.Errorf("gaps %v", got)
	}
	put(8)
	cut(15)
	for _, tc := range []struct {
		from, to int64
		want     string
	}{{10, 16, "[{10 15}]"}, {15, 17, "[]"}, {12, 13, "[{12 13}]"}} {
		p, err := New(config(l, db))
		if err != nil {
			t.Fatal(err)
		}
		got, err := p.missing(t.Context(), last.Topic, last.Partition, tc.from, tc.to)
		p.close()
		if err != nil || fmt.Sprint(got) != tc.want {
			t.Errorf("missing of %d to %d: %v %v, want %s", tc.from, tc.to, got, err, tc.want)
		}
	}
}
