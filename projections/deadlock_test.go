package projections

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/klivvr/whisper/migrations"
)

// An ownReader is an analyst's transaction that has read one table or view and will ask for another one. Postgres looks for deadlocks
// for whoever waits, after the session's deadlock_timeout: this one's is short, so of two that wait for each other it is the reader that
// is ended.
type ownReader struct {
	t    *testing.T
	conn *pgx.Conn
	db   string
	has  string
}

func reads(t *testing.T, db, has string) *ownReader {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), db+"&application_name=report")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	if _, err := conn.Exec(t.Context(), "SET deadlock_timeout = '10ms'; BEGIN; SELECT count(*) FROM "+has); err != nil {
		t.Fatal(err)
	}
	return &ownReader{t, conn, db, has}
}

// thenReads asks for another table once somebody waits for the reader, and ends the transaction.
func (r *ownReader) thenReads(another string) {
	r.t.Helper()
	eventually(r.t, "somebody waits for who reads "+r.has, func() bool {
		return len(queryTexts(r.t, r.db, fmt.Sprintf(`SELECT w.mode FROM pg_locks AS w JOIN pg_locks AS h USING (database, relation)
			WHERE NOT w.granted AND h.pid = %d`, r.conn.PgConn().PID()))) > 0
	})
	if _, err := r.conn.Exec(r.t.Context(), "SELECT count(*) FROM "+another); err != nil {
		r.t.Errorf("the reader of %s, then %s: %v", r.has, another, err)
	}
	if _, err := r.conn.Exec(r.t.Context(), "ROLLBACK"); err != nil {
		r.t.Fatal(err)
	}
}

// inBackground runs what waits for the reader, again where it gave up, and returns what waits for its end.
func inBackground(t *testing.T, do func() error) (wait func()) {
	ended := make(chan error, 1)
	go func() {
		for {
			if err := do(); !lockTimedOut(err) {
				ended <- err
				return
			}
		}
	}()
	return func() {
		t.Helper()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// TestAReaderOfADayIsNotEndedByTheMerge: it reads a day by that day's own name, and then the whole table.
func TestAReaderOfADayIsNotEndedByTheMerge(t *testing.T) {
	t.Parallel()
	f := monthsFolder(t)
	f.writeAll(sentOnEachDay(4)...)
	before := dump(t, f.db, migrations.Schema)
	reader := reads(t, f.db, "whisper.deliveries_20260914")
	wait := inBackground(t, func() error {
		_, err := f.st.mergeMonths(t.Context(), now, autumn)
		return err
	})
	reader.thenReads("whisper.deliveries")
	wait()
	if after := dump(t, f.db, migrations.Schema); strings.Join(before, "\n") != strings.Join(after, "\n") {
		t.Errorf("rows differ:%s", differences(after, before))
	}
	wholeMonths(t, f.db)
}

// TestAReaderOfADayPutsTheMergeOff, is named, and is waited for without the lock of the whole table, which others read meanwhile.
func TestAReaderOfADayPutsTheMergeOff(t *testing.T) {
	t.Parallel()
	f := monthsFolder(t)
	f.writeAll(sentOnEachDay(4)...)
	said := &journal{}
	f.st.log = said.logger()
	reader := reads(t, f.db, "whisper.deliveries_20260914")
	if _, err := f.st.mergeMonths(t.Context(), now, autumn); !lockTimedOut(err) || !strings.Contains(err.Error(), "deliveries_20260914 wait") {
		t.Errorf("a reader of one day: %v", err)
	}
	if !strings.Contains(said.String(), "application=report") {
		t.Errorf("the log does not name the reader: %s", said)
	}
	wait := inBackground(t, func() error {
		_, err := f.st.mergeMonths(t.Context(), now, autumn)
		return err
	})
	reader.thenReads("whisper.deliveries")
	wait()
	wholeMonths(t, f.db)
}

// TestAVacuumOfTheMonthHoldsNobodyUp: it may have the copy, which was just filled, when the month takes the place of its days.
func TestAVacuumOfTheMonthHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	f := monthsFolder(t)
	f.writeAll(sentOnEachDay(4)...)
	m, days := septemberMerge(t, f, "deliveries")
	for _, day := range days {
		if err := m.copyDay(t.Context(), day); err != nil {
			t.Fatal(err)
		}
	}
	vacuum, err := pgx.Connect(t.Context(), f.db)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = vacuum.Close(context.Background()) }()
	if _, err := vacuum.Exec(t.Context(), "BEGIN; LOCK TABLE whisper.deliveries_202609 IN SHARE UPDATE EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	wait := inBackground(t, func() error { return m.switchOver(t.Context()) })
	eventually(t, "the switch waits for it", func() bool {
		return len(f.texts("SELECT mode FROM pg_locks WHERE NOT granted AND relation = 'whisper.deliveries_202609'::regclass")) > 0
	})
	if got := f.texts("SELECT mode FROM pg_locks WHERE granted AND relation = 'whisper.deliveries'::regclass AND mode = 'AccessExclusiveLock'"); len(got) > 0 {
		t.Error("readers wait for a vacuum of the copy")
	}
	if _, err := vacuum.Exec(t.Context(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	wait()
	m.conn.Release()
}

// TestAReaderOfTwoDaysIsNotEndedByTheDropOfTheirMonth: days of a month that was merged are views of it.
func TestAReaderOfTwoDaysIsNotEndedByTheDropOfTheirMonth(t *testing.T) {
	t.Parallel()
	f := monthsFolder(t)
	f.writeAll(sentOnEachDay(4)...)
	if _, err := f.st.mergeMonths(t.Context(), now, autumn); err != nil {
		t.Fatal(err)
	}
	// As a try before left it, which ended between its two transactions.
	f.exec("ALTER TABLE whisper.deliveries DETACH PARTITION whisper.deliveries_202608")
	at, err := time.Parse(time.DateOnly, "2026-09-01")
	if err != nil {
		t.Fatal(err)
	}
	reader := reads(t, f.db, "whisper.deliveries_20260830")
	wait := inBackground(t, func() error {
		return f.st.dropDays(t.Context(), dayOfUS(at.UnixMicro()), retention{days: 60, most: 50})
	})
	reader.thenReads("whisper.deliveries_20260803")
	wait()
	if got := f.texts("SELECT relname::text FROM pg_class WHERE relname ~ '_202608'"); len(got) != 0 {
		t.Errorf("left of the month: %v", got)
	}
}

// TestAReaderIsNotEndedByARebuildsSwap: it has read one table, then asks for another one, which is swapped before it.
func TestAReaderIsNotEndedByARebuildsSwap(t *testing.T) {
	t.Parallel()
	for name, daysAtOnce := range map[string]int{"at once": 0, "a day at a time": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, l := database(t), startLog(t)
			cfg := config(l, db)
			cfg.RetentionDays, cfg.DailyDays = 119, 3650
			r := start(t, cfg)
			for _, ev := range sentOnEachDay(3) {
				l.put(record(ev))
			}
			caughtUp(t, l, db)
			r.stop()
			before := dump(t, db, migrations.Schema)
			b := newRebuild(RebuildConfig{Config: cfg})
			b.cfg.setDefaults()
			b.daysAtOnce = daysAtOnce
			defer b.close()
			for _, step := range []func(context.Context) error{b.connect, b.open} {
				if err := step(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			reader := reads(t, db, "whisper.attempts_20260803")
			wait := inBackground(t, func() error { return b.run(t.Context()) })
			reader.thenReads("whisper.deliveries")
			wait()
			if after := dump(t, db, migrations.Schema); strings.Join(before, "\n") != strings.Join(after, "\n") {
				t.Errorf("rows differ:%s", differences(after, before))
			}
		})
	}
}

// TestWhatWasWaitedForIsKept: a table that is always read, by one after the other, is got as soon as those end who had it. Who came
// after them waits.
func TestWhatWasWaitedForIsKept(t *testing.T) {
	t.Parallel()
	f := monthsFolder(t)
	conn, err := pgx.Connect(t.Context(), f.db)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	first := reads(t, f.db, "whisper.timeline")
	got := make(chan error, 1)
	go func() {
		got <- lockAll(t.Context(), tx, time.Now().Add(20*time.Second), []string{"whisper.attempts", "whisper.deliveries", "whisper.timeline"})
	}()
	waiting := func(mode string) func() bool {
		return func() bool {
			return len(f.texts("SELECT mode FROM pg_locks WHERE NOT granted AND relation = 'whisper.timeline'::regclass AND mode = '"+mode+"'")) > 0
		}
	}
	eventually(t, "it waits for the first reader", waiting("AccessExclusiveLock"))
	next, read := make(chan error, 1), context.WithoutCancel(t.Context())
	second, err := pgx.Connect(t.Context(), f.db)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = second.Close(context.Background()) }()
	go func() {
		_, err := second.Exec(read, "BEGIN; SELECT count(*) FROM whisper.timeline")
		next <- err
	}()
	eventually(t, "the second reader waits behind it", waiting("AccessShareLock"))
	if _, err := first.conn.Exec(t.Context(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Errorf("the second reader came first: %v", err)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-next; err != nil {
		t.Error(err)
	}
}
