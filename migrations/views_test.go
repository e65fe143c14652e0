package migrations_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/klivvr/whisper/migrations"
)

// The views say what their earlier forms said, which are in migrations 5 and 6, on any rows.
func TestTheViewsSayWhatTheirEarlierFormsSaid(t *testing.T) {
	t.Parallel()
	db := database(t)
	if err := migrations.Up(t.Context(), db, nil); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(7, 11))
	var fill strings.Builder
	for _, table := range []string{"notification_requests", "notification_shards"} {
		fmt.Fprintf(&fill, "CREATE TABLE %s_all PARTITION OF %s DEFAULT;\n", table, table)
	}
	day := func() int { return 1 + rng.IntN(3) }
	for i := range 400 {
		id := fmt.Sprintf("n-%d", rng.IntN(120))
		fmt.Fprintf(&fill, "INSERT INTO notification_requests VALUES ('2026-01-0%d', 'r', %d, %d, '%s', '%s', 'c%d', 't%d', 'direct', '2026-01-01T00:00:0%dZ', %d, %s);\n",
			day(), rng.IntN(2), i, id, []string{"high", "low"}[rng.IntN(2)], rng.IntN(3), rng.IntN(3), rng.IntN(3), 1+rng.IntN(3), []string{
				"1",
				"2", "NULL",
			}[rng.IntN(3)])
	}
	for range 400 {
		fmt.Fprintf(&fill, "INSERT INTO notification_shards VALUES ('n-%d', '2026-01-0%d', %d", rng.IntN(150), day(), rng.IntN(6))
		for range 12 {
			fmt.Fprintf(&fill, ", %d", max(0, rng.IntN(7)-4))
		}
		fill.WriteString(") ON CONFLICT DO NOTHING;\n")
	}
	for range 200 {
		fmt.Fprintf(&fill, `INSERT INTO broadcast_shards (notification_id, partition, day, lane, category, template, segment, partitions, accepted_at, send_at_local, expires_at,
			request_topic, request_partition, request_offset, state, settled, audience, walked, matched, segment_errors, unwalked, progressed_at, template_version)
			VALUES ('n-%d', %d, '2026-01-0%d', 'low', 'c', 't', '', 2, '2026-01-01T00:00:0%dZ', '', now(), 'r', 0, 0, 'running', %t, 9, 9, %d, 0, 0, now(), 4) ON CONFLICT DO NOTHING;%s`,
			100+rng.IntN(80), rng.IntN(2), day(), rng.IntN(5), rng.IntN(3) > 0, rng.IntN(5), "\n")
	}
	before := read(t, "sql/00006_broadcast_uses.sql")
	start := strings.Index(before, "CREATE OR REPLACE VIEW notifications AS")
	end := start + strings.Index(before[start:], ";\n")
	fill.WriteString(strings.Replace(before[start:end], "VIEW notifications", "VIEW notifications_before", 1) + ";\n")
	// A broadcast's version used to stand beside the template of an ordinary request of its id that had none.
	columns := "notification_id, lane, category, template, kind, accepted_at, recipients, accepted, scheduled, deferred, unknown, cancelled, suppressed, expired, failed, sent, delivered, read, duplicates"
	exec(t, db, "SET search_path = whisper;\n"+fill.String())
	if got := strs(t, db, "SELECT (count(*) > 5)::text FROM whisper.notifications WHERE kind = 'broadcast' AND recipients > 0"); got[0] != "true" {
		t.Fatal("there are hardly any broadcasts among the rows")
	}
	for _, one := range []string{
		"(SELECT " + columns + " FROM whisper.notifications EXCEPT SELECT " + columns + " FROM whisper.notifications_before)",
		"(SELECT " + columns + " FROM whisper.notifications_before EXCEPT SELECT " + columns + " FROM whisper.notifications)",
	} {
		if got := strs(t, db, "SELECT d::text FROM "+one+" AS d LIMIT 5"); len(got) > 0 {
			t.Errorf("one form has what the other lacks: %q", got)
		}
	}
	counted := "accepted + scheduled + deferred + unknown + cancelled + suppressed + expired + failed + sent + delivered + read"
	unbalanced := "SELECT notification_id, recipients, " + counted + " AS counted, duplicates, accepted_at FROM whisper.notifications_before WHERE recipients <> " + counted
	if got := strs(t, db, "SELECT count(*)::text FROM ("+unbalanced+") AS u"); got[0] == "0" {
		t.Fatal("every row is balanced")
	}
	for _, view := range []string{"conservation", "conservation_full"} {
		now := "SELECT notification_id, recipients, counted, duplicates, accepted_at FROM whisper." + view
		for _, one := range []string{unbalanced + " EXCEPT " + now, now + " EXCEPT (" + unbalanced + ")"} {
			if got := strs(t, db, "SELECT d::text FROM ("+one+") AS d LIMIT 5"); len(got) > 0 {
				t.Errorf("%s differs: %q", view, got)
			}
		}
	}
}
