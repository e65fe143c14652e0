package projections

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"golang.org/x/sync/errgroup"

	"github.com/klivvr/whisper/migrations"
)

// TestARebuildKeepsWhatStandsOnTheTables: views, materialised views and grants of others, whichever way the days are swapped.
func TestARebuildKeepsWhatStandsOnTheTables(t *testing.T) {
	t.Parallel()
	for name, daysAtOnce := range map[string]int{"at once": 0, "a day at a time": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, l := database(t), startLog(t)
			r := start(t, config(l, db))
			putStories(l, 0, 60)
			for i := range 4 {
				l.put(record(tell(fmt.Sprintf("old-%d", i), "mona", now.AddDate(0, 0, -i), int64(1000+i)).accepted()))
			}
			caughtUp(t, l, db)
			role := fmt.Sprintf("report_%d", databases.Add(1))
			execSQL(t, db, fmt.Sprintf(`CREATE ROLE %[1]s; CREATE SCHEMA bi; GRANT USAGE ON SCHEMA whisper TO %[1]s;
				GRANT SELECT ON whisper.deliveries, whisper.notifications TO %[1]s`, role))
			execSQL(t, db, `CREATE VIEW bi.failures AS SELECT user_id, status FROM whisper.deliveries WHERE status = 'failed';
				CREATE MATERIALIZED VIEW bi.days AS SELECT day, count(*) FROM whisper.deliveries GROUP BY day`)
			before := dump(t, db, migrations.Schema)
			cfg := RebuildConfig{Config: config(l, db), KeepOld: true}
			cfg.setDefaults()
			said := &journal{}
			cfg.Logger = said.logger()
			b := newRebuild(cfg)
			b.daysAtOnce = daysAtOnce
			t.Cleanup(b.close)
			// A report that has read the tables puts the swap off, and is named.
			report, err := pgx.Connect(t.Context(), db)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = report.Close(context.Background()) })
			if _, err := report.Exec(t.Context(), "BEGIN; SELECT count(*) FROM whisper.deliveries"); err != nil {
				t.Fatal(err)
			}
			var reading errgroup.Group
			reading.Go(func() error {
				tick := time.NewTicker(20 * time.Millisecond)
				defer tick.Stop()
				for !strings.Contains(said.String(), fmt.Sprintf("to=\"swap the rebuilt tables in\" pid=%d", report.PgConn().PID())) {
					select {
					case <-tick.C:
					case <-t.Context().Done():
						return t.Context().Err()
					}
				}
				_, err := report.Exec(t.Context(), "ROLLBACK")
				return err
			})
			for _, step := range []func(context.Context) error{b.connect, b.open, b.run} {
				if err := step(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if err := reading.Wait(); err != nil {
				t.Error(err)
			}
			if after := dump(t, db, migrations.Schema); !slices.Equal(before, after) {
				t.Errorf("a rebuild changes rows:%s", differences(after, before))
			}
			execSQL(t, db, "SELECT * FROM bi.failures; REFRESH MATERIALIZED VIEW bi.days; "+
				"SET ROLE "+role+"; SELECT * FROM whisper.notifications; SELECT * FROM whisper.deliveries")
			execSQL(t, db, "SET ROLE whisper_analyst; SELECT * FROM whisper.deliveries_20261123; SELECT * FROM whisper.conservation")
			if got := queryTexts(t, db, "SELECT count(*)::text FROM whisper_old.deliveries_20261123"); got[0] == "0" {
				t.Error("nothing of what was served before is kept")
			}
			if got := queryTexts(t, db, "SELECT conname FROM pg_constraint WHERE conname = '"+spanCheck+"'"); len(got) != 0 {
				t.Errorf("checks of the swap are left: %v", got)
			}
			// The projector goes on, on the same day and on a new one.
			putStories(l, 100, 120)
			l.put(record(tell("next", "mona", now.AddDate(0, 0, -9), 5000).accepted()))
			caughtUp(t, l, db)
			if err := r.Ready(); err != nil {
				t.Error(err)
			}
			if got := queryTexts(t, db, "SELECT notification_id FROM whisper.conservation"); len(got) != 0 {
				t.Errorf("conservation %v", got)
			}
		})
	}
}

// TestARebuildKeepsWhatTheLogHasLost: days of which records are gone stay as they are, and who was erased before the log begins
// stays so, also in facts that it still has.
func TestARebuildKeepsWhatTheLogHasLost(t *testing.T) {
	t.Parallel()
	db, l := database(t), startLog(t)
	r := start(t, config(l, db))
	user := "mona@example.com"
	old := tell("old", user, now.AddDate(0, 0, -10), 1)
	l.put(record(old.accepted()), record(old.sent(time.Second, 1, "apns")), record(old.erased(10*24*time.Hour+time.Hour)))
	caughtUp(t, l, db)
	ends, err := l.admin.ListEndOffsets(t.Context(), topics()...)
	if err != nil {
		t.Fatal(err)
	}
	late, other := tell("late", user, now, 2), tell("other", "omar", now, 3)
	l.put(record(timelessly(old.read(10 * 24 * time.Hour))))
	l.put(record(late.accepted()), record(late.sent(time.Second, 1, "apns")), record(other.accepted()))
	again := tell("old", user, now.AddDate(0, 0, -9), 4)
	l.put(record(again.accepted()), record(again.duplicate(old, 24*time.Hour)))
	caughtUp(t, l, db)
	before := dump(t, db, migrations.Schema)
	r.stop()
	// Somebody broke a row that the log still tells of, and retention takes all from before.
	execSQL(t, db, "UPDATE whisper.deliveries SET status = 'failed' WHERE notification_id = 'other'")
	var cut kadm.Offsets
	ends.Each(func(o kadm.ListedOffset) { cut.AddOffset(o.Topic, o.Partition, o.Offset, -1) })
	if _, err := l.admin.DeleteRecords(t.Context(), cut); err != nil {
		t.Fatal(err)
	}
	plan, err := PlanRebuild(t.Context(), RebuildConfig{Config: config(l, db)})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(plan.Carried, []string{"2026-11-13"}) || !slices.Contains(plan.Rebuilt, "2026-11-23") || plan.Lost != 3 {
		t.Errorf("plan %+v", plan)
	}
	if err := Rebuild(t.Context(), RebuildConfig{Config: config(l, db)}); err != nil {
		t.Fatal(err)
	}
	after := dump(t, db, migrations.Schema)
	if !slices.Equal(before, after) {
		t.Errorf("a rebuild changes rows:%s", differences(after, before))
	}
	if strings.Contains(strings.Join(after, "\n"), user) {
		t.Error("an erasure was undone")
	}
	// Without what the log has lost, if that is asked for.
	if err := Rebuild(t.Context(), RebuildConfig{Config: config(l, db), AllowTruncated: true}); err != nil {
		t.Fatal(err)
	}
	const begun = "SELECT count(*)::text FROM whisper.deliveries WHERE notification_id = 'old' AND attempts > 0"
	if got := queryTexts(t, db, begun); got[0] != "0" {
		t.Error("a day that the log does not have is left")
	}
}

// TestAnInterruptedSwapStopsProjectorsAndIsTakenUp: some days are new and some old; nobody may write over that.
func TestAnInterruptedSwapStopsProjectorsAndIsTakenUp(t *testing.T) {
	t.Parallel()
	db, l := database(t), startLog(t)
	r := start(t, config(l, db))
	putStories(l, 0, 40)
	caughtUp(t, l, db)
	before := dump(t, db, migrations.Schema)
	r.stop()
	execSQL(t, db, "ALTER TABLE whisper.checkpoints RENAME TO "+swapping)
	runFails(t, config(l, db), "rebuild was interrupted")
	if err := Rebuild(t.Context(), RebuildConfig{Config: config(l, db)}); err != nil {
		t.Fatal(err)
	}
	start(t, config(l, db))
	caughtUp(t, l, db)
	if after := dump(t, db, migrations.Schema); !slices.Equal(before, after) {
		t.Errorf("rows differ:%s", differences(after, before))
	}
}
