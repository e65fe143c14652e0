package projections

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
	"github.com/klivvr/whisper/migrations"
)

// due is what an attempt's fact says of when it was due.
func due(t *rapid.T) int64 {
	return rapid.SampledFrom([]int64{0, now.UnixMilli() + 1, now.UnixMilli() + 700}).Draw(t, "due")
}

// drawFacts is what may be said about one delivery, and about a repeated request for it.
func drawFacts(t *rapid.T, i int) []*whisperv1.Event {
	s := tell(fmt.Sprintf("n-%d", i%2), fmt.Sprintf("user-%d", i), now, int64(i%2))
	s.recipients = 2
	facts := []*whisperv1.Event{s.accepted()}
	ms := func(label string) time.Duration {
		return time.Duration(rapid.IntRange(1, 5000).Draw(t, label)) * time.Millisecond
	}
	for j := range rapid.IntRange(0, 7).Draw(t, "facts") {
		switch rapid.IntRange(0, 10).Draw(t, "kind") {
		case 0:
			facts = append(facts, s.deferred(ms("deferred"), rapid.SampledFrom([]string{"away", "retry", "unacknowledged"}).Draw(t, "why")))
		case 1:
			sent := s.sent(ms("sent"), int32(1+j), rapid.SampledFrom([]string{domain.ChannelSocket, domain.ChannelAPNs}).Draw(t, "channel"))
			sent.GetDeliverySent().DueMs = due(t)
			facts = append(facts, sent)
		case 2:
			delivered := s.delivered(ms("delivered"), int32(1+j/2))
			delivered.GetDeliveryDelivered().DueMs = due(t)
			facts = append(facts, delivered)
		case 3:
			facts = append(facts, s.read(ms("read")))
		case 4:
			facts = append(facts, timelessly(s.read(ms("late read"))))
		case 9:
			facts = append(facts, claimed(s.read(ms("read with its receipt"))))
		case 10: // before anything was sent, or of another delivery
			made := tell(s.notification, s.user, now.Add(time.Duration(rapid.IntRange(-1, 0).Draw(t, "week"))*time.Hour), 0)
			facts = append(facts, claimed(made.read(-time.Minute)))
		case 5:
			facts = append(facts, s.attemptFailed(ms("failed"), int32(1+j/2), rapid.SampledFrom([]whisperv1.FailureClass{
				whisperv1.FailureClass_FAILURE_CLASS_UNKNOWN, whisperv1.FailureClass_FAILURE_CLASS_RETRY, whisperv1.FailureClass_FAILURE_CLASS_DROP,
			}).Draw(t, "class"), "ServiceUnavailable"))
		case 6:
			facts = append(facts, s.expired(ms("expired"), "unacknowledged"))
		case 7:
			facts = append(facts, s.failed(ms("gave up"), "exhausted"))
		case 8:
			n := rapid.IntRange(0, 2).Draw(t, "again") // 0: within the same millisecond
			again := tell(s.notification, s.user, now.Add(time.Duration(n)*time.Second), int64(10+2*n+i%2))
			again.recipients = 2
			facts = append(facts, again.accepted(), again.duplicate(s, ms("dropped")))
		}
	}
	return facts
}

// drawShare is what may be said about a broadcast's share of a partition and its deliveries, which have no accepted fact of
// their own. There is one word of how far it is, since of several the last in the log stands.
func drawShare(t *rapid.T) []*whisperv1.Event {
	cast := tell("news", "", now, 9)
	progress := cast.at(0)
	progress.Kind = &whisperv1.Event_BroadcastProgressed{BroadcastProgressed: &whisperv1.BroadcastProgressed{
		State: whisperv1.BroadcastState_BROADCAST_STATE_RUNNING, Audience: 4, Walked: 4, Matched: 3, StartedMs: now.UnixMilli(),
		Broadcast: &whisperv1.BroadcastAccepted{Partitions: 1, Segment: "true", Accepted: &whisperv1.DeliveryAccepted{
			Category: "news", Channels: []string{domain.ChannelSocket}, ExpiresAtMs: now.Add(time.Hour).UnixMilli(), Request: cast.request,
		}},
	}}
	facts := []*whisperv1.Event{progress}
	ms := func(label string) time.Duration {
		return time.Duration(rapid.IntRange(1, 5000).Draw(t, label)) * time.Millisecond
	}
	for i := range rapid.IntRange(1, 3).Draw(t, "users") {
		s := tell("news", fmt.Sprintf("user-%d", i), now, 9)
		for range rapid.IntRange(1, 3).Draw(t, "words") {
			switch rapid.IntRange(0, 3).Draw(t, "word") {
			case 0:
				facts = append(facts, s.deferred(ms("put off"), "away"))
			case 1:
				facts = append(facts, s.sent(ms("sent"), 1, domain.ChannelSocket))
			case 2:
				facts = append(facts, s.delivered(ms("delivered"), 1))
			case 3:
				facts = append(facts, s.expired(ms("expired"), "ttl"))
			}
		}
	}
	return facts
}

// drawErasures is who of the users asked to be forgotten, and when: also between two requests with one id.
func drawErasures(t *rapid.T) (facts []*whisperv1.Event) {
	for i := range 4 {
		if rapid.IntRange(0, 4).Draw(t, "erased") == 0 {
			s := tell("", fmt.Sprintf("user-%d", i), now, 0)
			ev := s.erased(time.Duration(rapid.IntRange(-1, 5000).Draw(t, "erasure")) * time.Millisecond)
			ev.GetUserErased().ChangesOffset = int64(7 + i) // no two are asked for in one record
			facts = append(facts, ev)
		}
	}
	return facts
}

func TestAnyOrderAndDuplicationGivesTheSameRows(t *testing.T) {
	t.Parallel()
	straight, shuffled := newFolder(t), newFolder(t)
	rapid.Check(t, func(t *rapid.T) {
		var facts []*whisperv1.Event
		for i := range rapid.IntRange(1, 4).Draw(t, "deliveries") {
			facts = append(facts, drawFacts(t, i)...)
		}
		var announced []*whisperv1.Event // what a broadcast is, is told before its deliveries are, on the same partition
		if rapid.Bool().Draw(t, "a broadcast") {
			share := drawShare(t)
			announced = share[:1:1]
			facts = append(facts, share...)
		}
		facts = append(facts, drawErasures(t)...)
		straight.empty(t)
		straight.write(t, facts)
		want := straight.dump()

		var mixed []*whisperv1.Event
		for _, ev := range facts {
			for range rapid.IntRange(1, 2).Draw(t, "copies") {
				mixed = append(mixed, ev)
			}
		}
		mixed = rapid.Permutation(mixed).Draw(t, "order")
		mixed = append(announced, mixed...)
		shuffled.empty(t)
		for len(mixed) > 0 {
			n := rapid.IntRange(1, len(mixed)).Draw(t, "batch")
			shuffled.write(t, mixed[:n])
			mixed = mixed[n:]
		}
		if got := shuffled.dump(); !slices.Equal(got, want) {
			t.Fatalf("rows differ:%s", differences(got, want))
		}
		// The index deliveries_pending, and so `overdue`, has every pending delivery.
		got := shuffled.texts(`SELECT d::text FROM whisper.deliveries AS d
			WHERE status < 'cancelled' AND (sent_at IS NOT NULL OR ended_at IS NOT NULL)`)
		if len(got) != 0 {
			t.Fatalf("pending, and sent or ended: %v", got)
		}
	})
}

func differences(got, want []string) string {
	out := ""
	for _, r := range got {
		if !slices.Contains(want, r) {
			out += "\n  got  " + r
		}
	}
	for _, r := range want {
		if !slices.Contains(got, r) {
			out += "\n  want " + r
		}
	}
	return out
}

// A folder writes batches straight into a schema of its own.
type folder struct {
	t   *testing.T
	db  string
	st  *store
	src *source

	clock time.Time     // facts are judged by it
	keep  time.Duration // for how long
}

func newFolder(t *testing.T) *folder {
	db := database(t)
	st, err := openStore(db, migrations.Schema, 2)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(st.close)
	if err := st.begin(t.Context(), "whisper.events", 0, 0); err != nil {
		t.Fatal(err)
	}
	return &folder{t: t, db: db, st: st, src: &source{topic: "whisper.events"}, clock: now, keep: 24 * time.Hour}
}

func (f *folder) empty(t *rapid.T) {
	for _, table := range []string{
		"deliveries", "attempts", "timeline", "notification_requests", "notification_shards", "duplicates", "early_facts",
		"delivery_stat_shards", "delivery_stat_hours", "delivery_stat_days", "template_stat_shards", "notification_balances", "balanced_days",
		"broadcast_shards", "broadcast_skips", "erasures",
	} {
		if _, err := f.st.pool.Exec(f.t.Context(), "DELETE FROM whisper."+table); err != nil {
			t.Fatal(err)
		}
	}
}

func (f *folder) write(t *rapid.T, events []*whisperv1.Event) {
	if err := f.try(events); err != nil {
		t.Fatal(err)
	}
}

// writeAll writes one batch.
func (f *folder) writeAll(events ...*whisperv1.Event) {
	f.t.Helper()
	if err := f.try(events); err != nil {
		f.t.Fatal(err)
	}
}

func (f *folder) try(events []*whisperv1.Event) error {
	c := &chunk{src: f.src, next: f.src.at}
	for _, ev := range events {
		rec := record(ev)
		rec.Offset, rec.Partition = c.next, 0
		c.next++
		fa, err := decode(rec, ages{f.clock, f.clock}, f.keep)
		if err != nil {
			return err
		}
		c.facts = append(c.facts, fa)
	}
	if err := f.st.ensureDays(f.t.Context(), daysOf([]*chunk{c})); err != nil {
		return err
	}
	if err := f.st.write(f.t.Context(), []*chunk{c}, false); err != nil {
		return err
	}
	f.src.at = c.next
	return nil
}

// dump leaves out the timeline, where each record has its row.
func (f *folder) dump() []string {
	return dump(f.t, f.db, "whisper", "deliveries", "attempts", "notification_requests", "notification_shards",
		"delivery_stat_shards", "broadcast_shards", "broadcast_skips")
}
