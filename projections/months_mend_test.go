package projections

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/klivvr/whisper/migrations"
)

// septemberMerge is a merge of September that has begun: its steps can be taken one by one.
func septemberMerge(t *testing.T, f *folder, table string) (*monthMerge, []part) {
	t.Helper()
	conn, err := f.st.pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Release)
	at, err := time.Parse(time.DateOnly, "2026-09-01")
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(dailyTables, func(d dailyTable) bool { return d.name == table })
	month := monthSpan(dayOfUS(at.UnixMicro()))
	m := &monthMerge{store: f.st, merging: autumn, conn: conn, table: dailyTables[i], month: month, target: month.table(table)}
	if err := m.begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	days, err := m.sources(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	return m, days
}

// step does something in a transaction of the merge.
func (m *monthMerge) step(t *testing.T, do func(tx pgx.Tx) error) error {
	t.Helper()
	return pgx.BeginFunc(t.Context(), m.conn, do)
}

// TestARewrittenDayIsCopiedAnew: VACUUM FULL moves the rows to the first blocks, which were copied, and tells no trigger.
func TestARewrittenDayIsCopiedAnew(t *testing.T) {
	t.Parallel()
	f := monthsFolder(t)
	f.writeAll(sentOnEachDay(100)...)
	for range 3 { // rows leave dead versions behind, as facts do
		f.exec("UPDATE whisper.deliveries SET attempts = attempts + 1 WHERE day = '2026-09-01'")
	}
	before := dump(t, f.db, migrations.Schema)
	m, days := septemberMerge(t, f, "deliveries")
	copyBlock := func() (done bool, err error) {
		err = m.step(t, func(tx pgx.Tx) (err error) {
			done, err = m.copyBlocks(t.Context(), tx, days[0])
			return err
		})
		return done, err
	}
	for range 3 {
		if done, err := copyBlock(); err != nil || done {
			t.Fatalf("the day has more than three blocks: done %v, %v", done, err)
		}
	}
	f.exec("VACUUM FULL whisper.deliveries_20260901")
	if _, err := copyBlock(); !errors.Is(err, errChanged) {
		t.Errorf("a day that was rewritten while it was copied: %v", err)
	}
	m.conn.Release()
	if _, err := f.st.mergeMonths(t.Context(), now, autumn); err != nil {
		t.Fatal(err)
	}
	if after := dump(t, f.db, migrations.Schema); !slices.Equal(before, after) {
		t.Errorf("rows differ:%s", differences(after, before))
	}
	wholeMonths(t, f.db)
}

// TestARewriteBeforeTheSwitchIsSeen.
func TestARewriteBeforeTheSwitchIsSeen(t *testing.T) {
	t.Parallel()
	f := monthsFolder(t)
	f.writeAll(sentOnEachDay(4)...)
	m, days := septemberMerge(t, f, "deliveries")
	complete := func() error {
		return m.step(t, func(tx pgx.Tx) error { return m.complete(t.Context(), tx, days) })
	}
	if err := complete(); !errors.Is(err, errChanged) {
		t.Errorf("nothing is copied yet: %v", err)
	}
	for _, day := range days {
		if err := m.copyDay(t.Context(), day); err != nil {
			t.Fatal(err)
		}
	}
	if err := complete(); err != nil {
		t.Fatal(err)
	}
	f.exec("VACUUM FULL whisper.deliveries_20260914")
	if err := complete(); !errors.Is(err, errChanged) {
		t.Errorf("a day was rewritten: %v", err)
	}
}

// TestBlocksThatADayGetsLaterAreCopiedOnce: timeline has no key that would keep a second copy of a row out.
func TestBlocksThatADayGetsLaterAreCopiedOnce(t *testing.T) {
	t.Parallel()
	f := monthsFolder(t)
	f.writeAll(sentOnEachDay(60)...)
	m, days := septemberMerge(t, f, "timeline")
	copyDays := func() {
		t.Helper()
		for _, day := range days {
			if err := m.copyDay(t.Context(), day); err != nil {
				t.Fatal(err)
			}
		}
	}
	copyDays()
	for i := range 60 {
		f.writeAll(ofDay("2026-09-01", i, []string{"mona@example.com", "omar"}[i%2]).read(time.Hour))
	}
	before := dump(t, f.db, migrations.Schema)
	for _, day := range days {
		for more := true; more; {
			if err := m.step(t, func(tx pgx.Tx) (err error) {
				more, err = m.copyChanged(t.Context(), tx, day)
				return err
			}); err != nil {
				t.Fatal(err)
			}
		}
	}
	copyDays() // the switch failed, and this is the next try
	m.conn.Release()
	if _, err := f.st.mergeMonths(t.Context(), now, autumn); err != nil {
		t.Fatal(err)
	}
	if after := dump(t, f.db, migrations.Schema); !slices.Equal(before, after) {
		t.Errorf("rows differ:%s", differences(after, before))
	}
	wholeMonths(t, f.db)
}

// TestACopyThatIsNotNeededIsDropped: erasures don't reach it. Its days note no more changes either.
func TestACopyThatIsNotNeededIsDropped(t *testing.T) {
	t.Parallel()
	for name, which := range map[string]merging{
		"merging is off":              {keep: 60, daily: 60, blocks: 1},
		"the month is about to go":    {keep: 80, daily: 40, blocks: 1},
		"the month keeps daily ones":  {keep: 120, daily: 100, blocks: 1},
		"merging is off, and no days": {keep: 0, daily: 40, blocks: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := monthsFolder(t)
			f.writeAll(sentOnEachDay(4)...)
			m, days := septemberMerge(t, f, "deliveries")
			if err := m.copyDay(t.Context(), days[0]); err != nil {
				t.Fatal(err)
			}
			m.conn.Release()
			f.writeAll(erasedAt("mona@example.com", now, 7))
			if _, err := f.st.mergeMonths(t.Context(), now, which); err != nil {
				t.Fatal(err)
			}
			if left := f.texts(`SELECT relname::text FROM pg_class WHERE relname = 'deliveries_202609'
				UNION ALL SELECT name FROM whisper.month_merges UNION ALL SELECT key FROM whisper.month_changes
				UNION ALL SELECT tgname || ' on ' || tgrelid::regclass FROM pg_trigger WHERE tgname = 'note_month_change'`); len(left) != 0 {
				t.Errorf("left of the merge: %v", left)
			}
		})
	}
}

// TestNotesThatNobodyNeedsAreDropped: a process died when it had forgotten a merge, and the days noted changes on.
func TestNotesThatNobodyNeedsAreDropped(t *testing.T) {
	t.Parallel()
	f := monthsFolder(t)
	f.writeAll(sentOnEachDay(4)...)
	m, _ := septemberMerge(t, f, "deliveries")
	if err := f.st.forgetMerge(t.Context(), m.conn, m.target); err != nil {
		t.Fatal(err)
	}
	m.conn.Release()
	f.writeAll(erasedAt("mona@example.com", now, 7))
	if noted := f.texts("SELECT key FROM whisper.month_changes"); len(noted) == 0 {
		t.Fatal("the days note nothing")
	}
	if _, err := f.st.mergeMonths(t.Context(), now, merging{keep: 60, daily: 60, blocks: 1}); err != nil {
		t.Fatal(err)
	}
	if left := f.texts("SELECT key FROM whisper.month_changes"); len(left) != 0 {
		t.Errorf("noted yet: %v", left)
	}
}

// TestNotesOfADayThatIsGoneAreDropped: it was dropped while it was copied, and no later table has its number.
func TestNotesOfADayThatIsGoneAreDropped(t *testing.T) {
	t.Parallel()
	f := monthsFolder(t)
	f.writeAll(sentOnEachDay(4)...)
	m, _ := septemberMerge(t, f, "deliveries")
	m.conn.Release()
	f.writeAll(erasedAt("mona@example.com", now, 7))
	f.exec("ALTER TABLE whisper.deliveries DETACH PARTITION whisper.deliveries_20260914; DROP TABLE whisper.deliveries_20260914")
	if noted := f.texts("SELECT key FROM whisper.month_changes WHERE NOT EXISTS (SELECT FROM pg_class WHERE oid = source)"); len(noted) == 0 {
		t.Fatal("nothing is noted of the day that is gone")
	}
	if _, err := f.st.mergeMonths(t.Context(), now, autumn); err != nil {
		t.Fatal(err)
	}
	if left := f.texts("SELECT key FROM whisper.month_changes UNION ALL SELECT name FROM whisper.month_merges"); len(left) != 0 {
		t.Errorf("left of the merges: %v", left)
	}
}

// TestAReaderEndsThePassThatDropsNotes: whoever reads one table may read the next one, too, and each try makes others wait.
func TestAReaderEndsThePassThatDropsNotes(t *testing.T) {
	t.Parallel()
	f := monthsFolder(t)
	f.writeAll(sentOnEachDay(4)...)
	for _, table := range []string{"deliveries", "attempts"} {
		m, _ := septemberMerge(t, f, table)
		if err := f.st.forgetMerge(t.Context(), m.conn, m.target); err != nil {
			t.Fatal(err)
		}
		m.conn.Release()
	}
	reads(t, f.db, "whisper.deliveries_20260901")
	if _, err := f.st.mergeMonths(t.Context(), now, merging{keep: 60, daily: 60, blocks: 1}); !lockTimedOut(err) {
		t.Errorf("a reader of a day that notes changes: %v", err)
	}
	if noting := f.texts("SELECT tgrelid::regclass::text FROM pg_trigger WHERE tgname = 'note_month_change' AND tgrelid::regclass::text ~ 'attempts'"); len(noting) != 3 {
		t.Errorf("of the next table %v note changes, want all three days", noting)
	}
}

// A lockTracer keeps the lock_timeout of each lock before the first day is detached.
type lockTracer struct {
	mu       sync.Mutex
	left     []int
	detached bool
}

func (l *lockTracer) TraceQueryStart(ctx context.Context, _ *pgx.Conn, q pgx.TraceQueryStartData) context.Context {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.detached = l.detached || strings.Contains(q.SQL, "DETACH PARTITION")
	if !l.detached && strings.Contains(q.SQL, "set_config('lock_timeout'") {
		ms, err := strconv.Atoi(q.Args[0].(string))
		if err != nil {
			ms = -1
		}
		l.left = append(l.left, ms)
	}
	return ctx
}

// again forgets what it has kept.
func (l *lockTracer) again() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.left, l.detached = nil, false
}

func (l *lockTracer) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// TestTheSwitchHasOneDeadlineForAllItsLocks: those of projectors and of the table.
func TestTheSwitchHasOneDeadlineForAllItsLocks(t *testing.T) {
	t.Parallel()
	f := monthsFolder(t)
	f.writeAll(sentOnEachDay(4)...)
	trace := &lockTracer{}
	cfg := f.st.pool.Config()
	cfg.ConnConfig.Tracer = trace
	f.st.pool.Close()
	var err error
	if f.st.pool, err = pgxpool.NewWithConfig(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	m, days := septemberMerge(t, f, "deliveries")
	for _, day := range days {
		if err := m.copyDay(t.Context(), day); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.switchOver(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(trace.left) != 2 { // those of the days are not waited for as long as there is the table's
		t.Fatalf("%d locks are waited for before the first day is detached, want 2", len(trace.left))
	}
	most := int(switchLocks.Milliseconds())
	for _, left := range trace.left {
		if left < 1 || left > most {
			t.Errorf("waits of at most %v ms: each must be what the one before has left", trace.left)
		}
		most = left
	}
	// When nothing is left of it, the lock is not waited for.
	other, err := pgx.Connect(t.Context(), f.db)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close(context.Background()) }()
	if _, err := other.Exec(t.Context(), "BEGIN; SELECT count(*) FROM whisper.attempts"); err != nil {
		t.Fatal(err)
	}
	trace.again()
	for _, names := range [][]string{{"whisper.attempts"}, {"whisper.timeline", "whisper.attempts"}} {
		if err := m.step(t, func(tx pgx.Tx) error {
			return lockAll(t.Context(), tx, time.Now().Add(-time.Hour), names)
		}); !lockTimedOut(err) {
			t.Errorf("after the deadline: %v", err)
		}
	}
	if slices.ContainsFunc(trace.left, func(left int) bool { return left != 1 }) || len(trace.left) != 2 {
		t.Errorf("after the deadline waits of %v ms are allowed, want the shortest", trace.left)
	}
}

// TestWhoElseDropsDaysHidesNoFault: what failed is still told of.
func TestWhoElseDropsDaysHidesNoFault(t *testing.T) {
	t.Parallel()
	f := monthsFolder(t)
	f.writeAll(sentOnEachDay(4)...)
	other, err := pgx.Connect(t.Context(), f.db)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close(context.Background()) }()
	if _, err := other.Exec(t.Context(), "SELECT pg_advisory_lock($1, $2)", f.st.class, int32(lockDrop)); err != nil {
		t.Fatal(err)
	}
	f.exec("CREATE SCHEMA bi; CREATE VIEW bi.september AS SELECT * FROM whisper.deliveries_20260914")
	merged, err := f.st.mergeMonths(t.Context(), now, autumn)
	if err == nil || errors.Is(err, errElsewhere) || !strings.Contains(err.Error(), "bi.september") {
		t.Errorf("while days are dropped: %v", err)
	}
	if merged != 0 {
		t.Errorf("%d tables were made while days are dropped", merged)
	}
}

// TestNothingIsMergedWhileASwapIsUnderWay: some days are of the rebuild, others are not yet.
func TestNothingIsMergedWhileASwapIsUnderWay(t *testing.T) {
	t.Parallel()
	f := monthsFolder(t)
	f.writeAll(sentOnEachDay(4)...)
	m, days := septemberMerge(t, f, "deliveries")
	for _, day := range days {
		if err := m.copyDay(t.Context(), day); err != nil {
			t.Fatal(err)
		}
	}
	before := partitionsOf(t, f.db, "deliveries")
	f.exec("ALTER TABLE whisper.checkpoints RENAME TO " + swapping)
	if err := m.switchOver(t.Context()); !errors.Is(err, errElsewhere) {
		t.Errorf("the switch: %v", err)
	}
	m.conn.Release()
	if _, err := f.st.mergeMonths(t.Context(), now, autumn); !errors.Is(err, errElsewhere) {
		t.Errorf("a merge: %v", err)
	}
	if got := partitionsOf(t, f.db, "deliveries"); got != before {
		t.Errorf("partitions %s, want %s", got, before)
	}
	f.exec("ALTER TABLE whisper." + swapping + " RENAME TO checkpoints")
	if _, err := f.st.mergeMonths(t.Context(), now, autumn); err != nil {
		t.Fatal(err)
	}
	wholeMonths(t, f.db)
}

// TestWhatStandsOnADayKeepsItFromBeingDropped, whole and served, as its own table or as a view of its month. Others are dropped.
func TestWhatStandsOnADayKeepsItFromBeingDropped(t *testing.T) {
	t.Parallel()
	for name, merges := range map[string]bool{"daily tables": false, "months": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := monthsFolder(t)
			f.writeAll(sentOnEachDay(4)...)
			if merges {
				if _, err := f.st.mergeMonths(t.Context(), now, autumn); err != nil {
					t.Fatal(err)
				}
			}
			// On another table than the first one, which must stay as well.
			f.exec("CREATE SCHEMA bi; CREATE VIEW bi.thirtieth AS SELECT * FROM whisper.attempts_20260830")
			f.exec(`INSERT INTO whisper.duplicates VALUES ('n', 'u', 'r', 0, 1, gen_random_uuid(), '2026-08-30', now())`)
			at, err := time.Parse(time.DateOnly, "2026-10-01")
			if err != nil {
				t.Fatal(err)
			}
			drop := func() error {
				return f.st.dropDays(t.Context(), dayOfUS(at.UnixMicro()), retention{days: 60, most: 50})
			}
			count := func(day string) string {
				return f.texts("SELECT count(*)::text FROM whisper.deliveries WHERE day = '" + day + "'")[0]
			}
			if err := f.st.dropDays(t.Context(), dayOfUS(at.UnixMicro()), retention{days: 60}); err == nil ||
				!strings.Contains(err.Error(), "bi.thirtieth") || !strings.Contains(err.Error(), "more than 0 at once") {
				t.Errorf("a view on a day, and more days than may go at once: %v", err)
			}
			for range 2 {
				if err := drop(); err == nil || !strings.Contains(err.Error(), "bi.thirtieth") {
					t.Errorf("a view on a day: %v", err)
				}
				for _, table := range dailyTables {
					if got := partitionsOf(t, f.db, table.name); !strings.Contains(got, "_202608") {
						t.Errorf("partitions %s: August's is gone", got)
					}
				}
				if count("2026-08-30") != "4" || count("2026-09-14") != "0" {
					t.Errorf("deliveries: %s on the day that stays, %s on one that went", count("2026-08-30"), count("2026-09-14"))
				}
				if got := f.texts("SELECT count(*)::text FROM whisper.duplicates")[0]; got != "1" {
					t.Errorf("%s duplicates of the day that stays", got)
				}
			}
			f.exec("DROP VIEW bi.thirtieth")
			if err := drop(); err != nil {
				t.Fatal(err)
			}
			if got := f.texts("SELECT relname::text FROM pg_class WHERE relname ~ '_20260[89]'"); len(got) != 0 {
				t.Errorf("left of the months: %v", got)
			}
		})
	}
}

// TestWhatStandsOnADayIsNamedBeforeARebuildReads: its end would drop what that stands on. What comes later goes with the old tables.
func TestWhatStandsOnADayIsNamedBeforeARebuildReads(t *testing.T) {
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
	if _, err := r.merge(t, autumn); err != nil {
		t.Fatal(err)
	}
	before := dump(t, db, migrations.Schema)
	begin := func(keepOld bool) (*rebuild, error) {
		t.Helper()
		b := newRebuild(RebuildConfig{Config: cfg, KeepOld: keepOld})
		b.cfg.setDefaults()
		t.Cleanup(b.close)
		if err := b.connect(t.Context()); err != nil {
			t.Fatal(err)
		}
		err := b.open(t.Context())
		if err != nil {
			_ = b.lock.Close(context.Background()) // another one may begin
		}
		return b, err
	}
	execSQL(t, db, "CREATE SCHEMA bi; CREATE VIEW bi.x AS SELECT * FROM whisper.deliveries_20260830")
	for _, what := range []string{"whisper.deliveries_20260830", "whisper.deliveries_202609", "whisper.deliveries_20261123"} {
		execSQL(t, db, "DROP VIEW bi.x; CREATE VIEW bi.x AS SELECT * FROM "+what)
		if _, err := begin(false); err == nil || !strings.Contains(err.Error(), "bi.x") {
			t.Fatalf("a view on %s: %v", what, err)
		}
	}
	execSQL(t, db, "DROP VIEW bi.x")
	b, err := begin(true)
	if err != nil {
		t.Fatal(err)
	}
	execSQL(t, db, "CREATE VIEW bi.x AS SELECT * FROM whisper.deliveries_20260830")
	if err := b.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := dump(t, db, migrations.Schema); !slices.Equal(before, after) {
		t.Errorf("rows differ:%s", differences(after, before))
	}
	if got := queryTexts(t, db, "SELECT count(*)::text FROM bi.x"); got[0] != "3" {
		t.Errorf("the view has %s of the old deliveries, want 3", got[0])
	}
	b.close()
	if _, err := begin(false); err == nil || !strings.Contains(err.Error(), "bi.x") {
		t.Errorf("a view on what the next rebuild drops: %v", err)
	}
	execSQL(t, db, "DROP VIEW bi.x")
	if b, err = begin(false); err != nil {
		t.Fatal(err)
	}
	if err := b.run(t.Context()); err != nil {
		t.Fatal(err)
	}
}
