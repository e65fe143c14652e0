package projections

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"pgregory.net/rapid"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
	"github.com/klivvr/whisper/migrations"
)

// The questions that counts answer, as they are asked.
const (
	minutesSQL = "SELECT 'minute ' || to_jsonb(s)::text FROM whisper.delivery_stats AS s"
	hoursSQL   = "SELECT 'hour ' || to_jsonb(s)::text FROM whisper.delivery_stats_hourly AS s"
	daysOfSQL  = "SELECT 'day ' || to_jsonb(s)::text FROM whisper.delivery_stats_daily AS s"
	statsSQL   = minutesSQL + " UNION ALL " + hoursSQL + " UNION ALL " + daysOfSQL + " ORDER BY 1"
	// templatesSQL is empty where the templates' counts are those of the deliveries.
	templatesSQL = `SELECT concat_ws(' ', day, template, version, status, sum(n)) FROM (
			SELECT day, template, template_version AS version, status, count AS n FROM whisper.template_stats
			UNION ALL SELECT day, coalesce(template, ''), template_version, status, -count(*) FROM whisper.deliveries GROUP BY 1, 2, 3, 4
		) AS t GROUP BY day, template, version, status HAVING sum(n) <> 0`
	// countedSQL is what the minutes have to be: the deliveries, counted.
	countedSQL = `SELECT concat_ws(' ', date_trunc('minute', accepted_at AT TIME ZONE 'UTC'), lane, coalesce(category, ''), coalesce(channel, ''), status, count(*))
		FROM whisper.deliveries GROUP BY date_trunc('minute', accepted_at AT TIME ZONE 'UTC'), lane, coalesce(category, ''), coalesce(channel, ''), status ORDER BY 1`
	countsSQL = "SELECT concat_ws(' ', minute AT TIME ZONE 'UTC', lane, category, channel, status, count) FROM whisper.delivery_stats ORDER BY 1"
)

// texts are the rows of a query of one text column, over a connection that is there already.
func (f *folder) texts(sql string) []string {
	rows, err := f.st.pool.Query(f.t.Context(), sql)
	if err != nil {
		f.t.Error(err)
		return nil
	}
	got, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		f.t.Error(err)
	}
	return got
}

func (f *folder) exec(sql string) {
	if _, err := f.st.pool.Exec(f.t.Context(), sql); err != nil {
		f.t.Error(err)
	}
}

func (f *folder) merge(t testing.TB, before time.Time) {
	t.Helper()
	if _, err := f.st.mergeStats(f.t.Context(), before); err != nil {
		t.Fatal(err)
	}
}

// uncounted says of a moment that templates are not counted right before the next merge.
const uncounted = "uncounted templates"

// same compares what two databases answer.
func same(t interface{ Fatalf(string, ...any) }, when string, merged, straight *folder) {
	if got, want := merged.texts(statsSQL), straight.texts(statsSQL); !slices.Equal(got, want) {
		t.Fatalf("%s the counts differ:%s", when, differences(got, want))
	}
	if got, want := merged.texts(countsSQL), merged.texts(countedSQL); !slices.Equal(got, want) {
		t.Fatalf("%s the counts are not those of the deliveries:%s", when, differences(got, want))
	}
	if got := merged.texts(templatesSQL); len(got) != 0 && !strings.Contains(when, uncounted) {
		t.Fatalf("%s the counts of templates are wrong: %q", when, got)
	}
}

// TestMergedCountsSayTheSame as those that were never merged, whatever comes when: facts of merged minutes, facts that a projector of the
// version before counted, and merges of any part.
func TestMergedCountsSayTheSame(t *testing.T) {
	t.Parallel()
	straight, merged := newFolder(t), newFolder(t)
	rapid.Check(t, func(rt *rapid.T) {
		straight.empty(rt)
		merged.empty(rt)
		var stories []story
		counted := ""
		for i := range rapid.IntRange(1, 6).Draw(rt, "deliveries") {
			ago := time.Duration(rapid.SampledFrom([]int{0, 1, 30, 59, 60, 61, 90, 720, 721, 900}).Draw(rt, "minutes ago")) * time.Minute
			stories = append(stories, tell(fmt.Sprintf("n-%d", i), fmt.Sprintf("user-%d", i), now.Add(-ago), int64(i)))
		}
		for step := range rapid.IntRange(1, 8).Draw(rt, "steps") {
			switch rapid.IntRange(0, 4).Draw(rt, "what") {
			case 0, 1, 2:
				s := rapid.SampledFrom(stories).Draw(rt, "delivery")
				after := time.Duration(rapid.IntRange(1, 50_000).Draw(rt, "ms")) * time.Millisecond
				accepted := s.accepted()
				accepted.GetDeliveryAccepted().Template = rapid.SampledFrom([]string{"", "card", "card@3"}).Draw(rt, "template")
				ev := rapid.SampledFrom([]*whisperv1.Event{
					accepted, s.deferred(after, "away"), s.sent(after, 1, domain.ChannelSocket), s.delivered(after, 1), s.read(after), s.expired(after, "unacknowledged"),
				}).Draw(rt, "fact")
				straight.write(rt, []*whisperv1.Event{ev})
				merged.write(rt, []*whisperv1.Event{ev})
			case 3:
				counted = ""
				merged.merge(t, now.Add(-time.Duration(rapid.IntRange(-1, 800).Draw(rt, "merge before minutes"))*time.Minute))
			case 4: // as the version before counts, and as the one before that
				if rapid.Bool().Draw(rt, "templates") {
					counted = uncounted
					merged.exec("DELETE FROM whisper.template_stat_shards WHERE abs(hashtext(status)) % 2 = 0")
				}
				merged.exec(`UPDATE whisper.delivery_stat_shards SET buckets = NULL, latencies = ARRAY(
					SELECT coalesce((SELECT v >> 6 FROM unnest(buckets) AS v WHERE v & 63 = i), 0) FROM generate_series(0, 47) AS i)
					WHERE partition >= 0 AND buckets IS NOT NULL AND latencies IS NULL`)
			}
			same(rt, fmt.Sprintf("after step %d %s", step, counted), merged, straight)
		}
		merged.merge(t, now.Add(time.Hour))
		same(rt, "in the end", merged, straight)
		if got := merged.texts("SELECT to_jsonb(s)::text FROM whisper.delivery_stat_shards AS s WHERE partition >= 0 OR count = 0 AND buckets IS NULL"); len(got) != 0 {
			rt.Fatalf("not merged: %v", got)
		}
		if got := merged.texts("SELECT 'x' FROM whisper.delivery_stat_hours WHERE count = 0 AND buckets IS NULL UNION ALL SELECT 'x' FROM whisper.delivery_stat_days WHERE count = 0 AND buckets IS NULL"); len(got) != 0 {
			rt.Fatalf("%d sums of nothing are kept", len(got))
		}
	})
}

// TestCountsAreMergedWhileOthersWrite: two that merge, one that writes, and a reader to whom nothing ever changes but what was written.
func TestCountsAreMergedWhileOthersWrite(t *testing.T) {
	t.Parallel()
	straight, merged := newFolder(t), newFolder(t)
	ctx, cancel := context.WithCancel(t.Context())
	var working sync.WaitGroup
	passes := make(chan int64, 1_000_000)
	for range 2 {
		st, err := openStore(merged.db, migrations.Schema, 2)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(st.close)
		working.Go(func() {
			for ctx.Err() == nil {
				n, err := st.mergeStats(ctx, now.Add(time.Hour))
				if err != nil && !errors.Is(err, errElsewhere) && ctx.Err() == nil {
					t.Errorf("merge: %v", err)
					return
				}
				if n > 0 {
					passes <- n
				}
			}
		})
	}
	for round := range 40 {
		var events []*whisperv1.Event
		for i := range 20 {
			s := tell(fmt.Sprintf("n-%d", i), fmt.Sprintf("user-%d", i), now.Add(-time.Duration(i*17)*time.Minute), int64(i))
			switch round % 4 {
			case 0:
				s = tell(fmt.Sprintf("n-%d-%d", i, round), fmt.Sprintf("user-%d", i), now.Add(-time.Duration(i*17)*time.Minute), int64(100*round+i))
				events = append(events, s.accepted())
			case 1:
				events = append(events, s.sent(time.Duration(round)*time.Second, 1, domain.ChannelSocket))
			case 2:
				events = append(events, s.delivered(time.Duration(round)*time.Second, 1))
			case 3:
				events = append(events, s.read(time.Duration(round)*time.Second))
			}
		}
		straight.writeAll(events...)
		merged.writeAll(events...)
		same(t, fmt.Sprintf("after round %d", round), merged, straight)
	}
	eventually(t, "all is merged", func() bool {
		return len(merged.texts("SELECT 'x' FROM whisper.delivery_stat_shards WHERE partition >= 0")) == 0
	})
	cancel()
	working.Wait()
	if len(passes) == 0 {
		t.Error("nothing was merged meanwhile")
	}
	same(t, "in the end", merged, straight)
}

// TestAMergeThatIsCutOffChangesNothing, and neither waits for a writer nor takes what it has in hand.
func TestAMergeThatIsCutOffChangesNothing(t *testing.T) {
	t.Parallel()
	straight, merged := newFolder(t), newFolder(t)
	for _, f := range []*folder{straight, merged} {
		for i := range 3 {
			s := tell(fmt.Sprintf("n-%d", i), "mona", now.Add(-time.Duration(i)*time.Minute), int64(i))
			f.writeAll(s.accepted(), s.sent(time.Second, 1, domain.ChannelAPNs))
		}
	}
	merged.merge(t, now)
	live := func() int {
		return len(merged.texts("SELECT 'x' FROM whisper.delivery_stat_shards WHERE partition >= 0"))
	}
	if n := live(); n != 1 {
		t.Fatalf("%d rows are left, want that of the last minute", n)
	}
	rows := merged.texts("SELECT to_jsonb(s)::text FROM whisper.delivery_stat_shards AS s ORDER BY 1")
	other, err := pgx.Connect(t.Context(), merged.db)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = other.Close(context.Background()) })
	// It has taken rows away and added them to their minute and hour when it comes to the days.
	if _, err := other.Exec(t.Context(), "BEGIN; LOCK TABLE whisper.delivery_stat_days IN SHARE MODE"); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := merged.st.mergeStats(t.Context(), now.Add(time.Hour))
		done <- err
	}()
	eventually(t, "it was cut off", func() bool {
		_, err := tryTexts(t, merged.db, "SELECT pg_terminate_backend(pid)::text FROM pg_locks WHERE relation = 'whisper.delivery_stat_days'::regclass AND NOT granted")
		if err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-done:
			if err == nil {
				t.Error("the merge did not wait")
			}
			return true
		default:
			return false
		}
	})
	if _, err := other.Exec(t.Context(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	if got := merged.texts("SELECT to_jsonb(s)::text FROM whisper.delivery_stat_shards AS s ORDER BY 1"); !slices.Equal(got, rows) {
		t.Errorf("rows have changed:%s", differences(got, rows))
	}
	same(t, "after it was cut off", merged, straight)

	if _, err := other.Exec(t.Context(), "BEGIN; UPDATE whisper.delivery_stat_shards SET count = count + 1 WHERE partition >= 0"); err != nil {
		t.Fatal(err)
	}
	merged.merge(t, now.Add(time.Hour))
	if n := live(); n != 1 {
		t.Errorf("%d rows are left, want the one that a writer has in hand", n)
	}
	if _, err := other.Exec(t.Context(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	merged.merge(t, now.Add(time.Hour))
	if n := live(); n != 0 {
		t.Errorf("%d rows are left", n)
	}
	same(t, "in the end", merged, straight)
}

// TestARebuildTakesUpMergedCounts: with days that are made anew, and with one that stays.
func TestARebuildTakesUpMergedCounts(t *testing.T) {
	t.Parallel()
	db, l := database(t), startLog(t)
	r := start(t, config(l, db))
	old := tell("old", "mona", now.AddDate(0, 0, -10), 1)
	l.put(record(old.accepted()), record(old.sent(time.Second, 1, "apns")))
	ends, err := l.admin.ListEndOffsets(t.Context(), topics()...)
	if err != nil {
		t.Fatal(err)
	}
	putStories(l, 0, 60)
	caughtUp(t, l, db)
	before := queryTexts(t, db, statsSQL)
	right := func(when string) {
		if got := queryTexts(t, db, templatesSQL); len(got) != 0 {
			t.Errorf("%s the counts of templates are wrong: %q", when, got)
		}
	}
	right("as written")
	merge := func() {
		eventually(t, "counts are merged", func() bool {
			_, err := r.store.mergeStats(t.Context(), now.Add(time.Hour))
			if err != nil && !errors.Is(err, errElsewhere) {
				t.Fatal(err)
			}
			return err == nil
		})
	}
	merge()
	for _, name := range []string{"of all days", "of all but one"} {
		if name == "of all but one" {
			var cut kadm.Offsets
			ends.Each(func(o kadm.ListedOffset) { cut.AddOffset(o.Topic, o.Partition, o.Offset, -1) })
			if _, err := l.admin.DeleteRecords(t.Context(), cut); err != nil {
				t.Fatal(err)
			}
		}
		if err := Rebuild(t.Context(), RebuildConfig{Config: config(l, db)}); err != nil {
			t.Fatal(err)
		}
		if got := queryTexts(t, db, statsSQL); !slices.Equal(got, before) {
			t.Errorf("a rebuild %s changes counts:%s", name, differences(got, before))
		}
		right("after a rebuild " + name)
		merge()
		right("after a merge after a rebuild " + name)
		if got := queryTexts(t, db, statsSQL); !slices.Equal(got, before) {
			t.Errorf("a merge after a rebuild %s changes counts:%s", name, differences(got, before))
		}
	}
}

// BenchmarkCounts gives the size of two hours of counts and the time of an hour by minute, of ten categories and four statuses: as 96 user
// partitions count them, as writers do now, and merged.
//
//	go test ./projections -run '^$' -bench Counts -benchtime 1x
func BenchmarkCounts(b *testing.B) {
	const asked = "SELECT count(*)::text || sum(count) || sum(latency_p99_ms) FROM whisper.delivery_stats WHERE minute >= '2026-11-23 11:00Z'"
	for _, tt := range []struct {
		name   string
		shards int
		column string
		value  string
		before time.Time
	}{
		{"every user partition for itself", 96, "latencies", "array_fill(0::bigint, ARRAY[10]) || ARRAY[1, 3, 9, 4, 2, 1]::bigint[] || array_fill(0::bigint, ARRAY[32])", time.Time{}},
		{"as transactions count", 8, "buckets", "whisper.pack_buckets(array_fill(0::bigint, ARRAY[10]) || ARRAY[12, 36, 108, 48, 24, 12]::bigint[])", time.Time{}},
		{"merged but the last hour", 8, "buckets", "whisper.pack_buckets(array_fill(0::bigint, ARRAY[10]) || ARRAY[12, 36, 108, 48, 24, 12]::bigint[])", now.Add(-time.Hour)},
		{"merged", 8, "buckets", "whisper.pack_buckets(array_fill(0::bigint, ARRAY[10]) || ARRAY[12, 36, 108, 48, 24, 12]::bigint[])", now.Add(time.Hour)},
	} {
		b.Run(tt.name, func(b *testing.B) {
			for range b.N {
				db := database(b)
				st, err := openStore(db, migrations.Schema, 2)
				if err != nil {
					b.Fatal(err)
				}
				if err := st.ensureDays(b.Context(), []int32{int32(now.Unix() / 86_400)}); err != nil {
					b.Fatal(err)
				}
				for hour := range 2 {
					execSQL(b, db, fmt.Sprintf(`INSERT INTO whisper.delivery_stat_shards (day, minute, lane, category, channel, status, partition, count, %s)
						SELECT '2026-11-23', '2026-11-23 10:00Z'::timestamptz + m * interval '1 minute', 'normal', 'category-' || c, 'apns', s::whisper.delivery_status, p, 20, %s
						FROM generate_series(60 * %d, 60 * %[3]d + 59) AS m, generate_series(1, 10) AS c, unnest('{accepted,sent,delivered,read}'::text[]) AS s, generate_series(1, %[4]d) AS p`,
						tt.column, tt.value, hour, tt.shards))
					start := time.Now()
					n, err := st.mergeStats(b.Context(), tt.before)
					if err != nil {
						b.Fatal(err)
					}
					if n > 0 {
						b.ReportMetric(float64(time.Since(start).Microseconds())/float64(n), "µs/merged-row")
					}
					execSQL(b, db, "VACUUM ANALYZE whisper.delivery_stat_shards")
				}
				size := queryTexts(b, db, "SELECT pg_total_relation_size('whisper.delivery_stat_shards_20261123')::text")
				bytes, err := strconv.ParseFloat(size[0], 64)
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(bytes/1e6, "MB")
				best := time.Hour
				for range 3 {
					start := time.Now()
					queryTexts(b, db, asked)
					best = min(best, time.Since(start))
				}
				b.ReportMetric(float64(best.Milliseconds()), "ms/question")
				st.close()
			}
		})
	}
}

// TestADayThatIsNotMergedAnswers: a day of every minute from every user partition, in one group. What grew with the square
// of its rows took minutes; the bound is for that.
func TestADayThatIsNotMergedAnswers(t *testing.T) {
	t.Parallel()
	db := database(t)
	st, err := openStore(db, migrations.Schema, 2)
	if err != nil {
		t.Fatal(err)
	}
	defer st.close()
	day := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	if err := st.ensureDays(t.Context(), []int32{int32(day.Unix() / 86_400)}); err != nil {
		t.Fatal(err)
	}
	execSQL(t, db, `INSERT INTO whisper.delivery_stat_shards (day, minute, lane, category, channel, status, partition, count, buckets)
		SELECT '2026-11-23', '2026-11-23 00:00Z'::timestamptz + m * interval '1 minute', 'normal', 'c', 'apns', 'sent', p, 20, whisper.pack_buckets(array_fill(0::bigint, ARRAY[10]) || ARRAY[12, 36, 108, 48, 24]::bigint[])
		FROM generate_series(0, 1439) AS m, generate_series(1, 96) AS p`)
	within := db + "&statement_timeout=60000"
	for view, want := range map[string]string{"daily": "2764800", "hourly": "115200"} {
		for _, got := range queryTexts(t, within, "SELECT count::text FROM whisper.delivery_stats_"+view) {
			if got != want {
				t.Errorf("%s: %s deliveries, want %s", view, got, want)
			}
		}
	}
}
