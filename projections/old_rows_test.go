package projections

import (
	"fmt"
	"testing"
	"time"
)

// Retention takes whole days of tables that have them, and rows of those that have not; what is younger stays.
func TestRetentionTakesWhatIsTooOldFromEveryTable(t *testing.T) {
	t.Parallel()
	f := newFolder(t)
	today := int32(now.Unix() / 86_400)
	for _, days := range []int32{3, 2, 1} {
		at := now.AddDate(0, 0, -int(days))
		day := at.Format(time.DateOnly)
		if err := f.st.ensureDays(t.Context(), []int32{today - days}); err != nil {
			t.Fatal(err)
		}
		for _, sql := range []string{
			`INSERT INTO whisper.deliveries (delivery_id, day, notification_id, user_id, lane, status, attempts, accepted_at) VALUES (gen_random_uuid(), '%[1]s', 'n', 'u', 'high', 'sent', 1, '%[1]s')`,
			`INSERT INTO whisper.duplicates VALUES ('n-%[1]s', 'u', 'r', 0, 0, gen_random_uuid(), '%[1]s', now())`,
			`INSERT INTO whisper.early_facts VALUES ('e', 0, hashtext('%[1]s'), 'n', 'u', '%[1]s 12:00Z', '', NULL)`,
			`INSERT INTO whisper.erasures (partition, "offset", user_hash, alias, at) VALUES (0, abs(hashtext('%[1]s')), '', 'a', '%[1]s 12:00Z')`,
			`INSERT INTO whisper.broadcast_skips VALUES ('n', 0, '%[1]s', 'cap', 1)`,
			`INSERT INTO whisper.broadcast_shards (notification_id, partition, day, lane, category, template, segment, partitions, accepted_at, send_at_local, expires_at,
				request_topic, request_partition, request_offset, state, settled, audience, walked, matched, segment_errors, unwalked, progressed_at)
				VALUES ('n', 0, '%[1]s', 'low', 'c', 't', '', 1, '%[1]s', '', now(), 'r', 0, 0, 'walked', true, 9, 9, 0, 0, 0, now())`,
			`INSERT INTO whisper.delivery_stat_hours VALUES ('%[1]s', '%[1]s 12:00Z', 'high', 'c', 'apns', 'sent', 1, NULL)`,
			`INSERT INTO whisper.delivery_stat_days VALUES ('%[1]s', 'high', 'c', 'apns', 'sent', 1, NULL)`,
			`INSERT INTO whisper.template_stat_shards VALUES ('%[1]s', 't', 1, 'sent', 0, 1)`,
			`INSERT INTO whisper.answer_shards VALUES ('%[1]s 12:00Z', 'apns', 'sent', 0, 1)`,
		} {
			execSQL(t, f.db, fmt.Sprintf(sql, day))
		}
	}
	if err := f.st.dropDays(t.Context(), today-2, retention{days: 2, most: 5}); err != nil {
		t.Fatal(err)
	}
	for table, column := range map[string]string{
		"deliveries": "day", "duplicates": "day", "early_facts": "at", "erasures": "at", "broadcast_skips": "day", "broadcast_shards": "day", "delivery_stat_hours": "day", "delivery_stat_days": "day", "template_stat_shards": "day", "answer_shards": "minute",
	} {
		got := queryTexts(t, f.db, fmt.Sprintf("SELECT (%s AT TIME ZONE 'UTC')::date::text FROM whisper.%s ORDER BY 1", column, table))
		if column == "day" {
			got = queryTexts(t, f.db, "SELECT day::text FROM whisper."+table+" ORDER BY 1")
		}
		if fmt.Sprint(got) != "[2026-11-21 2026-11-22]" {
			t.Errorf("%s has rows of %v, want those of the last two days", table, got)
		}
	}
}
