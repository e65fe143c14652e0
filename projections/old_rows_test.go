package projections

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// Retention takes whole days of tables that have them, and rows of those that have not; what is younger stays.
func TestRetentionTakesWhatIsTooOldFromEveryTable(t *testing.T) {
	t.Parallel()
	f := newFolder(t)
	today := int32(now.Unix() / 86_400)
	for _, days := range []int32{4, 3, 2, 1} {
		at := now.AddDate(0, 0, -int(days))
		day := at.Format(time.DateOnly)
		if err := f.st.ensureDays(t.Context(), []int32{today - days}); err != nil {
			t.Fatal(err)
		}
		for _, sql := range []string{
			`INSERT INTO whisper.deliveries (delivery_id, day, notification_id, user_id, lane, status, attempts, accepted_at)
				VALUES (gen_random_uuid(), '%[1]s', 'n', 'u', 'high', 'sent', 1, '%[1]s')`,
			`INSERT INTO whisper.duplicates VALUES ('n-%[1]s', 'u', 'r', 0, 0, gen_random_uuid(), '%[1]s', now())`,
			`INSERT INTO whisper.early_facts VALUES ('e', 0, hashtext('%[1]s'), 'n', 'u', '%[1]s 12:00Z', '', NULL)`,
			`INSERT INTO whisper.erasures (partition, "offset", user_hash, alias, at) VALUES (0, abs(hashtext('%[1]s')), '', 'a', '%[1]s 12:00Z')`,
			`INSERT INTO whisper.broadcast_skips VALUES ('n', 0, '%[1]s', 'cap', 1)`,
			`INSERT INTO whisper.broadcast_shards (notification_id, partition, day, lane, category, template, segment, partitions,
				accepted_at, send_at_local, expires_at, request_topic, request_partition, request_offset, state, settled, audience, walked, matched, segment_errors, unwalked, progressed_at)
				VALUES ('n', 0, '%[1]s', 'low', 'c', 't', '', 1, '%[1]s', '', now(), 'r', 0, 0, 'walked', true, 9, 9, 0, 0, 0, now())`,
			`INSERT INTO whisper.delivery_stat_hours VALUES ('%[1]s', '%[1]s 12:00Z', 'high', 'c', 'apns', 'sent', 1, NULL)`,
			`INSERT INTO whisper.delivery_stat_days VALUES ('%[1]s', 'high', 'c', 'apns', 'sent', 1, NULL)`,
			`INSERT INTO whisper.template_stat_shards VALUES ('%[1]s', 't', 1, 'sent', 0, 1)`,
			`INSERT INTO whisper.answer_shards VALUES ('%[1]s 12:00Z', 'apns', 'sent', 0, 1)`,
			`INSERT INTO whisper.notification_balances VALUES ('n', '%[1]s', 1)`,
			`INSERT INTO whisper.balanced_days VALUES ('%[1]s')`,
			`INSERT INTO whisper.gaps (topic, partition, from_offset, to_offset, at)
				VALUES ('e', 0, abs(hashtext('%[1]s')), 3000000000, '%[1]s 12:00Z')`,
		} {
			execSQL(t, f.db, fmt.Sprintf(sql, day))
		}
	}
	// The oldest day has a delivery that is pending, so it stays.
	f.exec("UPDATE whisper.deliveries SET status = 'scheduled' WHERE day = '2026-11-19'")
	if err := f.st.dropDays(t.Context(), today-2, retention{days: 2, most: 5}); err != nil {
		t.Fatal(err)
	}
	const (
		young = "2026-11-21 2026-11-22"
		held  = "2026-11-19 " + young
		all   = "2026-11-19 2026-11-20 " + young // facts about the day that stays still come
	)
	for table, want := range map[string]string{
		"deliveries": held, "duplicates": held, "broadcast_skips": held, "broadcast_shards": held,
		"delivery_stat_hours": held, "delivery_stat_days": held,
		"template_stat_shards": held, "notification_balances": held, "balanced_days": held,
		"early_facts": all, "erasures": all, "gaps": all,
		"answer_shards": young,
	} {
		column := map[string]string{all: "(at AT TIME ZONE 'UTC')::date", held: "day", young: "(minute AT TIME ZONE 'UTC')::date"}[want]
		got := strings.Join(f.texts(fmt.Sprintf("SELECT (%s)::text FROM whisper.%s ORDER BY 1", column, table)), " ")
		if got != want {
			t.Errorf("%s has rows of %s, want %s", table, got, want)
		}
	}
	f.exec("UPDATE whisper.deliveries SET status = 'sent' WHERE day = '2026-11-19'")
	f.st.held = map[int32]time.Time{} // six hours later
	if err := f.st.dropDays(t.Context(), today-2, retention{days: 2, most: 5}); err != nil {
		t.Fatal(err)
	}
	for _, table := range []string{"early_facts", "erasures", "gaps"} {
		got := strings.Join(f.texts("SELECT (at AT TIME ZONE 'UTC')::date::text FROM whisper."+table+" ORDER BY 1"), " ")
		if got != young {
			t.Errorf("%s has rows of %s, want %s", table, got, young)
		}
	}
}
