package projections

import (
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
	"github.com/klivvr/whisper/projections/query"
)

// progressed is what dispatch says of one partition's share; the first says what was asked for.
func progressed(after time.Duration, partition int32, first bool, p *whisperv1.BroadcastProgressed) *kgo.Record {
	return progressedOf(tell("news", "", now, 9), after, partition, first, p)
}

func progressedOf(s story, after time.Duration, partition int32, first bool, p *whisperv1.BroadcastProgressed) *kgo.Record {
	ev := s.at(after)
	if first {
		p.Broadcast = &whisperv1.BroadcastAccepted{
			Partitions: 2, Segment: "true", Rate: 50, Accepted: &whisperv1.DeliveryAccepted{
				Category: "news", Template: "weekly", Channels: []string{"socket"}, ExpiresAtMs: now.Add(time.Hour).UnixMilli(), Request: s.request,
			},
		}
	}
	ev.Kind = &whisperv1.Event_BroadcastProgressed{BroadcastProgressed: p}
	rec := record(ev)
	rec.Partition = partition
	return rec
}

// userOf is a user of the partition.
func userOf(partition int32, n int) string {
	for i := 0; ; i++ {
		user := string(rune('a'+i%26)) + string(rune('a'+i/26%26)) + string(rune('a'+i/676))
		if consumers.PartitionOf(user, parts) == partition {
			if n--; n < 0 {
				return user
			}
		}
	}
}

// TestAnIDThatIsUsedAgainIsAnotherBroadcast: each has its own numbers and its own end, whether their facts are written together,
// as in a rebuild, or one after the other; the notification has both.
func TestAnIDThatIsUsedAgainIsAnotherBroadcast(t *testing.T) {
	t.Parallel()
	const row = `SELECT concat_ws(' ', to_char(accepted_at AT TIME ZONE 'UTC', 'DD'), state, total, sent, skipped, skipped_by, pending, audience) FROM whisper.broadcasts ORDER BY accepted_at`
	for name, together := range map[string]bool{"together": true, "one after the other": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, l := database(t), startLog(t)
			running, walked := whisperv1.BroadcastState_BROADCAST_STATE_RUNNING, whisperv1.BroadcastState_BROADCAST_STATE_WALKED
			week := 7 * 24 * time.Hour
			use := func(requested time.Time, offset int64) (begin, end []*kgo.Record) {
				cast := tell("news", "", requested, offset)
				to := func(p int32, n int) story { return tell("news", userOf(p, n), requested, offset) }
				for p := range int32(2) {
					begin = append(begin, progressedOf(cast, 0, p, true, &whisperv1.BroadcastProgressed{State: running}),
						record(to(p, 0).deferred(time.Second, "away")))
					end = append(end,
						progressedOf(cast, time.Minute, p, false, &whisperv1.BroadcastProgressed{
							State: walked, Settled: true, Audience: 5 + offset,
							Walked: 5 + offset, Matched: 1,
						}))
				}
				return begin, append([]*kgo.Record{
					record(to(0, 0).expired(time.Minute, "ttl")),
					record(to(1, 0).sent(time.Minute, 1, domain.ChannelSocket)),
				}, end...)
			}
			first, firstEnd := use(now.Add(-week), 1)
			second, secondEnd := use(now, 2)
			l.put(slices.Concat(first, firstEnd)...)
			if !together {
				start(t, config(l, db))
				caughtUp(t, l, db)
			}
			l.put(second...)
			if together {
				start(t, config(l, db))
			}
			caughtUp(t, l, db)
			old := `16 finished 2 1 1 {"ttl": 1} 0 12`
			if got := queryTexts(t, db, row); !slices.Equal(got, []string{old, `23 running 2 0 0 {} 2 0`}) {
				t.Errorf("while the second runs: %q", got)
			}
			if got := queryTexts(t, db, "SELECT concat_ws(' ', recipients, deferred, expired, sent) FROM whisper.notifications"); !slices.Equal(got,
				[]string{"4 2 1 1"}) {
				t.Errorf("the notification: %q", got)
			}
			l.put(secondEnd...)
			caughtUp(t, l, db)
			if got := queryTexts(t, db, row); !slices.Equal(got, []string{old, `23 finished 2 1 1 {"ttl": 1} 0 14`}) {
				t.Errorf("at the end: %q", got)
			}
			if got := queryTexts(t, db, "SELECT notification_id FROM whisper.conservation"); len(got) > 0 {
				t.Errorf("it does not add up: %q", got)
			}
			if got := queryTexts(t, db, "SELECT DISTINCT concat_ws(' ', category, request_offset) FROM whisper.deliveries ORDER BY 1"); !slices.Equal(got, []string{"news 1", "news 2"}) {
				t.Errorf("its deliveries: %q", got)
			}
			r, err := query.Open(t.Context(), db)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			if b, known, err := r.Broadcast(t.Context(), "news"); err != nil || !known || !b.AcceptedAt.Equal(now) {
				t.Errorf("the latest: %+v, %t, %v", b, known, err)
			}
		})
	}
}

func TestABroadcastIsSeenWhileItRuns(t *testing.T) {
	t.Parallel()
	db, l := database(t), startLog(t)
	running, walked := whisperv1.BroadcastState_BROADCAST_STATE_RUNNING, whisperv1.BroadcastState_BROADCAST_STATE_WALKED
	at := func(p int32, n int) story { return tell("news", userOf(p, n), now, 9) }
	l.put(
		progressed(0, 0, true, &whisperv1.BroadcastProgressed{State: running}),
		progressed(0, 1, true, &whisperv1.BroadcastProgressed{State: running}),
		record(at(0, 0).deferred(10*time.Millisecond, "away")),
		record(at(0, 1).deferred(10*time.Millisecond, "away")),
		progressed(2*time.Second, 0, false, &whisperv1.BroadcastProgressed{
			State: running, Audience: 8, Walked: 4, Matched: 3,
			StartedMs: now.UnixMilli(),
		}),
	)
	start(t, config(l, db))
	caughtUp(t, l, db)
	row := `SELECT concat_ws(' ', state, category, template, total, sent, failed, skipped, skipped_by, pending, audience, walked, rate, round(walked_per_second::numeric, 1),
		round(extract(epoch FROM estimated_end - started_at))) FROM whisper.broadcasts`
	if got := queryTexts(t, db, row); !slices.Equal(got, []string{`running news weekly 3 0 0 0 {} 3 8 4 50 2.0 4`}) {
		t.Errorf("while it runs: %q", got)
	}
	if got := queryTexts(t, db, "SELECT concat_ws(' ', kind, recipients, accepted, deferred) FROM whisper.notifications"); !slices.Equal(got,
		[]string{"broadcast 3 1 2"}) {
		t.Errorf("the notification: %q", got)
	}
	l.put(
		record(at(0, 0).expired(time.Minute, "ttl")),
		record(at(0, 1).sent(time.Minute, 1, domain.ChannelSocket)), record(at(0, 1).delivered(time.Minute, 1)),
		record(at(0, 2).sent(time.Minute, 1, domain.ChannelSocket)), record(at(1, 0).sent(time.Minute, 1, domain.ChannelSocket)),
		progressed(2*time.Minute, 0, false, &whisperv1.BroadcastProgressed{
			State: walked, Settled: true, Audience: 8, Walked: 8, Matched: 3,
			SegmentErrors: 2, StartedMs: now.UnixMilli(), WalkedMs: now.Add(time.Second).UnixMilli(),
		}),
		progressed(2*time.Minute, 1, false, &whisperv1.BroadcastProgressed{
			State: walked, Settled: true, Audience: 1, Walked: 1, Matched: 1,
			StartedMs: now.UnixMilli(), WalkedMs: now.Add(time.Second).UnixMilli(),
		}),
	)
	caughtUp(t, l, db)
	if got := queryTexts(t, db, row); !slices.Equal(got, []string{`finished news weekly 4 3 0 1 {"ttl": 1} 0 9 9 50 9.0`}) {
		t.Errorf("at its end: %q", got)
	}
	if got := queryTexts(t, db, "SELECT notification_id FROM whisper.conservation"); len(got) > 0 {
		t.Errorf("it does not add up: %q", got)
	}
	if got := queryTexts(t, db, "SELECT DISTINCT category || ' ' || request_offset FROM whisper.deliveries"); !slices.Equal(got,
		[]string{"news 9"}) {
		t.Errorf("its deliveries: %q", got)
	}
	// One that dispatch counted and nobody ever told of is found.
	l.put(progressed(3*time.Minute, 1, false, &whisperv1.BroadcastProgressed{
		State: walked, Settled: true, Audience: 2, Walked: 2,
		Matched: 2,
	}))
	caughtUp(t, l, db)
	if got := queryTexts(t, db, "SELECT concat_ws(' ', notification_id, recipients, counted) FROM whisper.conservation"); !slices.Equal(got,
		[]string{"news 5 4"}) {
		t.Errorf("the missing one: %q", got)
	}
}

// TestABroadcastKeepsItsProgressWhenItsIDIsUsedAgain: the next day's broadcast of the same id has a row of its own.
func TestABroadcastKeepsItsProgressWhenItsIDIsUsedAgain(t *testing.T) {
	t.Parallel()
	f := newFolder(t)
	progress := func(at time.Time, walked int64) *whisperv1.Event {
		cast := tell("news", "", at, at.Unix())
		ev := cast.at(time.Second)
		ev.Kind = &whisperv1.Event_BroadcastProgressed{BroadcastProgressed: &whisperv1.BroadcastProgressed{
			State: whisperv1.BroadcastState_BROADCAST_STATE_RUNNING, Audience: 9, Walked: walked, StartedMs: at.UnixMilli(),
			Broadcast: &whisperv1.BroadcastAccepted{Partitions: 1, Segment: "true", Accepted: &whisperv1.DeliveryAccepted{
				Category: "news", Channels: []string{domain.ChannelSocket}, ExpiresAtMs: at.Add(time.Hour).UnixMilli(), Request: cast.request,
			}},
		}}
		return ev
	}
	f.writeAll(progress(now.Add(-20*time.Hour), 4))
	f.writeAll(progress(now, 1))
	f.writeAll(progress(now, 2))
	got := f.texts("SELECT day || ' ' || walked FROM whisper.broadcast_shards ORDER BY day")
	if want := []string{"2026-11-22 4", "2026-11-23 2"}; !slices.Equal(got, want) {
		t.Errorf("walked %q, want %q", got, want)
	}
}
