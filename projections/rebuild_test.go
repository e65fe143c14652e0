package projections

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/klivvr/whisper/migrations"
)

// putStories puts deliveries in every state, duplicates and late reads among them.
func putStories(l *eventLog, from, to int) {
	for i := from; i < to; i++ {
		s := tell(fmt.Sprintf("n-%d", i), fmt.Sprintf("user-%d", i%31), now.Add(time.Duration(i)*time.Second), int64(i))
		l.put(record(s.accepted()))
		switch i % 5 {
		case 0:
			l.put(record(s.sent(10*time.Millisecond, 1, "socket")), record(s.delivered(20*time.Millisecond, 1)))
			l.put(record(timelessly(s.read(time.Minute))))
		case 1:
			l.put(record(s.sent(10*time.Millisecond, 1, "apns")))
		case 2:
			again := tell(s.notification, s.user, s.requested.Add(time.Minute), int64(100_000+i))
			l.put(record(s.sent(10*time.Millisecond, 1, "apns")), record(again.accepted()), record(again.duplicate(s, time.Minute)))
		case 3:
			l.put(record(s.deferred(10*time.Millisecond, "away")), record(s.expired(time.Hour, "away")))
		}
	}
}

func TestARebuildGivesTheSameRowsUnderARunningProjector(t *testing.T) {
	t.Parallel()
	db, l := database(t), startLog(t)
	r := start(t, config(l, db))
	putStories(l, 0, 300)
	caughtUp(t, l, db)

	var steps []int64
	rebuilding := make(chan error, 1)
	go func() {
		progress := func(done, _ int64) { steps = append(steps, done) }
		rebuilding <- Rebuild(t.Context(), RebuildConfig{Config: config(l, db), KeepOld: true, Progress: progress})
	}()
	putStories(l, 300, 600)
	if err := <-rebuilding; err != nil {
		t.Fatal(err)
	}
	if len(steps) < 2 || !slices.IsSorted(steps[:2]) {
		t.Errorf("progress %v", steps)
	}
	// The projector goes on in the new tables, over the connections that it has.
	putStories(l, 600, 700)
	caughtUp(t, l, db)
	if err := r.Ready(); err != nil {
		t.Errorf("not ready after the swap: %v", err)
	}
	if got := queryTexts(t, db, "SELECT notification_id FROM whisper.conservation"); len(got) != 0 {
		t.Errorf("conservation %v", got)
	}
	kept := dump(t, db, migrations.Schema)

	// The same log once more, with nobody writing beside: exactly the same rows.
	r.stop()
	if err := Rebuild(t.Context(), RebuildConfig{Config: config(l, db)}); err != nil {
		t.Fatal(err)
	}
	if again := dump(t, db, migrations.Schema); !slices.Equal(kept, again) {
		t.Errorf("a rebuild changes rows:%s", differences(again, kept))
	}
	if got := queryTexts(t, db, "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'whisper%'"); len(got) != 1 {
		t.Errorf("schemas %v, want only whisper", got)
	}
	if err := migrations.Check(t.Context(), db); err != nil {
		t.Error(err)
	}
	for _, sql := range []string{
		"SET ROLE whisper_analyst; SELECT * FROM whisper.notifications; SELECT * FROM whisper.delivery_stats; SELECT * FROM whisper.deliveries",
		"CREATE TABLE whisper.later (a int); SET ROLE whisper_analyst; SELECT * FROM whisper.later",
	} {
		execSQL(t, db, sql)
	}
	if got := queryTexts(t, db, "SELECT coalesce(obj_description('whisper.notifications'::regclass), '')"); got[0] == "" {
		t.Error("the views lost their comments")
	}
}
