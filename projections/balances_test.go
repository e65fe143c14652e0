package projections

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/klivvr/whisper/domain/whisperv1"
)

const (
	conservationSQL     = "SELECT (to_jsonb(c) - 'gap')::text FROM whisper.conservation AS c ORDER BY 1"
	conservationFullSQL = "SELECT to_jsonb(c)::text FROM whisper.conservation_full AS c ORDER BY 1"
)

// drawBroadcast is what dispatch says of a broadcast on one partition, whose numbers may be wrong.
func drawBroadcast(t *rapid.T) []*whisperv1.Event {
	cast := tell("news", "", now, 9)
	say := func(after time.Duration, p *whisperv1.BroadcastProgressed, first bool) *whisperv1.Event {
		ev := cast.at(after)
		if first {
			p.Broadcast = &whisperv1.BroadcastAccepted{Partitions: 1, Accepted: &whisperv1.DeliveryAccepted{
				Category: "news", Channels: []string{"socket"}, ExpiresAtMs: now.Add(time.Hour).UnixMilli(), Request: cast.request,
			}}
		}
		ev.Kind = &whisperv1.Event_BroadcastProgressed{BroadcastProgressed: p}
		return ev
	}
	facts := []*whisperv1.Event{say(0, &whisperv1.BroadcastProgressed{}, true)}
	for i := range rapid.IntRange(0, 3).Draw(t, "of the broadcast") {
		s := tell("news", fmt.Sprintf("user-%d", i), now, 9)
		facts = append(
			facts, s.deferred(time.Second, "away"),
			say(time.Minute, &whisperv1.BroadcastProgressed{
				Matched: rapid.Int64Range(0, 3).Draw(t, "matched"),
				Settled: rapid.Bool().Draw(t, "settled"),
			}, false),
		)
	}
	return facts
}

// writeAsBefore writes what a projector without balances does, by its statements.
func (f *folder) writeAsBefore(t *rapid.T, i int) {
	f.exec(fmt.Sprintf(`INSERT INTO whisper.notification_shards AS s (notification_id, day, partition, sent, duplicates)
		SELECT * FROM unnest('{n-%d,old-%[1]d}'::text[], '{2026-11-23,2026-11-23}'::date[], '{0,0}'::int4[], '{%d,1}'::int8[], '{0,1}'::int8[])
		ON CONFLICT (notification_id, partition, day) DO UPDATE SET sent = s.sent + EXCLUDED.sent, duplicates = s.duplicates + EXCLUDED.duplicates`,
		i, rapid.IntRange(-1, 2).Draw(t, "sent as before")))
	f.exec(fmt.Sprintf(`INSERT INTO whisper.notification_requests (day, topic, partition, "offset", notification_id, lane, category, template, kind, accepted_at, recipients)
		VALUES ('2026-11-23', 'r', 0, %d, 'old-%d', 'low', '', '', 'direct', '2026-11-23 12:00Z', 2) ON CONFLICT DO NOTHING`, rapid.IntRange(0, 2).Draw(t, "request"), i))
	f.exec("UPDATE whisper.broadcast_shards SET matched = matched + 1")
}

// TestConservationSaysWhatCountingEverythingSays at any time: whatever is written together, of direct requests,
// duplicates and broadcasts, by this version and by the one before, and whenever balances are added up.
func TestConservationSaysWhatCountingEverythingSays(t *testing.T) {
	t.Parallel()
	f := newFolder(t)
	if err := f.st.ensureDays(t.Context(), []int32{int32(now.Unix() / 86_400)}); err != nil {
		t.Fatal(err)
	}
	open := 0
	rapid.Check(t, func(rt *rapid.T) {
		f.empty(rt)
		var facts []*whisperv1.Event
		for i := range rapid.IntRange(1, 4).Draw(rt, "deliveries") {
			facts = append(facts, drawFacts(rt, i)...)
		}
		facts = rapid.Permutation(append(facts, drawBroadcast(rt)...)).Draw(rt, "order")
		for len(facts) > 0 {
			n := rapid.IntRange(1, len(facts)).Draw(rt, "batch")
			f.write(rt, facts[:n])
			facts = facts[n:]
			switch rapid.IntRange(0, 3).Draw(rt, "beside") {
			case 0:
				if err := f.st.mergeBalances(t.Context()); err != nil {
					rt.Fatal(err)
				}
			case 1:
				f.writeAsBefore(rt, rapid.IntRange(0, 1).Draw(rt, "notification"))
			}
			got, want := f.texts(conservationSQL), f.texts(conservationFullSQL)
			if !slices.Equal(got, want) {
				rt.Fatalf("it differs from all that is counted:%s", differences(got, want))
			}
			open += len(want)
		}
		if err := f.st.mergeBalances(t.Context()); err != nil {
			rt.Fatal(err)
		}
		if got := f.texts("SELECT notification_id FROM whisper.notification_balances GROUP BY 1, day HAVING count(*) > 1 OR sum(balance) = 0"); len(got) > 0 {
			rt.Fatalf("balances are kept of what adds up: %q", got)
		}
	})
	if open == 0 {
		t.Error("nothing was ever open")
	}
}

// TestDaysFromBeforeBalancesAreCounted once, and what comes to them meanwhile.
func TestDaysFromBeforeBalancesAreCounted(t *testing.T) {
	t.Parallel()
	f := newFolder(t)
	short, whole := tell("short", "mona", now, 1), tell("whole", "omar", now, 2)
	short.recipients = 3
	f.writeAll(short.accepted(), whole.accepted())
	f.exec("DELETE FROM whisper.notification_balances")
	f.writeAll(tell("early", "lina", now, 3).sent(time.Second, 1, "apns"))
	if err := f.st.mergeBalances(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, want := f.texts(conservationSQL), f.texts(conservationFullSQL); len(want) != 2 || !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestDaysAreCountedAfterARebuild, since one of the version before keeps no balances.
func TestDaysAreCountedAfterARebuild(t *testing.T) {
	t.Parallel()
	f := newFolder(t)
	short := tell("short", "mona", now, 1)
	short.recipients = 3
	f.writeAll(short.accepted())
	merge := func() {
		t.Helper()
		if err := f.st.mergeBalances(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	merge()
	f.exec("INSERT INTO whisper.notification_balances SELECT 'whole', day, 2 FROM whisper.notification_balances; UPDATE whisper.notification_balances SET balance = 0 WHERE notification_id = 'short'")
	merge()
	if got := f.texts(conservationSQL); len(got) > 0 {
		t.Fatalf("the balances are right before: %q", got)
	}
	f.exec("DELETE FROM whisper.checkpoints") // as a rebuild's last transaction
	merge()
	if got, want := f.texts(conservationSQL), f.texts(conservationFullSQL); len(want) != 1 || !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got := f.texts("SELECT notification_id FROM whisper.notification_balances ORDER BY 1"); len(got) != 1 || got[0] != "short" {
		t.Errorf("balances are kept of %q", got)
	}
}

// TestARequestAndItsDeliveriesTogetherKeepNothing: what most transactions write adds up by itself.
func TestARequestAndItsDeliveriesTogetherKeepNothing(t *testing.T) {
	t.Parallel()
	f := newFolder(t)
	a, b := tell("n", "mona", now, 1), tell("n", "omar", now, 1)
	a.recipients, b.recipients = 2, 2
	f.writeAll(a.accepted(), b.accepted(), a.sent(time.Second, 1, "apns"))
	f.writeAll(b.sent(time.Second, 1, "apns"))
	if got := f.texts("SELECT to_jsonb(b)::text FROM whisper.notification_balances AS b"); len(got) > 0 {
		t.Errorf("kept %q", got)
	}
}

// TestAGapExplainsWhatIsMissing where it may have held it, and nothing else.
func TestAGapExplainsWhatIsMissing(t *testing.T) {
	t.Parallel()
	asked := time.Now().Add(-2 * time.Hour) // it expired an hour ago by the clock of Postgres, which the view looks at
	const day = 24 * time.Hour
	for name, tt := range map[string]struct {
		gap          bool
		since, until time.Duration // from the request's time; a zero since is not known
		explains     bool
	}{
		"of that time":                 {true, -time.Minute, 10 * time.Minute, true},
		"whose beginning nobody knows": {true, 0, 10 * time.Minute, true},
		"of before":                    {true, -3 * day, -time.Minute, false},
		"of a week later":              {true, 7 * day, 8 * day, false},
		"none":                         {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFolder(t)
			f.clock = asked
			s := tell("n", "mona", asked, 1)
			s.recipients = 2
			f.writeAll(s.accepted())
			if tt.gap {
				since := "NULL"
				if tt.since != 0 {
					since = "'" + asked.Add(tt.since).Format(time.RFC3339Nano) + "'"
				}
				f.exec(fmt.Sprintf("INSERT INTO whisper.gaps (topic, partition, from_offset, to_offset, since, until, at) VALUES ('whisper.events', 0, 5, 9, %s, '%s', '%s')",
					since, asked.Add(tt.until).Format(time.RFC3339Nano), asked.Add(17*day).Format(time.RFC3339Nano)))
			}
			want := []string{fmt.Sprint(tt.explains)}
			if got := f.texts("SELECT gap::text FROM whisper.conservation"); !slices.Equal(got, want) {
				t.Errorf("conservation: %q, want %q", got, want)
			}
			if got := f.texts("SELECT gap::text FROM whisper.overdue"); !slices.Equal(got, want) {
				t.Errorf("overdue: %q, want %q", got, want)
			}
			f.exec("UPDATE whisper.gaps SET partition = 1")
			if got := f.texts("SELECT gap::text FROM whisper.overdue WHERE gap"); len(got) > 0 {
				t.Error("a gap of another partition explains it")
			}
		})
	}
}

// TestBalancesAreAddedUpDayByDay: an id may be used on two days. What is added up of one day leaves the row of the other as it is.
func TestBalancesAreAddedUpDayByDay(t *testing.T) {
	t.Parallel()
	f := newFolder(t)
	f.exec("INSERT INTO whisper.notification_balances VALUES ('n', '2026-11-22', 3), ('n', '2026-11-23', 1), ('n', '2026-11-23', 1), ('done', '2026-11-23', 1), ('done', '2026-11-23', -1)")
	if err := f.st.mergeBalances(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := f.texts("SELECT concat_ws(' ', notification_id, day, balance) FROM whisper.notification_balances ORDER BY 1")
	if want := []string{"n 2026-11-22 3", "n 2026-11-23 2"}; !slices.Equal(got, want) {
		t.Errorf("balances are %q, want %q", got, want)
	}
}
