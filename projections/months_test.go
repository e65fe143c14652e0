package projections

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kadm"
	"golang.org/x/sync/errgroup"

	"github.com/klivvr/whisper/domain/whisperv1"
	"github.com/klivvr/whisper/migrations"
)

// autumn merges the months up to September 2026, of tests whose clock is in November. Each block of a table is a transaction.
var autumn = merging{keep: 120, daily: 40, blocks: 1}

const partitionsSQL = `SELECT c.relname FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
	WHERE i.inhparent = 'whisper.%s'::regclass ORDER BY 1`

func partitionsOf(t testing.TB, db, table string) string {
	t.Helper()
	return strings.Join(queryTexts(t, db, fmt.Sprintf(partitionsSQL, table)), " ")
}

// of a day is a story that began then, at noon.
func ofDay(day string, i int, user string) story {
	at, err := time.Parse(time.DateOnly, day)
	if err != nil {
		panic(err)
	}
	return tell(fmt.Sprintf("%s-%d", day, i), user, at.Add(12*time.Hour+time.Duration(i)*time.Second), int64(i))
}

// autumnDays are of three months: two that are merged, the last that is not.
var autumnDays = []string{"2026-08-03", "2026-08-30", "2026-09-01", "2026-09-14", "2026-09-30", "2026-11-23"}

// monthsFolder takes facts of all of them.
func monthsFolder(t *testing.T) *folder {
	f := newFolder(t)
	f.keep = 120 * 24 * time.Hour
	return f
}

// sentOnEachDay are n deliveries on each of the days, sent to a user who is erased later and to another one.
func sentOnEachDay(n int) (events []*whisperv1.Event) {
	for _, day := range autumnDays {
		for i := range n {
			s := ofDay(day, i, []string{"mona@example.com", "omar"}[i%2])
			events = append(events, s.accepted(), s.sent(time.Second, 1, "apns"))
		}
	}
	return events
}

func erasedAt(user string, at time.Time, offset int64) *whisperv1.Event {
	ev := tell("", user, at, 0).erased(0)
	ev.GetUserErased().ChangesOffset = offset
	return ev
}

// equalTables fails unless both databases have the same rows.
func equalTables(t *testing.T, want, got *folder) {
	t.Helper()
	a, b := dump(t, want.db, migrations.Schema), dump(t, got.db, migrations.Schema)
	if len(a) < len(autumnDays) || !slices.Equal(a, b) {
		t.Fatalf("of %d rows some differ:%s", len(a), differences(b, a))
	}
}

// wholeMonths fails unless August and September are tables of their own, as they would be if they had never had days.
func wholeMonths(t *testing.T, db string) {
	t.Helper()
	for _, table := range dailyTables {
		want := fmt.Sprintf("%[1]s_202608 %[1]s_202609 %[1]s_20261123", table.name)
		if got := partitionsOf(t, db, table.name); got != want {
			t.Errorf("partitions %s, want %s", got, want)
		}
		for _, month := range []string{"_202608", "_202609"} {
			missing := queryTexts(t, db, fmt.Sprintf(`
				SELECT p.indexrelid::regclass::text FROM pg_index AS p WHERE p.indrelid = 'whisper.%[1]s'::regclass AND NOT EXISTS (
					SELECT FROM pg_inherits AS i JOIN pg_index AS own ON own.indexrelid = i.inhrelid
					WHERE i.inhparent = p.indexrelid AND own.indrelid = 'whisper.%[1]s%[2]s'::regclass AND own.indisvalid)
				UNION ALL SELECT conname FROM pg_constraint WHERE conrelid = 'whisper.%[1]s%[2]s'::regclass AND contype = 'c'
				UNION ALL SELECT tgname FROM pg_trigger WHERE tgrelid = 'whisper.%[1]s%[2]s'::regclass
				UNION ALL SELECT 'no comment' WHERE obj_description('whisper.%[1]s%[2]s'::regclass) IS NULL`, table.name, month))
			if len(missing) > 0 {
				t.Errorf("%s%s: %v", table.name, month, missing)
			}
		}
	}
	if left := queryTexts(t, db, "SELECT name FROM whisper.month_merges UNION ALL SELECT key FROM whisper.month_changes"); len(left) != 0 {
		t.Errorf("left of the merges: %v", left)
	}
}

// A killer ends a connection before one of the next statements is sent.
type killer struct{ statements atomic.Int64 }

func (k *killer) TraceQueryStart(ctx context.Context, conn *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	if k.statements.Add(-1) == 0 {
		_ = conn.Close(context.Background())
	}
	return ctx
}

func (k *killer) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// killed is a projector's store whose process dies at a statement.
func killed(t *testing.T, db string) (*store, *killer) {
	t.Helper()
	st, err := openStore(db, migrations.Schema, 3)
	if err != nil {
		t.Fatal(err)
	}
	k := &killer{}
	cfg := st.pool.Config()
	cfg.ConnConfig.Tracer = k
	st.pool.Close()
	if st.pool, err = pgxpool.NewWithConfig(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(st.close)
	return st, k
}

// TestAMergeThatIsKilledAtAnyStatementLosesNothing: each process dies one statement later than the one before. Between them facts of the
// days come that are being merged: late reads, new deliveries, an erasure. The rows are those of tables that were never merged.
func TestAMergeThatIsKilledAtAnyStatementLosesNothing(t *testing.T) {
	t.Parallel()
	straight, merged := monthsFolder(t), monthsFolder(t)
	both := func(events ...*whisperv1.Event) {
		straight.writeAll(events...)
		merged.writeAll(events...)
	}
	both(sentOnEachDay(60)...)
	st, k := killed(t, merged.db)
	deaths := 0
	for done := false; !done; deaths++ {
		if deaths > 1_000 {
			t.Fatal("it does not come to an end")
		}
		day := autumnDays[deaths%len(autumnDays)]
		switch old := ofDay(day, 1+2*(deaths%30), "omar"); {
		case deaths == 31:
			both(erasedAt("mona@example.com", now.Add(time.Hour), 7))
		case deaths%7 == 3:
			both(ofDay(day, 1000+deaths, "mona@example.com").accepted())
		default:
			both(old.read(time.Duration(deaths) * time.Minute))
		}
		k.statements.Store(int64(deaths + 1))
		_, err := st.mergeMonths(t.Context(), now, autumn)
		done = err == nil && k.statements.Load() > 0
	}
	t.Logf("it was killed %d times", deaths-1)
	equalTables(t, straight, merged)
	wholeMonths(t, merged.db)
	// The months take facts as their days did, also on days that had none, and erasures.
	late := ofDay("2026-09-14", 3, "omar")
	both(late.read(time.Hour), ofDay("2026-09-20", 1, "zoe").accepted(), erasedAt("omar", now.Add(time.Hour), 8))
	equalTables(t, straight, merged)
	wholeMonths(t, merged.db)
	if rows := strings.Join(dump(t, merged.db, migrations.Schema), "\n"); strings.Contains(rows, "mona@") || strings.Contains(rows, "omar") {
		t.Error("an erased user is still told of")
	}
}

// TestFactsComeWhileDaysAreMerged, in transactions beside those that copy.
func TestFactsComeWhileDaysAreMerged(t *testing.T) {
	t.Parallel()
	straight, merged := monthsFolder(t), monthsFolder(t)
	facts := sentOnEachDay(100)
	straight.writeAll(facts...)
	merged.writeAll(facts...)
	st, err := openStore(merged.db, migrations.Schema, 3)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(st.close)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var merge errgroup.Group
	merge.Go(func() error {
		defer stop()
		_, err := st.mergeMonths(t.Context(), now, autumn)
		return err
	})
	var written [][]*whisperv1.Event
	for i := 0; ctx.Err() == nil || i < 10; i++ {
		day := autumnDays[i%len(autumnDays)]
		user := []string{"mona@example.com", "omar"}[i%2]
		batch := []*whisperv1.Event{ofDay(day, i%100, user).read(time.Hour), ofDay(day, 1000+i, "zoe").accepted()}
		merged.writeAll(batch...)
		written = append(written, batch)
	}
	if err := merge.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d transactions came meanwhile", len(written))
	for _, batch := range written {
		straight.writeAll(batch...)
	}
	equalTables(t, straight, merged)
	wholeMonths(t, merged.db)
}

// TestDaysThatChangeWhileTheyAreMerged: one that is new is merged too; those that were dropped, replaced or migrated are copied anew.
func TestDaysThatChangeWhileTheyAreMerged(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(f *folder){
		"a new day": func(f *folder) { f.writeAll(ofDay("2026-09-21", 1, "zoe").accepted()) },
		"a replaced day": func(f *folder) {
			f.exec(`BEGIN; CREATE TABLE whisper.other (LIKE whisper.deliveries_20260914 INCLUDING ALL);
				INSERT INTO whisper.other SELECT * FROM whisper.deliveries_20260914;
				ALTER TABLE whisper.deliveries DETACH PARTITION whisper.deliveries_20260914; DROP TABLE whisper.deliveries_20260914;
				ALTER TABLE whisper.other RENAME TO deliveries_20260914;
				ALTER TABLE whisper.deliveries ATTACH PARTITION whisper.deliveries_20260914 FOR VALUES FROM ('2026-09-14') TO ('2026-09-15'); COMMIT`)
		},
		"a migration": func(f *folder) {
			f.exec(`ALTER TABLE whisper.deliveries ADD COLUMN more text; UPDATE whisper.deliveries SET more = 'more';
				INSERT INTO whisper.schema_version (version_id, is_applied) VALUES (1000, true)`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := monthsFolder(t)
			f.writeAll(sentOnEachDay(60)...)
			st, k := killed(t, f.db)
			begun := func() bool {
				return len(f.texts("SELECT name FROM whisper.month_merges WHERE target = 'deliveries_202609' AND next_block > 0")) == 3
			}
			for i := int64(1); !begun(); i++ {
				k.statements.Store(i)
				if _, err := st.mergeMonths(t.Context(), now, autumn); err == nil {
					t.Fatal("it has come to its end")
				}
			}
			change(f)
			before := dump(t, f.db, migrations.Schema)
			k.statements.Store(1 << 40)
			if _, err := st.mergeMonths(t.Context(), now, autumn); err != nil && !errors.Is(err, errChanged) {
				t.Fatal(err)
			}
			if _, err := st.mergeMonths(t.Context(), now, autumn); err != nil {
				t.Fatal(err)
			}
			if after := dump(t, f.db, migrations.Schema); !slices.Equal(before, after) {
				t.Errorf("rows differ:%s", differences(after, before))
			}
			wholeMonths(t, f.db)
		})
	}
}

// TestADayOfAMonthIsStillReadByItsName, by analysts, and by a projector of the version before, which makes days that have no name yet.
func TestADayOfAMonthIsStillReadByItsName(t *testing.T) {
	t.Parallel()
	f := monthsFolder(t)
	f.writeAll(sentOnEachDay(4)...)
	if _, err := f.st.mergeMonths(t.Context(), now, autumn); err != nil {
		t.Fatal(err)
	}
	f.exec("SET ROLE whisper_analyst")
	if got := f.texts("SELECT count(*)::text FROM whisper.deliveries_20260914"); got[0] != "4" {
		t.Errorf("%s deliveries, want 4", got[0])
	}
	f.exec("RESET ROLE")
	for _, table := range dailyTables {
		got := f.texts("SELECT count(to_regclass('whisper." + table.name + "_202609' || to_char(d, 'FM00')))::text FROM generate_series(1, 30) AS d")
		if got[0] != "30" {
			t.Errorf("%s names of days of %s are taken, want 30", got[0], table.name)
		}
	}
	for _, day := range []string{"2026-09-14", "2026-09-20"} {
		at, _ := time.Parse(time.DateOnly, day)
		st, err := openStore(f.db, migrations.Schema, 1)
		if err != nil {
			t.Fatal(err)
		}
		if has, err := st.hasDay(t.Context(), dayOfUS(at.UnixMicro())); err != nil || !has {
			t.Errorf("a merged day counts as dropped: %v", err)
		}
		st.close()
	}
}

// TestWhatStandsOnADayKeepsItsMonth: it is named, and the other tables are merged.
func TestWhatStandsOnADayKeepsItsMonth(t *testing.T) {
	t.Parallel()
	f := monthsFolder(t)
	f.writeAll(sentOnEachDay(4)...)
	f.exec("CREATE SCHEMA bi; CREATE VIEW bi.september AS SELECT * FROM whisper.deliveries_20260914")
	if _, err := f.st.mergeMonths(t.Context(), now, autumn); err == nil || !strings.Contains(err.Error(), "bi.september") {
		t.Errorf("a view on a day: %v", err)
	}
	const want = "deliveries_202608 deliveries_20260901 deliveries_20260914 deliveries_20260930 deliveries_20261123"
	if got := partitionsOf(t, f.db, "deliveries"); got != want {
		t.Errorf("partitions %s", got)
	}
	f.exec("DROP VIEW bi.september; CREATE FUNCTION bi.count() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM whisper.deliveries_20260914; END")
	if _, err := f.st.mergeMonths(t.Context(), now, autumn); err == nil || !strings.Contains(err.Error(), "bi.count()") {
		t.Errorf("a function on a day: %v", err)
	}
	f.exec("DROP FUNCTION bi.count")
	if _, err := f.st.mergeMonths(t.Context(), now, autumn); err != nil {
		t.Fatal(err)
	}
	wholeMonths(t, f.db)
}

// TestAReaderPutsTheMergeOff: an analyst who has read the tables waits for nobody, and is named.
func TestAReaderPutsTheMergeOff(t *testing.T) {
	t.Parallel()
	f := monthsFolder(t)
	f.writeAll(sentOnEachDay(4)...)
	said := &journal{}
	f.st.log = said.logger()
	analyst, err := pgx.Connect(t.Context(), f.db+"&application_name=report")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = analyst.Close(context.Background()) }()
	if _, err := analyst.Exec(t.Context(), "BEGIN; SELECT count(*) FROM whisper.deliveries"); err != nil {
		t.Fatal(err)
	}
	if _, err := f.st.mergeMonths(t.Context(), now, autumn); !lockTimedOut(err) || !strings.Contains(err.Error(), "2026-08 of deliveries") {
		t.Errorf("a reader of all days: %v", err)
	}
	// The next month and the other tables are not tried: each try makes others wait.
	if got := f.texts("SELECT DISTINCT target FROM whisper.month_merges"); !slices.Equal(got, []string{"deliveries_202608"}) {
		t.Errorf("copied to %v", got)
	}
	if !strings.Contains(said.String(), "application=report") {
		t.Errorf("the log does not name the reader: %s", said)
	}
	if _, err := analyst.Exec(t.Context(), "SELECT count(*) FROM whisper.deliveries; ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	if _, err := f.st.mergeMonths(t.Context(), now, autumn); err != nil {
		t.Fatal(err)
	}
	wholeMonths(t, f.db)
}

// TestAMonthIsDroppedWithItsLastDay: until then its rows stay, with what belongs to them in the tables without partitions.
func TestAMonthIsDroppedWithItsLastDay(t *testing.T) {
	t.Parallel()
	f := monthsFolder(t)
	f.writeAll(sentOnEachDay(4)...)
	if _, err := f.st.mergeMonths(t.Context(), now, autumn); err != nil {
		t.Fatal(err)
	}
	day := func(s string) int32 {
		at, err := time.Parse(time.DateOnly, s)
		if err != nil {
			t.Fatal(err)
		}
		return dayOfUS(at.UnixMicro())
	}
	for _, d := range autumnDays {
		f.exec("INSERT INTO whisper.duplicates VALUES ('n', 'u', 'r', 0, " + fmt.Sprint(day(d)) + ", gen_random_uuid(), '" + d + "', now())")
	}
	f.exec("UPDATE whisper.deliveries SET status = 'scheduled', sent_at = NULL WHERE notification_id = '2026-09-30-1'")
	var dropped []string
	r := retention{days: 60, most: 1, dropped: func(day string) { dropped = append(dropped, day) }}
	for _, step := range []struct{ before, partitions, duplicates, dropped string }{
		{"2026-08-31", "deliveries_202608 deliveries_202609 deliveries_20261123", "6", ""},
		{"2026-09-01", "deliveries_202609 deliveries_20261123", "4", "2026-08"},
		{"2026-09-29", "deliveries_202609 deliveries_20261123", "4", "2026-08"},
		{"2026-10-01", "deliveries_202609 deliveries_20261123", "4", "2026-08"}, // something of it is pending
	} {
		if err := f.st.dropDays(t.Context(), day(step.before), r); err != nil {
			t.Fatal(err)
		}
		if got := partitionsOf(t, f.db, "deliveries"); got != step.partitions {
			t.Errorf("before %s is old: partitions %s, want %s", step.before, got, step.partitions)
		}
		if got := f.texts("SELECT count(*)::text FROM whisper.duplicates"); got[0] != step.duplicates {
			t.Errorf("before %s is old: %s duplicates, want %s", step.before, got[0], step.duplicates)
		}
		if got := strings.Join(dropped, " "); got != step.dropped {
			t.Errorf("before %s is old: dropped %s, want %s", step.before, got, step.dropped)
		}
	}
	f.exec("UPDATE whisper.deliveries SET status = 'sent', sent_at = now() WHERE notification_id = '2026-09-30-1'")
	f.st.held = map[int32]time.Time{} // six hours later
	// A month that could have gone days ago: a clock may be ahead.
	if err := f.st.dropDays(t.Context(), day("2026-10-03"), r); err == nil || !strings.Contains(err.Error(), "3 days") {
		t.Errorf("a month that is three days too old: %v", err)
	}
	if err := f.st.dropDays(t.Context(), day("2026-10-01"), r); err != nil {
		t.Fatal(err)
	}
	for _, table := range dailyTables {
		if got, want := partitionsOf(t, f.db, table.name), table.name+"_20261123"; got != want {
			t.Errorf("partitions %s, want %s", got, want)
		}
	}
	if got := f.texts("SELECT relname::text FROM pg_class WHERE relname ~ '_20260[89]'"); len(got) != 0 {
		t.Errorf("left of the months: %v", got)
	}
}

// TestARebuildOfMergedMonthsGivesTheSameRows: a month comes back as days. One of which the log has lost a day stays as it is, whole.
func TestARebuildOfMergedMonthsGivesTheSameRows(t *testing.T) {
	t.Parallel()
	for name, daysAtOnce := range map[string]int{"at once": 0, "a day at a time": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, l := database(t), startLog(t)
			cfg := config(l, db)
			cfg.RetentionDays, cfg.DailyDays = 119, 3650
			r := start(t, cfg)
			for _, ev := range sentOnEachDay(3)[:6] { // of the first day, which the log loses
				l.put(record(ev))
			}
			caughtUp(t, l, db)
			ends, err := l.admin.ListEndOffsets(t.Context(), topics()...)
			if err != nil {
				t.Fatal(err)
			}
			for _, ev := range sentOnEachDay(3)[6:] {
				l.put(record(ev))
			}
			caughtUp(t, l, db)
			r.stop()
			if _, err := r.merge(t, autumn); err != nil {
				t.Fatal(err)
			}
			before := dump(t, db, migrations.Schema)
			rebuild := func() {
				t.Helper()
				b := newRebuild(RebuildConfig{Config: cfg, KeepOld: true})
				b.cfg.setDefaults()
				b.daysAtOnce = daysAtOnce
				defer b.close()
				merge := func(context.Context) error { // between the plan and the swap
					_, err := r.merge(t, autumn)
					return err
				}
				for _, step := range []func(context.Context) error{b.connect, b.open, merge, b.run} {
					if err := step(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				if after := dump(t, db, migrations.Schema); !slices.Equal(before, after) {
					t.Fatalf("a rebuild changes rows:%s", differences(after, before))
				}
			}
			rebuild()
			const days = "deliveries_20260901 deliveries_20260914 deliveries_20260930 deliveries_20261123"
			if got := partitionsOf(t, db, "deliveries"); !strings.HasPrefix(got, "deliveries_20260803 deliveries_20260830 "+days) {
				t.Errorf("partitions %s", got)
			}
			if got := queryTexts(t, db, "SELECT count(*)::text FROM whisper_old.deliveries_202609"); got[0] != "9" {
				t.Errorf("%s of September's deliveries were kept, want 9", got[0])
			}
			var cut kadm.Offsets
			ends.Each(func(o kadm.ListedOffset) { cut.AddOffset(o.Topic, o.Partition, o.Offset, -1) })
			if _, err := l.admin.DeleteRecords(t.Context(), cut); err != nil {
				t.Fatal(err)
			}
			plan, err := PlanRebuild(t.Context(), RebuildConfig{Config: cfg})
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(plan.Carried, []string{"2026-08-03"}) || !slices.Contains(plan.Rebuilt, "2026-09-14") {
				t.Errorf("carried %v, rebuilt %v", plan.Carried, plan.Rebuilt)
			}
			rebuild()
			if got := partitionsOf(t, db, "deliveries"); !strings.HasPrefix(got, "deliveries_202608 "+days) {
				t.Errorf("partitions %s", got)
			}
			if plan, err = PlanRebuild(t.Context(), RebuildConfig{Config: cfg}); err != nil {
				t.Fatal(err)
			}
			if len(plan.Carried) != 31 || plan.Carried[0] != "2026-08-01" || !slices.Contains(plan.Rebuilt, "2026-09-14") {
				t.Errorf("carried %v, rebuilt %v", plan.Carried, plan.Rebuilt)
			}
			rebuild()
			cfg.DailyDays = autumn.daily // a projector that runs merges them again
			start(t, cfg)
			eventually(t, "September is merged", func() bool {
				return strings.HasPrefix(partitionsOf(t, db, "delivery_stat_shards"), "delivery_stat_shards_202608 delivery_stat_shards_202609 ")
			})
			if after := dump(t, db, migrations.Schema); !slices.Equal(before, after) {
				t.Errorf("a projector changes rows:%s", differences(after, before))
			}
		})
	}
}

// merge merges months as the role does; its own store was closed.
func (r *role) merge(t *testing.T, which merging) (int, error) {
	st, err := openStore(r.cfg.PostgresURL, migrations.Schema, 3)
	if err != nil {
		return 0, err
	}
	defer st.close()
	return st.mergeMonths(t.Context(), now, which)
}
