package projections

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/embedded"
	"github.com/klivvr/whisper/migrations"
)

const (
	// manyDays is more days than Postgres has locks for in one transaction. Each has six tables, with their indexes and TOAST tables.
	manyDays = 240
	// rebuiltDays of them have facts; the others are taken away by a rebuild.
	rebuiltDays = 40
)

// TestARebuildOfManyDaysNeedsFewLocks: neither the swap nor the last drop takes the locks of all days in one transaction. The server
// has some 3,500 locks for all sessions together; 240 days have 1,440 tables with some 7,000 indexes.
func TestARebuildOfManyDaysNeedsFewLocks(t *testing.T) {
	t.Parallel()
	own := ownServer(t, embedded.PostgresConfig{Settings: map[string]string{"max_connections": "30", "max_locks_per_transaction": "64"}})
	db, l := own.URL(), startLog(t)
	st, err := openStore(db, migrations.Schema, 2)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(st.close)
	today := dayOfUS(now.UnixMicro())
	for i := range manyDays {
		if err := st.ensureDays(t.Context(), []int32{today - int32(i)}); err != nil {
			t.Fatal(err)
		}
	}
	cfg := config(l, db)
	cfg.RetentionDays, cfg.DailyDays = manyDays+1, 3650
	var records []*kgo.Record
	for i := range rebuiltDays {
		s := tell(fmt.Sprintf("n-%d", i), "mona", now.AddDate(0, 0, -i*manyDays/rebuiltDays), int64(i))
		records = append(records, record(s.accepted()), record(s.sent(time.Second, 1, "apns")))
	}
	l.put(records...)
	r := start(t, cfg)
	caughtUp(t, l, db)
	r.stop()
	rows := func() (all []string) { // table by table: one query over all days of all tables takes too many locks
		for _, table := range dailyTables {
			all = append(all, dump(t, db, migrations.Schema, table.name)...)
		}
		return all
	}
	before := rows()
	merge := func() {
		t.Helper()
		which := merging{keep: manyDays + 1, daily: 60, blocks: monthBlocks}
		if _, err := st.mergeMonths(t.Context(), now, which); err != nil {
			t.Fatal(err)
		}
		// Days of 60 days and of the month that ended since; five months; and three days of a month that is dropped day by day.
		for _, table := range dailyTables {
			if got := len(queryTexts(t, db, fmt.Sprintf(partitionsSQL, table.name))); got > 60+31+2+5+3 {
				t.Errorf("%d partitions of %s are left of %d days", got, table.name, manyDays)
			}
		}
		if after := rows(); !slices.Equal(before, after) {
			t.Fatalf("a merge of days changes rows, of which there were %d:%s", len(before), differences(after, before))
		}
	}
	merge()
	if err := Rebuild(t.Context(), RebuildConfig{Config: cfg}); err != nil {
		t.Fatal(err)
	}
	if after := rows(); len(after) < 4*rebuiltDays || !slices.Equal(before, after) {
		t.Fatalf("a rebuild changes rows, of which there were %d:%s", len(before), differences(after, before))
	}
	merge()
	if got := queryTexts(t, db, "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'whisper%'"); len(got) != 1 {
		t.Errorf("schemas %v, want only whisper", got)
	}
}
